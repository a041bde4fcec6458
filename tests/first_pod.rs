//! The producer/consumer pod of the Kubernetes documentation, from its manifest
//! to its clean-up.

mod common;

use common::Machine;

const MANIFEST: &str = include_str!("../specs/producer-consumer.yaml");

#[test]
fn two_containers_share_an_emptydir_from_apply_to_delete() {
    let machine = Machine::new();
    let file = machine.path("producer-consumer.yaml");
    std::fs::write(&file, MANIFEST).expect("write");
    let file = common::path(&file);
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");

    let applied = machine.orlop(["apply", "--wait", "-f", file]).ok();
    assert_eq!(applied, "pod/producer-consumer created\n");
    assert_eq!(
        machine.orlop(["apply", "-f", file]).ok(),
        "pod/producer-consumer unchanged\n"
    );

    let row = machine
        .orlop(["get", "pod", "producer-consumer", "--no-headers"])
        .ok();
    let columns: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(columns[..4], ["producer-consumer", "2/2", "Running", "0"]);
    let wide = machine.orlop(["get", "pods", "-o", "wide"]).ok();
    assert!(
        wide.starts_with("NAME                READY   STATUS    RESTARTS   AGE"),
        "{wide}"
    );

    let by_producer = machine.orlop([
        "exec",
        "producer-consumer",
        "-c",
        "producer",
        "--",
        "cat",
        "/producer_dir/hello",
    ]);
    let by_consumer = machine.orlop([
        "exec",
        "producer-consumer",
        "-c",
        "consumer",
        "cat",
        "/consumer_dir/hello",
    ]);
    assert_eq!(
        (by_producer.ok(), by_consumer.ok()),
        ("hello world\n".into(), "hello world\n".into())
    );
    assert_eq!(
        machine
            .orlop(["logs", "producer-consumer", "consumer"])
            .ok(),
        "hello world\n"
    );

    let pod = machine.roots.pod_data(&machine.uid("producer-consumer"));
    let volume = pod.join("volumes/kubernetes.io~empty-dir/shared-volume");
    let on_host = std::fs::read_to_string(volume.join("hello")).expect("read on the host");
    assert_eq!(on_host, "hello world\n");
    let now = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert_eq!(now, table, "the host's mount table has changed");

    let deleted = machine
        .orlop(["delete", "-f", file, "--grace-period=1"])
        .ok();
    assert_eq!(
        deleted,
        "pod \"producer-consumer\" deleted from default namespace\n"
    );
    assert!(!volume.exists() && !pod.exists());
    machine.assert_nothing_is_left();
    let error = machine.orlop(["get", "pod", "producer-consumer"]).refused();
    assert_eq!(
        error,
        "Error from server (NotFound): pods \"producer-consumer\" not found\n"
    );
}
