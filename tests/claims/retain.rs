//! Retain: nothing of a volume's data is lost, whatever becomes of its claim.

use std::collections::BTreeMap;
use std::fs;

use serde_json::json;

use crate::common::{Machine, entries};
use crate::support::{apply, cells, of_claim, phase, pod, pvc, runs};

const RETAIN: &str = include_str!("../../specs/retain.yaml");

#[test]
fn a_retained_volume_keeps_every_byte_and_is_released_by_hand() {
    let machine = Machine::new();
    let data = machine.path("notes");
    let manifest = RETAIN.replace("/srv/notes", data.to_str().expect("text"));
    let said = machine
        .orlop_with(["apply", "--wait", "-f", "-"], &manifest)
        .ok();
    assert_eq!(
        said,
        "persistentvolume/notes created\npersistentvolumeclaim/notes created\npod/notes created\n"
    );
    let script = "for i in $(seq 1000); do echo $i-$RANDOM > /notes/$i; done; mkdir /notes/.hidden; echo x > /notes/.hidden/y";
    machine.sh("notes", "writer", script);
    let read = || {
        let names = entries(&data).into_iter().filter(|name| name != ".hidden");
        let content = |name: &String| fs::read_to_string(data.join(name)).expect("a file");
        names
            .map(|name| (name.clone(), content(&name)))
            .collect::<BTreeMap<_, _>>()
    };
    let written = read();
    assert_eq!(written.len(), 1001);

    // A new pod reads what the first one wrote.
    machine.orlop(["delete", "pod", "notes", "--now"]).ok();
    assert_eq!(read(), written);
    apply(&machine, &[pod("reader", of_claim("notes"))]);
    runs(&machine, "reader");
    assert_eq!(machine.sh("reader", "c", "cat /data/77"), written["77"]);

    // The claim goes after its pod, the volume stays as it is.
    let said = machine
        .orlop(["delete", "pod/reader", "pvc/notes", "--now"])
        .ok();
    assert!(
        said.contains("persistentvolumeclaim \"notes\" deleted from default namespace\n"),
        "{said}"
    );
    let row = cells(&machine, "pv", "notes");
    assert_eq!(
        row[..6],
        ["notes", "1Gi", "RWO", "Retain", "Released", "default/notes"]
    );
    assert_eq!(read(), written);
    assert!(data.join(".hidden/y").exists());

    // An equal claim is another claim.
    let claim = pvc("notes", "1Gi", json!({}));
    apply(&machine, std::slice::from_ref(&claim));
    assert_eq!(cells(&machine, "pvc", "notes")[..2], ["notes", "Pending"]);
    let explained = machine.orlop(["explain-binding", "pvc/notes"]).ok();
    let why = "notes: it is Released, an earlier claim of this name had it (`orlop release` makes it Available)\n";
    assert!(explained.ends_with(why), "{explained}");

    // Three ways to free it: release, patch, edit.
    let said = machine.orlop(["release", "pv/notes"]).ok();
    assert_eq!(said, "persistentvolume/notes released\n");
    assert_eq!(
        cells(&machine, "pvc", "notes")[..3],
        ["notes", "Bound", "notes"]
    );
    let said = machine.orlop(["release", "pv", "notes"]).refused();
    assert_eq!(
        said,
        "error: persistentvolume \"notes\" is bound to claim default/notes: delete the claim first\n"
    );
    machine.orlop(["delete", "pvc", "notes"]).ok();
    machine
        .orlop([
            "patch",
            "pv",
            "notes",
            "--type=json",
            "-p",
            r#"[{"op": "remove", "path": "/spec/claimRef"}]"#,
        ])
        .ok();
    assert_eq!(phase(&machine, "pv", "notes"), "Available");
    apply(&machine, &[claim]);
    machine.orlop(["delete", "pvc", "notes"]).ok();
    let mut editor = machine.command(["edit", "pv", "notes"]);
    // From claimRef to the next field of the spec.
    editor.env(
        "KUBE_EDITOR",
        "sed -i '/^  claimRef:/,/^  [a-z]/{/^    /d;/claimRef/d}'",
    );
    let said = crate::common::finish(editor).ok();
    assert_eq!(said, "persistentvolume/notes edited\n");
    let row = cells(&machine, "pv", "notes");
    assert_eq!(row[4], "Available");
    assert_eq!(read(), written, "and all the while nothing has changed");
    machine.orlop(["delete", "pv", "notes"]).ok();
    assert_eq!(read(), written);
    machine.assert_nothing_is_left();
}
