//! Trees of awkward shapes: deep, wide, locked, strangely named, alive.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use orlop::volume::remove::{
    Cause, Options, Progress, RemoveError, Removed, empty_tree, remove_tree,
};
use rustix::fs::{CWD, FileType, IFlags, Mode, OFlags};

use crate::support::{
    Ground, expect_one_passed, set_flags, start_again, started_again, where_flags_work,
};

/// Makes `depth` directories one in the other, each with a file and a neighbour.
fn dig(top: &Path, depth: usize) {
    let mut here: OwnedFd = File::open(top).unwrap().into();
    for _ in 0..depth {
        rustix::fs::mkdirat(&here, "down", Mode::RWXU).unwrap();
        rustix::fs::mkdirat(&here, "beside", Mode::RWXU).unwrap();
        rustix::fs::mknodat(&here, "file", FileType::RegularFile, Mode::RWXU, 0).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        here = rustix::fs::openat(&here, "down", flags, Mode::empty()).unwrap();
    }
}

#[test]
fn ten_thousand_directories_deep_goes_with_two_hundred_descriptors() {
    let test = "shapes::ten_thousand_directories_deep_goes_with_two_hundred_descriptors";
    if !started_again() {
        let few = ["prlimit", "--nofile=200:200"];
        expect_one_passed(&mut start_again(&few, test));
        return;
    }
    let ground = Ground::new();
    dig(&ground.path("tree"), 10_000);
    let options = Options {
        threads: NonZeroUsize::new(4),
        ..Options::default()
    };

    let removed = ground.remove_with(options).unwrap();

    assert!(ground.tree_is_gone());
    assert_eq!(removed.files, 10_000);
    assert!(removed.directories > 20_000);
}

#[test]
fn every_kind_of_name_goes() {
    let ground = Ground::new();
    let long = [b'n'; 255];
    let names: [&[u8]; 8] = [
        b"two\nlines",
        b"\xff\xfe not UTF-8",
        b" ",
        b"-rf",
        b"*",
        b"...",
        b"\\\"'$(reboot)",
        &long,
    ];
    for name in names {
        let directory = ground.dir("d").join(OsStr::from_bytes(name));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(OsStr::from_bytes(name)), "").unwrap();
    }

    ground.remove_tree().unwrap();
    assert!(ground.tree_is_gone());
}

#[test]
fn sockets_fifos_and_devices_go_without_being_opened() {
    let ground = Ground::new();
    let _listener = UnixListener::bind(ground.path("tree/socket")).unwrap();
    let fifo = ground.path("tree/fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let null = rustix::fs::makedev(1, 3);
    let device = ground.path("tree/null");
    let kind = FileType::CharacterDevice;
    if let Err(errno) = rustix::fs::mknodat(CWD, &device, kind, Mode::RWXU, null) {
        eprintln!("without a device: {errno}");
    }

    ground.remove_tree().unwrap();
    assert!(ground.tree_is_gone());
}

#[test]
fn closed_directories_open_up_to_their_owner_though_not_root() {
    let test = "shapes::closed_directories_open_up_to_their_owner_though_not_root";
    if !started_again() && rustix::process::geteuid().is_root() {
        // A copy, because nobody may be kept from the directory of the original.
        let home = Ground::new();
        fs::set_permissions(&home.root, fs::Permissions::from_mode(0o777)).unwrap();
        let copy = home.path("test");
        fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        let mut again = start_again(&[copy.to_str().unwrap()], test);
        // The path of the original is its first argument, and selects no test.
        again.uid(65534).gid(65534).env("TMPDIR", &home.root);
        expect_one_passed(&mut again);
        return;
    }
    let ground = Ground::new();
    for (n, mode) in [0o000, 0o100, 0o400, 0o500, 0o300].into_iter().enumerate() {
        ground.file(&format!("{n}/inner/file"));
        for closed in [format!("{n}/inner"), n.to_string()] {
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(ground.path("tree").join(closed), permissions).unwrap();
        }
    }

    ground.remove_tree().unwrap();
    assert!(ground.tree_is_gone());
}

#[test]
fn immutable_and_append_only_files_and_directories_go() {
    let test = "shapes::immutable_and_append_only_files_and_directories_go";
    where_flags_work(test, |ground| {
        for flag in [IFlags::IMMUTABLE, IFlags::APPEND] {
            let file = ground.file("closed/inner/file");
            for path in [&*file, file.parent().unwrap(), &ground.path("tree/closed")] {
                set_flags(path, flag, true).unwrap();
            }
            set_flags(&ground.path("tree"), flag, true).unwrap();

            ground.remove_tree().unwrap();
            assert!(ground.tree_is_gone());
        }
    });
}

#[test]
fn deep_immutable_directories_go() {
    where_flags_work("shapes::deep_immutable_directories_go", |ground| {
        let path = vec!["d"; 100].join("/");
        let mut path = ground.dir(&path);
        while path != ground.root {
            set_flags(&path, IFlags::IMMUTABLE, true).unwrap();
            path.pop();
        }
        ground.remove_tree().unwrap();
        assert!(ground.tree_is_gone());
    });
}

/// Deletes the tree while a thread makes files and directories in `a/busy`, with
/// `pause` after each.
fn remove_while_it_fills(
    ground: &Ground,
    pause: Option<Duration>,
    options: Options<'_>,
) -> Result<Removed, RemoveError> {
    let inside = File::open(ground.dir("a/busy")).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                let made = match n % 2 {
                    0 => rustix::fs::mkdirat(&inside, n.to_string(), Mode::RWXU),
                    _ => rustix::fs::symlinkat("nowhere", &inside, n.to_string()),
                };
                if over.load(Ordering::Relaxed) || made.is_err() {
                    break;
                }
                if let Some(pause) = pause {
                    thread::sleep(pause);
                }
            }
        });
        thread::sleep(Duration::from_millis(50));
        let result = ground.remove_with(options);
        over.store(true, Ordering::Relaxed);
        result
    })
}

