//! Symbolic links and hard links that lead to the canary.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use orlop::volume::remove::{Cause, Options};
use rustix::fs::{CWD, IFlags, RenameFlags};

use crate::support::{Ground, flags, set_flags, where_flags_work};

#[test]
fn links_go_and_what_they_lead_to_stays() {
    let ground = Ground::new();
    ground.dir("deep/er");
    let tree = ground.path("tree");
    symlink(ground.path("outside"), tree.join("to a directory")).unwrap();
    symlink(ground.path("outside/canary"), tree.join("to a file")).unwrap();
    symlink("../../../outside", tree.join("deep/er/relative")).unwrap();
    symlink("/", tree.join("deep/to the root")).unwrap();
    symlink("nowhere", tree.join("dangling")).unwrap();
    symlink("loop", tree.join("loop")).unwrap();

    let removed = ground.remove_tree().unwrap();

    assert_eq!((removed.files, removed.directories), (6, 3));
    assert!(ground.tree_is_gone());
    ground.assert_the_canary_sings();
}

#[test]
fn a_tree_that_is_a_link_goes_as_a_link() {
    let ground = Ground::new();
    fs::remove_dir(ground.path("tree")).unwrap();
    symlink("outside", ground.path("tree")).unwrap();

    assert_eq!(ground.remove_tree().unwrap().files, 1);
    assert!(ground.tree_is_gone());
    ground.assert_the_canary_sings();
}

#[test]
fn a_directory_swapped_for_a_link_while_deletion_runs_leads_nowhere() {
    for _ in 0..150 {
        let ground = Ground::new();
        for n in 0..6 {
            ground.file(&format!("trap/canary {n}"));
            ground.file(&format!("trap/{n}/canary"));
        }
        ground.file("trap/canary");
        let trap = ground.path("tree/trap");
        let link = ground.path("tree/link");
        symlink(ground.path("outside"), &link).unwrap();

        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let swap = RenameFlags::EXCHANGE;
                    // Fails once one of the two has been deleted.
                    let _ = rustix::fs::renameat_with(CWD, &trap, CWD, &link, swap);
                }
            });
            let result = ground.remove_tree();
            over.store(true, Ordering::Relaxed);
            result.unwrap();
        });

        assert!(ground.tree_is_gone());
        ground.assert_the_canary_sings();
    }
}

#[test]
fn directories_that_change_places_while_deletion_runs_all_go() {
    for _ in 0..50 {
        let ground = Ground::new();
        ground.file("a/x/1");
        ground.file("b/y/2");
        let (a, b) = (ground.path("tree/a"), ground.path("tree/b/y"));

        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let swap = RenameFlags::EXCHANGE;
                    let _ = rustix::fs::renameat_with(CWD, &a, CWD, &b, swap);
                }
            });
            let result = ground.remove_tree();
            over.store(true, Ordering::Relaxed);
            result.unwrap();
        });
        assert!(ground.tree_is_gone());
    }
}

#[test]
fn a_hard_link_goes_and_the_file_keeps_its_mode_and_content() {
    let ground = Ground::new();
    let canary = ground.path("outside/canary");
    fs::hard_link(&canary, ground.path("tree/link")).unwrap();

    let options = Options {
        bytes: true,
        ..Options::default()
    };
    let removed = ground.remove_with(options).unwrap();

    assert_eq!((removed.files, removed.bytes), (1, 0));
    assert_eq!(fs::metadata(&canary).unwrap().nlink(), 1);
    ground.assert_the_canary_sings();
}

#[test]
fn an_immutable_file_with_a_name_outside_stays_and_is_named() {
    let test = "links::an_immutable_file_with_a_name_outside_stays_and_is_named";
    where_flags_work(test, |ground| {
        let canary = ground.path("outside/canary");
        ground.file("in/with/others");
        ground.file("more");
        for flag in [IFlags::IMMUTABLE, IFlags::APPEND] {
            let link = ground.dir("in").join("link");
            fs::hard_link(&canary, &link).unwrap();
            set_flags(&canary, flag, true).unwrap();

            let error = ground.remove_tree().unwrap_err();

            let Cause::Locked { path, links: 2 } = &error.cause else {
                panic!("{error}");
            };
            assert_eq!(path.to_str(), Some("tree/in/link"));
            assert_eq!(error.left, 3, "the link and the two directories above it");
            assert_eq!(fs::read_dir(ground.path("tree")).unwrap().count(), 1);
            assert!(flags(&canary).contains(flag));
            ground.assert_the_canary_sings();

            set_flags(&canary, flag, false).unwrap();
            ground.remove_tree().unwrap();
            assert!(ground.tree_is_gone());
            ground.assert_the_canary_sings();
        }
    });
}
