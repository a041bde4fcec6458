//! The command line: what is refused, and what is shown.

use std::fs;

use orlop::storage::roots::Roots;
use serde_json::{Value, json};

use crate::common::{Machine, entries, path};
use crate::support::{idle, pod, row};

/// Applies a file of this content, which must be refused in one sentence, and
/// change nothing.
#[track_caller]
fn refusal(content: &[u8]) -> String {
    let machine = Machine::bare();
    let file = machine.path("pod.yaml");
    fs::write(&file, content).expect("write");
    let sentence = machine.orlop(["apply", "-f", path(&file)]).refused();
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
    assert!(
        sentence.starts_with("error: ") && sentence.contains(path(&file)),
        "{sentence}"
    );
    assert!(machine.orlop(["get", "pods", "-A"]).ok().is_empty());
    assert!(machine.keepers().is_empty());
    assert_eq!(entries(&machine.roots.pods()), [""; 0]);
    assert_eq!(entries(&machine.roots.logs), [""; 0]);
    machine.assert_nothing_is_left();
    sentence.replace(path(&file), "pod.yaml")
}

const GOOD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: good}\nspec:\n  containers:\n  - {name: c, image: busybox}\n";

#[test]
fn a_bad_second_document_keeps_the_first_from_being_applied() {
    let bad = GOOD
        .replace("name: good", "name: bad")
        .replace("image: busybox", "image: busybox, comand: [a]");
    let sentence = refusal(format!("{GOOD}---\n{bad}").as_bytes());
    assert!(sentence.contains("document 2"), "{sentence}");
    assert!(
        sentence.contains("spec.containers[0]") && sentence.contains("comand"),
        "{sentence}"
    );
}

#[test]
fn what_is_no_manifest_is_refused() {
    let cases: [(&str, Vec<u8>, &str); 9] = [
        (
            "an unknown kind",
            GOOD.replace("kind: Pod", "kind: Pot").into(),
            "Pot",
        ),
        ("an empty file", Vec::new(), "no "),
        ("only comments", b"# nothing\n---\n---\n".to_vec(), "no "),
        (
            "a bad name",
            GOOD.replace("name: good", "name: Good_Name").into(),
            "metadata.name",
        ),
        (
            "no containers",
            b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}".to_vec(),
            "spec.containers",
        ),
        (
            "the same pod twice",
            format!("{GOOD}---\n{GOOD}").into(),
            "good",
        ),
        (
            "a climbing path",
            GOOD.replace(
                "image: busybox",
                "image: busybox, volumeMounts: [{name: v, mountPath: /a}]",
            )
            .replace(
                "spec:\n",
                "spec:\n  volumes: [{name: v, hostPath: {path: /tmp/../etc}}]\n",
            )
            .into(),
            "'..'",
        ),
        (
            "a volume that is not there",
            GOOD.replace(
                "image: busybox",
                "image: busybox, volumeMounts: [{name: v, mountPath: /a}]",
            )
            .into(),
            "spec.containers[0].volumeMounts[0].name",
        ),
        (
            "a bad quantity",
            GOOD.replace(
                "image: busybox",
                "image: busybox, resources: {limits: {memory: 1Xi}}",
            )
            .into(),
            "1Xi",
        ),
    ];
    for (what, content, word) in cases {
        let sentence = refusal(&content);
        assert!(sentence.contains(word), "{what}: {sentence}");
    }
}

#[test]
fn two_volumes_of_one_name_are_refused() {
    let twice = GOOD.replace(
        "spec:\n",
        "spec:\n  volumes: [{name: v, emptyDir: {}}, {name: v, emptyDir: {}}]\n",
    );
    let sentence = refusal(twice.as_bytes());
    assert!(sentence.contains("spec.volumes[1].name"), "{sentence}");
}

#[test]
fn a_huge_file_is_refused_at_once() {
    let mut huge = GOOD.as_bytes().to_vec();
    while huge.len() < 10 << 20 {
        huge.extend_from_slice(b"# nothing but comments, again and again and again and again\n");
    }
    let sentence = refusal(&huge);
    assert!(
        sentence.contains("MiB") || sentence.contains("large"),
        "{sentence}"
    );
}

