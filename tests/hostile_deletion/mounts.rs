//! Mounts inside the tree: deletion stops before them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use orlop::volume::remove::{Cause, Options, empty_tree};
use orlop::volume::trash::{Sweep, Trash, TrashError};

use crate::support::{Ground, in_private_mounts, run};

fn bind(from: &Path, to: &Path) {
    run(Command::new("mount").arg("--bind").args([from, to]));
}

fn unmount(path: &Path) {
    run(Command::new("umount").arg(path));
}

#[test]
fn a_bind_mount_inside_stops_deletion_and_keeps_what_it_shows() {
    let test = "mounts::a_bind_mount_inside_stops_deletion_and_keeps_what_it_shows";
    in_private_mounts(test, || {
        let ground = Ground::new();
        ground.file("a/file");
        let place = ground.dir("a/b/volume");
        bind(&ground.path("outside"), &place);

        let error = ground.remove_tree().unwrap_err();

        assert!(matches!(&error.cause, Cause::Mount(path) if path == Path::new("tree/a/b/volume")));
        assert!(
            error
                .to_string()
                .contains("\"tree/a/b/volume\" is a mount point")
        );
        assert!(error.to_string().contains("nothing beneath it was touched"));
        assert_eq!(error.left, 4, "tree, a, b and the mount point");
        ground.assert_the_canary_sings();

        let tree = File::open(ground.path("tree")).unwrap();
        empty_tree(tree.as_fd(), Options::default()).unwrap_err();
        ground.assert_the_canary_sings();

        unmount(&place);
        ground.remove_tree().unwrap();
        assert!(ground.tree_is_gone());
        ground.assert_the_canary_sings();
    });
}

#[test]
fn a_bind_mount_in_the_depths_is_named_by_where_it_is_now() {
    let test = "mounts::a_bind_mount_in_the_depths_is_named_by_where_it_is_now";
    in_private_mounts(test, || {
        let ground = Ground::new();
        let place = ground.dir(&vec!["d"; 100].join("/"));
        bind(&ground.path("outside"), &place);

        let error = ground.remove_tree().unwrap_err();

        let Cause::Mount(path) = &error.cause else {
            panic!("{error}");
        };
        ground.assert_the_canary_sings();
        assert!(ground.root.join(path).join("canary").exists(), "{path:?}");
        unmount(&ground.root.join(path));
        ground.remove_tree().unwrap();
        ground.assert_the_canary_sings();
    });
}

#[test]
fn a_bind_mount_on_a_file_stops_deletion() {
    in_private_mounts("mounts::a_bind_mount_on_a_file_stops_deletion", || {
        let ground = Ground::new();
        let place = ground.file("a/file");
        bind(&ground.path("outside/canary"), &place);

        let error = ground.remove_tree().unwrap_err();

        assert!(matches!(&error.cause, Cause::Mount(path) if path == Path::new("tree/a/file")));
        ground.assert_the_canary_sings();
        unmount(&place);
        ground.remove_tree().unwrap();
    });
}

#[test]
fn a_tree_that_is_a_mount_point_is_neither_deleted_nor_buried() {
    let test = "mounts::a_tree_that_is_a_mount_point_is_neither_deleted_nor_buried";
    in_private_mounts(test, || {
        let ground = Ground::new();
        bind(&ground.path("outside"), &ground.path("tree"));

        let error = ground.remove_tree().unwrap_err();
        assert!(matches!(&error.cause, Cause::Mount(path) if path == Path::new("tree")));
        let root = ground.open();
        let trash = Trash::open(root.as_fd()).unwrap();
        let error = trash
            .bury(root.as_fd(), "tree".as_ref(), "pod")
            .unwrap_err();
        assert!(matches!(error, TrashError::Mount(_)), "{error}");

        ground.assert_the_canary_sings();
        unmount(&ground.path("tree"));
    });
}

#[test]
fn a_mount_that_only_others_see_does_not_stop_deletion() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can mount");
        return;
    }
    let ground = Ground::new();
    let place = ground.dir("a/volume");
    let script = "mount --bind \"$0\" \"$1\" && echo mounted && read answer";
    let mut other = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .args([&ground.path("outside"), &place])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut answer = String::new();
    let mut output = BufReader::new(other.stdout.take().unwrap());
    output.read_line(&mut answer).unwrap();
    assert_eq!(answer, "mounted\n");

    ground.remove_tree().unwrap();

    assert!(ground.tree_is_gone());
    ground.assert_the_canary_sings();
    drop(other.stdin.take());
    other.wait().unwrap();
}

#[test]
fn a_mount_in_the_trash_stays_and_everything_else_there_goes() {
    let test = "mounts::a_mount_in_the_trash_stays_and_everything_else_there_goes";
    in_private_mounts(test, || {
        let ground = Ground::new();
        bind(&ground.path("outside"), &ground.dir("volume"));
        let root = ground.open();
        let trash = Trash::open(root.as_fd()).unwrap();
        let bury = |name: &str| {
            trash
                .bury(root.as_fd(), name.as_ref(), name)
                .unwrap()
                .unwrap()
        };
        let buried = bury("tree");
        for name in ["one", "two"] {
            fs::create_dir_all(ground.path(name).join("below")).unwrap();
            bury(name);
        }

        let Sweep::Done(swept) = trash.sweep(Options::default()).unwrap() else {
            panic!("nobody else sweeps here");
        };

        let [stuck] = &swept.stuck[..] else {
            panic!("{swept:?}");
        };
        assert_eq!(stuck.name, buried.name);
        assert!(matches!(&stuck.error.cause, Cause::Mount(path) if path.ends_with("volume")));
        assert_eq!(fs::read_dir(ground.path("trash")).unwrap().count(), 1);
        ground.assert_the_canary_sings();

        unmount(&ground.path("trash").join(&buried.name).join("volume"));
        trash.sweep(Options::default()).unwrap();
        assert!(trash.is_empty().unwrap());
        ground.assert_the_canary_sings();
    });
}

#[test]
fn what_lies_on_another_file_system_is_not_buried() {
    in_private_mounts(
        "mounts::what_lies_on_another_file_system_is_not_buried",
        || {
            let ground = Ground::new();
            let tree = ground.path("tree");
            run(Command::new("mount")
                .args(["-t", "tmpfs", "none"])
                .arg(&tree));
            ground.file("far/file");
            let trash = Trash::open(ground.open().as_fd()).unwrap();

            let parent = File::open(&tree).unwrap();
            let error = trash
                .bury(parent.as_fd(), "far".as_ref(), "pod")
                .unwrap_err();

            assert!(matches!(error, TrashError::Elsewhere(_)), "{error}");
            assert!(ground.path("tree/far/file").exists());
            drop(parent);
            unmount(&tree);
        },
    );
}

#[test]
fn a_trash_that_is_a_mount_point_is_refused() {
    in_private_mounts("mounts::a_trash_that_is_a_mount_point_is_refused", || {
        let ground = Ground::new();
        fs::create_dir(ground.path("trash")).unwrap();
        bind(&ground.path("outside"), &ground.path("trash"));

        let error = Trash::open(ground.open().as_fd()).unwrap_err();

        assert!(
            matches!(error, TrashError::NotOurs("a mount point")),
            "{error}"
        );
        ground.assert_the_canary_sings();
        unmount(&ground.path("trash"));
    });
}
