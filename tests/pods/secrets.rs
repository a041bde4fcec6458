//! Secrets: never shown, never on a disk but in the database.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::Machine;
use crate::support::{idle, pod, row, until, with};

const SPEC: &str = include_str!("../../specs/secret.yaml");
const PASSWORD: &str = "correct horse battery staple";

/// The files below a directory that contain the text, as a process outside of the
/// pod sees them.
fn containing(directory: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            found.extend(containing(&entry.path(), text));
        } else if kind.is_file() {
            let content = fs::read(entry.path()).unwrap_or_default();
            if content
                .windows(text.len())
                .any(|part| part == text.as_bytes())
            {
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    found
}

#[test]
fn the_shipped_manifest_shows_files_in_memory_and_variables() {
    let machine = Machine::new();
    let said = machine.run_pod(SPEC);
    assert_eq!(said, "secret/login created\npod/secret created\n");
    let sh = |script: &str| machine.sh("secret", "demo", script);
    let read = "cat /etc/login/password; stat -Lc ' %a %u' /etc/login/password; echo $LOGIN_username:$LOGIN_password";
    assert_eq!(sh(read), format!("{PASSWORD} 400 0\nadmin:{PASSWORD}\n"));
    let table = sh("grep ' /etc/login ' /proc/mounts");
    assert!(table.starts_with("tmpfs /etc/login tmpfs ro"), "{table}");

    // On the host: in the database, and nowhere else; no mount shows.
    let mut files = containing(machine.directory.path(), PASSWORD);
    files.retain(|name| !name.starts_with("orlop.db"));
    assert_eq!(files, [""; 0]);
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(
        !table.contains("etc/login") && !table.contains("volumes/login"),
        "{table}"
    );
    let mode = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(path).expect("metadata").permissions().mode() & 0o777
    };
    assert_eq!(mode(&machine.roots.database()), 0o600);

    let page = machine.orlop(["describe", "secret", "login"]).ok();
    assert!(
        page.contains("password:  28 bytes\nusername:  5 bytes\n"),
        "{page}"
    );
    let pods = machine.orlop(["describe", "pod", "secret"]).ok();
    assert!(
        !page.contains(PASSWORD) && !pods.contains(PASSWORD),
        "{page}{pods}"
    );

    let changed = SPEC.replace(PASSWORD, "a better one");
    machine.orlop_with(["apply", "-f", "-"], &changed).ok();
    let read = ["exec", "secret", "--", "/bin/cat", "/etc/login/password"];
    until(&machine, &read, |text| text == "a better one");
    let objects = "get secrets -A --no-headers";
    let objects = machine.orlop(objects.split(' ')).ok();
    assert_eq!(
        objects.split_whitespace().take(4).collect::<Vec<_>>(),
        ["default", "login", "Opaque", "2"]
    );
    machine
        .orlop_with(["delete", "--now", "-f", "-"], SPEC)
        .ok();
    machine.assert_nothing_is_left();
    machine.orlop(["get", "secret", "login"]).refused();
}

#[test]
fn what_a_secret_holds_is_any_bytes_and_is_not_told_when_it_is_wrong() {
    let machine = Machine::new();
    let secret = |fields: &Value| {
        let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
        for (key, value) in fields.as_object().expect("fields") {
            object[key] = value.clone();
        }
        object.to_string()
    };
    let apply = |text: &str| machine.orlop_with(["apply", "-f", "-"], text);
    let wrong = apply(&secret(&json!({"data": {"password": "hunter2!"}}))).refused();
    assert!(
        wrong.contains("data[password]") && !wrong.contains("hunter2"),
        "{wrong}"
    );
    let login = json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{\"auths\": oops"}});
    let wrong = apply(&secret(&login)).refused();
    assert!(
        wrong.contains("data[.dockerconfigjson]") && !wrong.contains("oops"),
        "{wrong}"
    );

    apply(&secret(
        &json!({"data": {"bytes": "AAH/gA==", "empty": ""}}),
    ))
    .ok();
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let spec = json!({
        "containers": [with(idle("c"), &mount)],
        "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
    });
    machine.run_pod(&pod(&spec));
    let seen = machine.sh("web", "c", "od -An -tx1 /v/bytes; stat -Lc %s /v/empty");
    assert_eq!(
        seen.split_whitespace().collect::<Vec<_>>(),
        ["00", "01", "ff", "80", "0"]
    );
    let other = apply(&secret(&json!({"type": "example.com/x"}))).refused();
    assert!(
        other.contains("The Secret \"s\" is invalid: type: Invalid value: \"example.com/x\": field is immutable"),
        "{other}"
    );
}

#[test]
fn a_pod_waits_for_its_secret_and_for_the_keys_it_names() {
    let machine = Machine::new();
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let spec = json!({
        "containers": [with(idle("c"), &mount)],
        "volumes": [{"name": "v", "secret": {"secretName": "late", "items": [{"key": "k", "path": "deep/k"}]}}],
    });
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    let waits = |reason: &str| {
        let message = format!("MountVolume.SetUp failed for volume \"v\" : {reason}");
        until(&machine, &["describe", "pod", "web"], |page| {
            page.contains(&message)
        });
    };
    waits("secret \"late\" not found");
    assert_eq!(row(&machine)[1..4], ["0/1", "ContainerCreating", "0"]);
    let late = |key: &str| {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "late"}, "stringData": {key: "v"}});
        machine
            .orlop_with(["apply", "-f", "-"], &secret.to_string())
            .ok();
    };
    late("other");
    waits("references non-existent secret key: k");
    late("k");
    machine.wait_for("web", |pod| pod["status"]["phase"] == "Running");
    assert_eq!(machine.sh("web", "c", "cat /v/deep/k"), "v");
}
