//! The store as its users meet it: several processes, deaths, damage.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use orlop::storage::events::{Event, EventType};
use orlop::storage::roots::Roots;
use orlop::storage::store::{Durability, Store, StoreError};
use serde_json::json;

/// Tells a copy of this test program which data root to write to.
const WRITER_ROOT: &str = "ORLOP_TEST_WRITER_ROOT";
/// ... under which name.
const WRITER_NAME: &str = "ORLOP_TEST_WRITER_NAME";
/// ... and how many pods to make.
const WRITER_PODS: &str = "ORLOP_TEST_WRITER_PODS";

fn roots(dir: &Path) -> Roots {
    Roots::new(Some(&dir.join("data")), Some(&dir.join("run")), None).unwrap()
}

fn pod(namespace: &str, name: &str) -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": "test"}},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]},
    }))
    .unwrap()
}

fn event(uid: &str, message: &str) -> Event {
    Event {
        namespace: "default".into(),
        kind: "Pod".into(),
        name: "p".into(),
        uid: uid.into(),
        field_path: String::new(),
        type_: EventType::Normal,
        reason: "Testing".into(),
        message: message.into(),
        source: "test".into(),
    }
}

fn running() -> PodStatus {
    PodStatus {
        phase: Some("Running".into()),
        ..PodStatus::default()
    }
}

/// Not a test by itself: what the other processes of these tests do. Prints the
/// UID of each pod once the store has it.
#[test]
fn writer_process() {
    let Ok(root) = std::env::var(WRITER_ROOT) else {
        return;
    };
    let name = std::env::var(WRITER_NAME).unwrap();
    let pods: usize = std::env::var(WRITER_PODS).unwrap().parse().unwrap();
    let store = Store::open(&roots(Path::new(&root)), Durability::Normal).unwrap();
    for number in 0..pods {
        let made = store
            .create_pod(pod("default", &format!("{name}-{number}")))
            .unwrap();
        let uid = made.metadata.uid.unwrap();
        println!("made {uid}");
        assert!(store.set_pod_status(&uid, &running(), "boot").unwrap());
        store.record(&event(&uid, "made")).unwrap();
        store.record(&event("shared", "counted")).unwrap();
        if number % 3 == 2 {
            store.mark_pod_deleted(&uid, 30).unwrap();
        }
    }
}

struct Writer(Child);

