//! The trash: burying is quick, sweeping finishes, whatever happens.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::thread;
use std::time::{Duration, Instant};

use orlop::volume::remove::{Cause, Options};
use orlop::volume::trash::{Buried, Sweep, Swept, Trash, TrashError};
use rustix::fs::{FlockOperation, IFlags};

use crate::support::{Ground, set_flags, start_again, started_again, where_flags_work};

fn trash(ground: &Ground) -> Trash {
    Trash::open(ground.open().as_fd()).unwrap()
}

fn bury(ground: &Ground, trash: &Trash, name: &str) -> Option<Buried> {
    let root = ground.open();
    trash.bury(root.as_fd(), name.as_ref(), "pod-1").unwrap()
}

#[track_caller]
fn sweep(trash: &Trash) -> Swept {
    match trash.sweep(Options::default()).unwrap() {
        Sweep::Done(swept) => swept,
        Sweep::Busy => panic!("nobody else sweeps here"),
    }
}

#[test]
fn what_is_buried_is_gone_at_once_and_deleted_by_the_next_sweep() {
    let ground = Ground::new();
    ground.file("a/file");
    let trash = trash(&ground);
    assert_eq!(
        fs::metadata(ground.path("trash")).unwrap().mode() & 0o7777,
        0o700
    );
    assert!(trash.is_empty().unwrap());

    let buried = bury(&ground, &trash, "tree").unwrap();

    assert!(ground.tree_is_gone());
    assert!(!trash.is_empty().unwrap());
    assert!(buried.name.to_str().unwrap().starts_with("pod-1."));
    assert!(
        ground
            .path("trash")
            .join(&buried.name)
            .join("a/file")
            .exists()
    );
    assert_eq!(
        bury(&ground, &trash, "tree"),
        None,
        "it is not there any more"
    );

    let swept = sweep(&trash);
    assert_eq!((swept.removed.files, swept.removed.directories), (1, 2));
    assert!(trash.is_empty().unwrap());
}

#[test]
fn a_label_is_never_a_path() {
    let ground = Ground::new();
    let trash = trash(&ground);
    let root = ground.open();
    for label in ["../../outside/canary", "", "a\nb/ü\0", &"x".repeat(4000)] {
        fs::create_dir_all(ground.path("tree")).unwrap();
        let buried = trash
            .bury(root.as_fd(), "tree".as_ref(), label)
            .unwrap()
            .unwrap();
        assert!(ground.path("trash").join(buried.name).is_dir());
    }
    assert_eq!(fs::read_dir(ground.path("trash")).unwrap().count(), 4);
    for name in ["..", "outside/canary"] {
        let error = trash.bury(root.as_fd(), name.as_ref(), "pod").unwrap_err();
        assert!(matches!(error, TrashError::Name(_)), "{error}");
    }
    sweep(&trash);
    ground.assert_the_canary_sings();
}

#[test]
fn a_link_in_the_place_of_the_trash_is_refused() {
    let ground = Ground::new();
    symlink("outside", ground.path("trash")).unwrap();
    let error = Trash::open(ground.open().as_fd()).unwrap_err();
    assert!(matches!(error, TrashError::NotOurs(_)), "{error}");
    ground.assert_the_canary_sings();
}

#[test]
fn burying_two_hundred_thousand_files_takes_no_longer_than_burying_none() {
    let ground = Ground::new();
    let trash = trash(&ground);
    for directory in 0..400 {
        let directory = ground.dir(&directory.to_string());
        for file in 0..500 {
            File::create(directory.join(file.to_string())).unwrap();
        }
    }
    let time = |name| {
        let start = Instant::now();
        bury(&ground, &trash, name).unwrap();
        start.elapsed()
    };
    let full = time("tree");
    let empty = (0..5).map(|_| {
        fs::create_dir(ground.path("tree")).unwrap();
        time("tree")
    });
    let empty = empty.max().unwrap();
    // Reading so many names alone takes longer than this.
    let limit = empty.max(Duration::from_millis(20));
    assert!(
        full <= limit,
        "{full:?} with, at most {empty:?} without files"
    );

    assert_eq!(sweep(&trash).removed.files, 200_000);
}