#[test]
fn usage_that_is_wrong_is_told_with_code_1() {
    let machine = Machine::bare();
    for arguments in [
        ["apply"].as_slice(),
        &["no-such-verb"],
        &["get"],
        &["get", "no-such-kind"],
        &["get", "pods", "-o", "no-such-format"],
        &["delete", "pod"],
        &["logs"],
        &["exec", "web"],
        &["apply", "-f", "/no/such/file.yaml"],
    ] {
        let said = machine.orlop(arguments).refused();
        assert!(!said.is_empty(), "{arguments:?}");
    }
    machine.assert_nothing_is_left();
}

#[test]
fn a_running_pod_is_shown_in_every_format() {
    let machine = Machine::new();
    let spec = json!({"containers": [idle("c")]});
    machine.run_pod(&pod(&spec));
    let get = |format: &str| machine.orlop(["get", "pod", "web", "-o", format]).ok();

    assert_eq!(get("name"), "pod/web\n");
    let wide = get("wide");
    assert!(
        wide.starts_with("NAME   READY   STATUS    RESTARTS   AGE"),
        "{wide}"
    );
    assert!(wide.contains("IP ") && wide.contains("NODE "), "{wide}");
    let json: Value = serde_json::from_str(&get("json")).expect("JSON");
    assert_eq!(
        (&json["apiVersion"], &json["kind"], &json["status"]["phase"]),
        (&json!("v1"), &json!("Pod"), &json!("Running"))
    );
    assert_eq!(json["status"]["qosClass"], "BestEffort");
    assert_eq!(json["spec"]["restartPolicy"], "Always");
    let list: Value =
        serde_json::from_str(&machine.orlop(["get", "pods", "-o", "json"]).ok()).expect("JSON");
    assert_eq!(
        (&list["kind"], &list["items"][0]["metadata"]["name"]),
        (&json!("List"), &json!("web"))
    );

    // What is shown as YAML can be applied again, and changes nothing.
    let yaml = get("yaml");
    assert!(yaml.starts_with("apiVersion: v1\nkind: Pod\n"), "{yaml}");
    let again = machine.orlop_with(["apply", "-f", "-"], &yaml).ok();
    assert_eq!(again, "pod/web unchanged\n");

    let page = machine.orlop(["describe", "pod", "web"]).ok();
    for part in [
        "Name:",
        "Status:",
        "Running",
        "Containers:",
        "Events:",
        "Scheduled",
        "Pulled",
        "Created",
        "Started",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    let elsewhere = machine.orlop(["get", "pods", "-n", "elsewhere"]);
    assert_eq!(
        elsewhere.stderr,
        "No resources found in elsewhere namespace.\n"
    );
    let all = machine.orlop(["get", "po", "-A"]).ok();
    assert!(all.starts_with("NAMESPACE   NAME"), "{all}");
}

#[test]
fn commands_without_a_pod_say_so() {
    let machine = Machine::bare();
    let version = machine.orlop(["version"]).ok();
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let doctor = machine.orlop(["doctor"]).ok();
    assert!(!doctor.contains("BROKEN"), "{doctor}");
    assert_eq!(machine.orlop(["reconcile"]).ok(), "");
    let none = machine.orlop(["get", "pods"]);
    assert_eq!(none.stderr, "No resources found in default namespace.\n");
    assert_eq!(none.ok(), "");
    let missing = machine.orlop(["delete", "pod", "web"]).refused();
    assert_eq!(
        missing,
        "Error from server (NotFound): pods \"web\" not found\n"
    );
    machine
        .orlop(["delete", "pod", "web", "--ignore-not-found"])
        .ok();
    machine.assert_nothing_is_left();
}

#[test]
fn reconcile_has_nothing_to_say_about_a_pod_that_runs() {
    let machine = Machine::new();
    machine.run_pod(&pod(&json!({"containers": [idle("c")]})));
    let outcome = machine.orlop(["reconcile"]);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));
    assert_eq!(row(&machine)[1..4], ["1/1", "Running", "0"]);
}