impl Writer {
    fn start(root: &Path, name: &str, pods: usize) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer_process", "--nocapture"])
            .env(WRITER_ROOT, root)
            .env(WRITER_NAME, name)
            .env(WRITER_PODS, pods.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// The UIDs it printed, when it has ended.
    fn made(&mut self) -> Vec<String> {
        let mut text = String::new();
        self.0
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        let whole_lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        whole_lines
            .filter_map(|line| Some(line.split_once("made ")?.1.trim().to_owned()))
            .collect()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn integrity(roots: &Roots) -> String {
    let db = rusqlite::Connection::open(roots.database()).unwrap();
    db.query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap()
}

#[test]
fn eight_processes_make_a_store_together_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writers: Vec<Writer> = (0..8)
        .map(|number| Writer::start(dir.path(), &format!("w{number}"), 25))
        .collect();
    let made: BTreeSet<String> = writers.iter_mut().flat_map(Writer::made).collect();
    for writer in &mut writers {
        assert!(writer.0.wait().unwrap().success());
    }

    let store = Store::open(&roots(dir.path()), Durability::Full).unwrap();
    let pods = store.pods(None).unwrap();
    let stored: BTreeSet<String> = pods
        .iter()
        .filter_map(|pod| pod.metadata.uid.clone())
        .collect();
    assert_eq!(stored.len(), 200);
    assert_eq!(stored, made);
    let versions: BTreeSet<_> = pods
        .iter()
        .map(|pod| &pod.metadata.resource_version)
        .collect();
    assert_eq!(versions.len(), 200, "every change has its own version");
    assert!(pods.iter().all(|pod| pod.status.is_some()));
    assert_eq!(store.events_for("shared").unwrap()[0].count, 200);
    // 200 creations, 200 statuses, and of every writer's 25 pods 8 deletions.
    assert_eq!(store.latest_version().unwrap(), 200 + 200 + 64);
}

#[test]
fn eight_threads_with_a_store_each_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let roots = roots(dir.path());
    std::thread::scope(|scope| {
        for number in 0..8 {
            let roots = &roots;
            scope.spawn(move || {
                let store = Store::open(roots, Durability::Full).unwrap();
                for pod_number in 0..10 {
                    store
                        .create_pod(pod(&format!("ns{number}"), &format!("p{pod_number}")))
                        .unwrap();
                }
            });
        }
    });
    let store = Store::open(&roots, Durability::Normal).unwrap();
    assert_eq!(store.pods(None).unwrap().len(), 80);
    assert_eq!(store.pods(Some("ns3")).unwrap().len(), 10);
}

/// Waits until the first writer has made its first pod, however slow the kernel.
fn wait_for_a_pod(roots: &Roots) {
    let start = std::time::Instant::now();
    let none = || {
        !roots.database().exists() || {
            let store = Store::open(roots, Durability::Normal).unwrap();
            store.pods(None).unwrap().is_empty()
        }
    };
    while none() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "the writer makes no pod"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_writer_killed_at_any_moment_leaves_a_whole_store_with_all_it_had_made() {
    let mut killed_while_writing = 0;
    for round in 0..30_u64 {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::start(dir.path(), "w", 100_000);
        // Some rounds kill while the database is being made, some in mid-writing.
        if round >= 15 {
            wait_for_a_pod(&roots(dir.path()));
        }
        std::thread::sleep(Duration::from_micros(1_500 + (round % 15) * 1_500));
        writer.0.kill().unwrap();
        let made = writer.made();

        let roots = roots(dir.path());
        let store = Store::open(&roots, Durability::Full).unwrap();
        let stored: BTreeSet<String> = store
            .pods(None)
            .unwrap()
            .into_iter()
            .filter_map(|pod| pod.metadata.uid)
            .collect();
        assert!(made.iter().all(|uid| stored.contains(uid)), "round {round}");
        assert!(stored.len() <= made.len() + 1, "round {round}");
        store.create_pod(pod("default", "afterwards")).unwrap();
        drop(store);
        assert_eq!(integrity(&roots), "ok", "round {round}");
        killed_while_writing += usize::from(!made.is_empty());
    }
    assert!(killed_while_writing >= 10);
}

#[test]
fn a_reader_waits_for_no_writer() {
    let dir = tempfile::tempdir().unwrap();
    let roots = roots(dir.path());
    let store = Store::open(&roots, Durability::Full).unwrap();
    store.create_pod(pod("default", "p")).unwrap();
    let writer = rusqlite::Connection::open(roots.database()).unwrap();
    writer
        .execute_batch("BEGIN IMMEDIATE; DELETE FROM objects;")
        .unwrap();

    let begun = Instant::now();
    let reader = Store::open(&roots, Durability::Normal).unwrap();
    assert_eq!(reader.pods(None).unwrap().len(), 1);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn the_log_shrinks_again_after_a_long_reader_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    let roots = roots(dir.path());
    let store = Store::open(&roots, Durability::Normal).unwrap();
    let reader = rusqlite::Connection::open(roots.database()).unwrap();
    reader
        .execute_batch("BEGIN; SELECT * FROM versions;")
        .unwrap();
    let log = || roots.data.join("orlop.db-wal").metadata().unwrap().len();
    for number in 0..1000 {
        let name = format!("p{number}");
        store.create_pod(pod("default", &name)).unwrap();
    }
    assert!(log() > 8 << 20, "{}", log());

    reader.execute_batch("ROLLBACK").unwrap();
    for name in ["a", "b", "c"] {
        store.create_pod(pod("default", name)).unwrap();
    }
    assert!(log() <= 4 << 20, "{}", log());
}

#[test]
fn a_store_that_is_only_read_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let roots = roots(dir.path());
    drop(Store::open(&roots, Durability::Full).unwrap());
    let files = || -> Vec<(std::path::PathBuf, u64)> {
        let mut files: Vec<_> = std::fs::read_dir(&roots.data)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| !entry.file_name().to_string_lossy().ends_with("-shm"))
            .map(|entry| (entry.path(), entry.metadata().unwrap().len()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    let store = Store::open(&roots, Durability::Full).unwrap();
    assert_eq!(store.pods(None).unwrap(), []);
    drop(store);
    assert_eq!(files(), before);
}

#[test]
fn a_closed_store_holds_no_file_and_goes_on_when_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let roots = roots(dir.path());
    let held = || {
        let files = std::fs::read_dir("/proc/self/fd").unwrap();
        let targets = files.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        targets
            .filter(|target| target.starts_with(&roots.data))
            .count()
    };
    let store = Store::open(&roots, Durability::Normal).unwrap();
    let uid = store.create_pod(pod("default", "p")).unwrap();
    let uid = uid.metadata.uid.unwrap();
    assert!(held() > 0);
    store.close();
    assert_eq!(held(), 0);
    store.set_pod_status(&uid, &running(), "boot").unwrap();
    store.close();
    assert!(store.pod_by_uid(&uid).unwrap().is_some());
    store.close();
    // What is wrong with the file by then is said as at the first opening.
    std::fs::write(roots.database(), "something else").unwrap();
    let error = store.pods(None).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn the_database_is_readable_by_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let roots = roots(dir.path());
    let store = Store::open(&roots, Durability::Full).unwrap();
    store.create_pod(pod("default", "p")).unwrap();
    for file in ["orlop.db", "orlop.db-wal", "orlop.db-shm"] {
        let mode = roots
            .data
            .join(file)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_database_of_a_newer_orlop_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let roots = roots(dir.path());
    drop(Store::open(&roots, Durability::Full).unwrap());
    let db = rusqlite::Connection::open(roots.database()).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let refused = Store::open(&roots, Durability::Full).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "the database {:?} has version 99, and this orlop knows versions up to 3: use the newer orlop that wrote it",
            roots.database()
        )
    );
}

#[test]
fn what_is_no_database_of_orlops_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let roots = roots(dir.path());
    std::fs::create_dir_all(&roots.data).unwrap();
    let file = roots.database();