#[test]
fn a_second_sweeper_is_told_that_one_is_at_work() {
    let ground = Ground::new();
    let trash = trash(&ground);
    bury(&ground, &trash, "tree").unwrap();
    let other = File::open(ground.path("trash")).unwrap();
    rustix::fs::flock(&other, FlockOperation::LockExclusive).unwrap();

    assert!(matches!(
        trash.sweep(Options::default()).unwrap(),
        Sweep::Busy
    ));
    assert!(!trash.is_empty().unwrap());

    drop(other);
    assert_eq!(sweep(&trash).removed.directories, 1);
}

#[test]
fn whoever_sweeps_leaves_nothing_that_others_buried_meanwhile() {
    let ground = Ground::new();
    thread::scope(|scope| {
        for n in 0..4 {
            let ground = &ground;
            scope.spawn(move || {
                let trash = trash(ground);
                for round in 0..100 {
                    let name = format!("tree {n} {round}");
                    fs::create_dir_all(ground.path(&name).join("below")).unwrap();
                    bury(ground, &trash, &name).unwrap();
                    // Busy or done: either way someone takes care of it.
                    trash.sweep(Options::default()).unwrap();
                }
            });
        }
    });
    assert!(trash(&ground).is_empty().unwrap());
}

#[test]
fn what_can_not_be_deleted_is_reported_and_stops_nothing_else() {
    let test = "trash::what_can_not_be_deleted_is_reported_and_stops_nothing_else";
    where_flags_work(test, |ground| {
        let trash = trash(ground);
        let canary = ground.path("outside/canary");
        ground.file("kept/company");
        fs::hard_link(&canary, ground.path("tree/link")).unwrap();
        set_flags(&canary, IFlags::IMMUTABLE, true).unwrap();
        let buried = bury(ground, &trash, "tree").unwrap();
        fs::create_dir(ground.path("tree")).unwrap();
        set_flags(&ground.path("tree"), IFlags::IMMUTABLE, true).unwrap();
        bury(ground, &trash, "tree").expect("an immutable directory can be buried");

        let swept = sweep(&trash);

        assert_eq!((swept.removed.files, swept.removed.directories), (1, 2));
        let [stuck] = &swept.stuck[..] else {
            panic!("{swept:?}");
        };
        assert_eq!(stuck.name, buried.name);
        assert!(
            matches!(stuck.error.cause, Cause::Locked { .. }),
            "{}",
            stuck.error
        );
        ground.assert_the_canary_sings();

        set_flags(&canary, IFlags::IMMUTABLE, false).unwrap();
        assert!(sweep(&trash).stuck.is_empty());
        assert!(trash.is_empty().unwrap());
        ground.assert_the_canary_sings();
    });
}

#[test]
fn a_deadline_leaves_the_rest_to_the_next_sweep() {
    let ground = Ground::new();
    let trash = trash(&ground);
    bury(&ground, &trash, "tree").unwrap();
    let options = Options {
        deadline: Some(Instant::now()),
        ..Options::default()
    };
    let Sweep::Done(swept) = trash.sweep(options).unwrap() else {
        panic!("nobody else sweeps here");
    };
    assert!(swept.out_of_time);
    assert!(!trash.is_empty().unwrap());
    sweep(&trash);
    assert!(trash.is_empty().unwrap());
}

#[test]
fn a_sweeper_killed_at_any_moment_leaves_what_the_next_one_finishes() {
    let test = "trash::a_sweeper_killed_at_any_moment_leaves_what_the_next_one_finishes";
    const PLACE: &str = "ORLOP_TEST_DATA_ROOT";
    if started_again() {
        let root = File::open(std::env::var_os(PLACE).unwrap()).unwrap();
        let trash = Trash::open(root.as_fd()).unwrap();
        trash.sweep(Options::default()).unwrap();
        return;
    }
    let ground = Ground::new();
    let trash = trash(&ground);
    for round in 0..12 {
        let deep = vec!["d"; 100].join("/");
        for n in 0..300 {
            ground.file(&format!("{}/{n}", n % 30));
        }
        ground.file(&format!("{deep}/file"));
        bury(&ground, &trash, "tree").unwrap();

        let mut again = start_again(&["env"], test);
        let mut sweeper = again.env(PLACE, &ground.root).spawn().unwrap();
        thread::sleep(Duration::from_millis(2 * round));
        sweeper.kill().unwrap();
        sweeper.wait().unwrap();
        if round % 2 == 0 {
            sweep(&trash);
            assert!(trash.is_empty().unwrap());
        }
    }
    sweep(&trash);
    assert!(trash.is_empty().unwrap());
    ground.assert_the_canary_sings();
}