#[test]
fn a_directory_that_is_written_to_while_deletion_runs_goes() {
    let ground = Ground::new();
    let pause = Some(Duration::from_micros(500));
    remove_while_it_fills(&ground, pause, Options::default()).unwrap();
    assert!(ground.tree_is_gone());
}

#[test]
fn a_directory_that_fills_as_fast_as_it_empties_holds_nobody_past_the_deadline() {
    let ground = Ground::new();
    let options = Options {
        deadline: Some(Instant::now() + Duration::from_secs(1)),
        ..Options::default()
    };
    let start = Instant::now();
    match remove_while_it_fills(&ground, None, options) {
        Ok(_) => assert!(ground.tree_is_gone()),
        Err(error) => match &error.cause {
            Cause::Deadline => {}
            Cause::KeepsFilling(path) => assert_eq!(path.to_str(), Some("tree/a/busy")),
            _ => panic!("{error}"),
        },
    }
    assert!(start.elapsed() < Duration::from_secs(20));

    ground.remove_tree().unwrap();
    assert!(ground.tree_is_gone());
}

#[test]
fn emptying_leaves_the_directory_itself_as_it_is() {
    let ground = Ground::new();
    for n in 0..50 {
        ground.file(&format!("{n}/file"));
        ground.file(&format!(".hidden {n}"));
    }
    dig(&ground.dir("deep"), 100);
    let tree = ground.path("tree");
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o1755)).unwrap();
    let inode = fs::metadata(&tree).unwrap().ino();

    empty_tree(File::open(&tree).unwrap().as_fd(), Options::default()).unwrap();

    assert_eq!(fs::read_dir(&tree).unwrap().count(), 0);
    let after = fs::metadata(&tree).unwrap();
    assert_eq!((after.mode() & 0o7777, after.ino()), (0o1755, inode));
}

#[test]
fn large_trees_go_whole_and_are_counted() {
    let ground = Ground::new();
    for n in 0..3000 {
        ground.file(&format!("{}/{n}", n % 100));
        ground.file(&format!("flat/{n}"));
    }
    let block = fs::metadata(ground.path("tree/flat/0")).unwrap().blocks() * 512;
    let progress = Progress::default();
    let options = Options {
        bytes: true,
        progress: Some(&progress),
        ..Options::default()
    };

    let removed = ground.remove_with(options).unwrap();

    assert_eq!((removed.files, removed.directories), (6000, 102));
    assert_eq!(removed.bytes, 6000 * block);
    assert_eq!(progress.now(), removed);
}

#[test]
fn a_deadline_leaves_what_a_second_deletion_finishes() {
    let ground = Ground::new();
    for n in 0..20_000 {
        File::create(ground.path("tree").join(n.to_string())).unwrap();
    }
    let within = |time| Options {
        deadline: Some(Instant::now() + time),
        ..Options::default()
    };
    let error = ground.remove_with(within(Duration::ZERO)).unwrap_err();
    assert!(matches!(error.cause, Cause::Deadline), "{error}");
    assert_eq!((error.removed.files, error.left), (0, 1));

    let error = ground
        .remove_with(within(Duration::from_millis(5)))
        .unwrap_err();
    assert!(matches!(error.cause, Cause::Deadline), "{error}");
    let left = fs::read_dir(ground.path("tree")).unwrap().count() as u64;
    assert_eq!(left, 20_000 - error.removed.files);

    assert_eq!(ground.remove_tree().unwrap().files, left);
}

#[test]
fn a_single_file_and_nothing_at_all_can_be_deleted() {
    let ground = Ground::new();
    ground.file("file");
    let tree = File::open(ground.path("tree")).unwrap();
    let remove = |name: &str| remove_tree(tree.as_fd(), name.as_ref(), Options::default());

    assert_eq!(remove("file").unwrap().files, 1);
    assert_eq!(remove("file").unwrap(), Default::default());
}

#[test]
fn only_names_are_taken_never_paths() {
    let ground = Ground::new();
    ground.file("file");
    let tree = File::open(ground.path("tree")).unwrap();
    for name in ["", ".", "..", "/", "../outside", "file/", "a\0b"] {
        let error = remove_tree(tree.as_fd(), name.as_ref(), Options::default()).unwrap_err();
        assert!(matches!(error.cause, Cause::Name(_)), "{name:?}: {error}");
    }
    assert!(ground.path("tree/file").exists());
    ground.assert_the_canary_sings();
}

#[test]
fn what_may_not_be_changed_is_named_with_the_kernels_answer() {
    let test = "shapes::what_may_not_be_changed_is_named_with_the_kernels_answer";
    where_flags_work(test, |ground| {
        // The directory that holds the tree is not ours to change.
        set_flags(&ground.root, IFlags::IMMUTABLE, true).unwrap();
        let result = ground.remove_tree();
        set_flags(&ground.root, IFlags::IMMUTABLE, false).unwrap();

        let Cause::Kernel { path, source, .. } = result.unwrap_err().cause else {
            panic!("another cause");
        };
        assert_eq!(path.to_str(), Some("tree"));
        assert_eq!(source.kind(), ErrorKind::PermissionDenied);
    });
}