    std::fs::write(&file, "not a database, but long enough to have a header of one hundred bytes, or so one would think; and more").unwrap();
    let refused = Store::open(&roots, Durability::Full).unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    assert!(refused.to_string().contains(file.to_str().unwrap()));

    std::fs::write(&file, "").unwrap();
    let refused = Store::open(&roots, Durability::Full).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("{file:?} is not a database that orlop made: move it away")
    );

    std::fs::remove_file(&file).unwrap();
    let other = rusqlite::Connection::open(&file).unwrap();
    other
        .execute_batch("CREATE TABLE t (x); PRAGMA user_version = 1;")
        .unwrap();
    drop(other);
    let refused = Store::open(&roots, Durability::Full).unwrap_err();
    assert!(matches!(refused, StoreError::Foreign { .. }), "{refused}");

    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let refused = Store::open(&roots, Durability::Full).unwrap_err();
    assert!(matches!(refused, StoreError::Open { .. }), "{refused}");
}

#[test]
fn a_torn_database_is_one_sentence_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let roots = roots(dir.path());
    let store = Store::open(&roots, Durability::Full).unwrap();
    for number in 0..200 {
        store
            .create_pod(pod("default", &format!("p{number}")))
            .unwrap();
    }
    drop(store);
    let db = rusqlite::Connection::open(roots.database()).unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    drop(db);
    let mut bytes = std::fs::read(roots.database()).unwrap();
    let length = bytes.len();
    bytes[4096..length / 2].fill(0xa5);
    std::fs::write(roots.database(), bytes).unwrap();

    let refused = Store::open(&roots, Durability::Full)
        .and_then(|store| store.pods(None))
        .unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
}
