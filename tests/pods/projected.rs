//! Projected volumes: several sources in one directory.

use serde_json::json;

use crate::common::Machine;
use crate::support::{idle, pod, until, with};

const SPEC: &str = include_str!("../../specs/projected.yaml");

#[test]
fn the_shipped_manifest_shows_all_its_sources_together() {
    let machine = Machine::new();
    machine.run_pod(SPEC);
    let sh = |script: &str| machine.sh("projected", "demo", script);
    assert_eq!(
        sh("cd /etc/everything; ls; cat colour; echo; cat private/token; echo; cat labels"),
        "colour\nlabels\nprivate\nblue\nopen sesame\napp=\"demo\""
    );
    let modes = "cd /etc/everything/..data; stat -c %a colour private/token labels";
    assert_eq!(sh(modes), "440\n400\n440\n");
    let table = sh("grep ' /etc/everything ' /proc/mounts");
    assert!(
        table.starts_with("tmpfs /etc/everything tmpfs ro"),
        "{table}"
    );

    // The optional one appears; all of them change together.
    let more =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: not-needed}\ndata: {extra: new}\n";
    machine.orlop_with(["apply", "-f", "-"], more).ok();
    let list = [
        "exec",
        "projected",
        "--",
        "/bin/cat",
        "/etc/everything/extra",
    ];
    let start = std::time::Instant::now();
    while machine.orlop(list).stdout != "new" {
        assert!(
            start.elapsed() < crate::common::LIMIT,
            "the new file does not come"
        );
    }
    let changed = SPEC
        .replace("colour: blue", "colour: red")
        .replace("open sesame", "closed");
    machine.orlop_with(["apply", "-f", "-"], &changed).ok();
    let read = [
        "exec",
        "projected",
        "--",
        "/bin/sh",
        "-c",
        "cd -P /etc/everything/..data; cat colour private/token",
    ];
    let seen = until(&machine, &read, |text| text != "blueopen sesame");
    assert!(
        ["redclosed", "redopen sesame"].contains(&seen.as_str()),
        "{seen}"
    );
    until(&machine, &read, |text| text == "redclosed");
}

#[test]
fn a_missing_source_is_named_and_the_later_of_two_equal_paths_wins() {
    let machine = Machine::new();
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let spec = json!({
        "containers": [with(idle("c"), &mount)],
        "volumes": [{"name": "v", "projected": {"sources": [
            {"configMap": {"name": "one"}}, {"secret": {"name": "two"}}
        ]}}],
    });
    let one = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": "1", "b": "1"}});
    let two = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "two"}, "stringData": {"b": "2"}});
    let both = format!("{one}\n---\n{}", pod(&spec));
    machine.orlop_with(["apply", "-f", "-"], &both).ok();
    let message = "MountVolume.SetUp failed for volume \"v\" : secret \"two\" not found";
    until(&machine, &["describe", "pod", "web"], |page| {
        page.contains(message)
    });
    machine
        .orlop_with(["apply", "-f", "-"], &two.to_string())
        .ok();
    machine.wait_for("web", |pod| pod["status"]["phase"] == "Running");
    assert_eq!(machine.sh("web", "c", "cat /v/a /v/b"), "12");
}

#[test]
fn sources_that_need_an_api_server_are_refused_with_the_reason() {
    let machine = Machine::bare();
    for (source, reason) in [
        (
            json!({"serviceAccountToken": {"path": "token"}}),
            "issue or accept a token",
        ),
        (
            json!({"clusterTrustBundle": {"path": "ca"}}),
            "hold a bundle",
        ),
        (
            json!({"podCertificate": {"signerName": "a/b", "keyType": "ED25519"}}),
            "sign a certificate",
        ),
    ] {
        let spec = json!({
            "containers": [{"name": "c", "image": "busybox"}],
            "volumes": [{"name": "v", "projected": {"sources": [source]}}],
        });
        let said = machine
            .orlop_with(["apply", "-f", "-"], &pod(&spec))
            .refused();
        assert!(
            said.contains("spec.volumes[0].projected.sources[0]."),
            "{said}"
        );
        assert!(
            said.contains("no API server") && said.contains(reason),
            "{said}"
        );
    }
}