#[test]
fn a_reader_that_goes_away_stops_nothing() {
    let machine = Machine::new();
    let file = machine.path("pod.yaml");
    let second = pod(&json!({"containers": [idle("c")]})).replace("\"web\"", "\"two\"");
    let first = pod(&json!({"containers": [idle("c")]}));
    fs::write(&file, format!("{first}\n---\n{second}")).expect("write");
    let file = path(&file);
    let run = |arguments: &[&str]| {
        let (reader, writer) = std::io::pipe().expect("pipe");
        drop(reader);
        let mut command = machine.command(arguments);
        let errors = writer.try_clone().expect("dup");
        command.stdout(writer).stderr(errors);
        let status = command.status().expect("run");
        assert_eq!(status.code(), Some(0), "{arguments:?}");
    };
    run(&["apply", "--wait", "-f", file]);
    for name in ["web", "two"] {
        assert_eq!(machine.pod(name)["status"]["phase"], "Running");
    }
    for arguments in [
        ["get", "pods"].as_slice(),
        &["get", "pods", "-o", "yaml"],
        &["describe", "pods"],
        &["logs", "web"],
        &["image", "ls"],
        &["version"],
        &["doctor"],
        &["exec", "web", "--", "true"],
        &["delete", "-f", file, "--force"],
    ] {
        run(arguments);
    }
    machine.assert_nothing_is_left();
}

#[test]
fn what_may_change_in_a_running_pod_is_changed_and_the_rest_refused() {
    let machine = Machine::new();
    let mut manifest: Value =
        serde_json::from_str(&pod(&json!({"containers": [idle("c")]}))).expect("JSON");
    machine.run_pod(&manifest.to_string());
    let uid = machine.uid("web");
    manifest["metadata"]["labels"] = json!({"app": "new"});
    let said = machine.orlop_with(["apply", "-f", "-"], &manifest.to_string());
    assert_eq!(said.ok(), "pod/web configured\n");
    assert_eq!(machine.pod("web")["metadata"]["labels"]["app"], "new");

    manifest["spec"]["containers"][0]["command"] = json!(["/bin/true"]);
    manifest["metadata"]["labels"] = json!({"app": "newer"});
    let refused = machine
        .orlop_with(["apply", "-f", "-"], &manifest.to_string())
        .refused();
    assert!(
        refused.contains("\"web\"") && refused.contains("spec.containers[0].command"),
        "{refused}"
    );
    let web = machine.pod("web");
    assert_eq!(
        web["metadata"]["labels"]["app"], "new",
        "nothing of it was taken"
    );
    assert_eq!(
        (&web["metadata"]["uid"], &web["status"]["phase"]),
        (&json!(uid), &json!("Running"))
    );
    assert_eq!(row(&machine)[3], "0");
}

#[test]
fn the_hosts_table_of_mounts_knows_nothing_of_many_pods() {
    let machine = Machine::new();
    let host = machine.path("host");
    let table = || fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let before = table();
    let mut c = idle("c");
    c["volumeMounts"] = json!([
        {"name": "disk", "mountPath": "/disk"},
        {"name": "memory", "mountPath": "/memory"},
        {"name": "host", "mountPath": "/host"},
    ]);
    let spec = json!({"containers": [c], "volumes": [
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "host", "hostPath": {"path": host, "type": "DirectoryOrCreate"}},
    ]});
    let manifests: Vec<String> = (0..20)
        .map(|number| pod(&spec).replace("\"web\"", &format!("\"web-{number}\"")))
        .collect();
    machine.run_pod(&manifests.join("\n---\n"));
    assert_eq!(table(), before);
    let running = machine.orlop(["get", "pods", "--no-headers"]).ok();
    assert_eq!(running.matches(" 1/1 ").count(), 20, "{running}");
    machine.orlop(["delete", "pods", "--all", "--force"]).ok();
    machine.assert_nothing_is_left();
    assert_eq!(table(), before);
    assert!(host.is_dir());
}

#[test]
fn roots_may_have_long_paths() {
    let mut machine = Machine::bare();
    let deep = machine.path(&format!("{}/{}", "a".repeat(80), "b".repeat(80)));
    let (data, run) = (deep.join("data"), deep.join("run"));
    machine.roots = Roots::new(Some(&data), Some(&run), None).expect("roots");
    let archive = machine.path("busybox.tar");
    fs::write(&archive, crate::common::busybox_archive()).expect("write");
    machine
        .orlop(["image", "import", path(&archive), "busybox"])
        .ok();
    machine.run_pod(&pod(&json!({"containers": [idle("c")]})));
    assert_eq!(machine.sh("web", "c", "echo well"), "well\n");
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}
