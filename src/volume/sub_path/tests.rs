use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;

/// A volume with a neighbour that nothing may ever reach.
struct Ground {
    directory: tempfile::TempDir,
    volume: File,
}

impl Ground {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["volume", "host"] {
            fs::create_dir(directory.path().join(name)).expect("mkdir");
        }
        fs::write(directory.path().join("host/canary"), "canary").expect("write");
        let volume = File::open(directory.path().join("volume")).expect("open");
        Self { directory, volume }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn open(&self, path: &str) -> Result<OwnedFd, String> {
        open(self.volume.as_fd(), path).map_err(|error| error.to_string())
    }

    /// The path of what was opened, relative to the ground.
    #[track_caller]
    fn opened(&self, path: &str) -> String {
        let fd = self.open(path).expect(path);
        let path = fs::read_link(crate::sys::dir::by_number(&fd)).expect("a path");
        let ground = self.directory.path().canonicalize().expect("a path");
        let below = path.strip_prefix(ground).expect("below the ground");
        below.to_str().expect("text").to_owned()
    }
}

#[test]
fn what_is_there_is_found_whatever_it_is() {
    let ground = Ground::new();
    fs::create_dir_all(ground.path("volume/a/b")).expect("mkdir");
    fs::write(ground.path("volume/a/file"), "text").expect("write");
    assert_eq!(ground.opened("a/b"), "volume/a/b");
    assert_eq!(ground.opened("./a//file"), "volume/a/file");
    assert_eq!(ground.opened("."), "volume");
}

#[test]
fn links_that_stay_inside_are_followed_and_no_others() {
    let ground = Ground::new();
    fs::create_dir_all(ground.path("volume/a/b")).expect("mkdir");
    let link = |target: &str, name: &str| symlink(target, ground.path(name)).expect("symlink");
    link("a/b", "volume/inside");
    link("../b", "volume/a/up");
    link("../host", "volume/out");
    link("a/../../host", "volume/a_way_out");
    link("/", "volume/absolute");
    link("nothing", "volume/dangling");
    link("round", "volume/round");
    assert_eq!(ground.opened("inside"), "volume/a/b");
    assert_eq!(ground.opened("inside/new"), "volume/a/b/new");
    fs::create_dir(ground.path("volume/b")).expect("mkdir");
    assert_eq!(ground.opened("a/up"), "volume/b");
    for path in ["out", "out/new", "a_way_out/new", "absolute/etc", "round"] {
        let wanted = format!("{path:?} leads out of the volume through a symbolic link");
        assert_eq!(ground.open(path).expect_err(path), wanted);
    }
    let error = ground.open("dangling/new").expect_err("a link to nothing");
    assert_eq!(
        error,
        "\"dangling/new\" goes through a symbolic link to what is not there"
    );
    assert_eq!(fs::read_dir(ground.path("host")).expect("host").count(), 1);
    assert!(!ground.path("volume/nothing").exists());
}

#[test]
fn a_path_that_does_not_descend_is_refused() {
    let ground = Ground::new();
    for path in ["", "/etc", "..", "a/../../host"] {
        let wanted = format!("{path:?} is no path below the volume's root");
        assert_eq!(ground.open(path).expect_err(path), wanted);
    }
    fs::write(ground.path("volume/file"), "text").expect("write");
    assert_eq!(
        ground.open("file/below").expect_err("below a file"),
        "\"file/below\" goes through a file as if it were a directory"
    );
}

#[test]
fn directories_that_are_missing_get_the_mode_of_the_volumes_root() {
    let ground = Ground::new();
    for mode in [0o777, 0o2775, 0o750] {
        let mode = fs::Permissions::from_mode(mode);
        ground.volume.set_permissions(mode.clone()).expect("chmod");
        let path = format!("{:o}/below", mode.mode());
        assert_eq!(ground.opened(&path), format!("volume/{path}"));
        for made in [path.as_str(), path.split('/').next().expect("a name")] {
            let found = fs::metadata(ground.path("volume").join(made)).expect("made");
            assert_eq!(found.mode() & 0o7777, mode.mode(), "{made}");
        }
    }
}

/// Ends the racers, also when the test fails.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Ten thousand resolutions while others swap a directory on the way with a
/// link to the host as fast as they can: each ends inside or with an error.
#[test]
fn a_racer_never_gets_a_part_of_the_host() {
    const ROUNDS: u64 = 10_000;
    let ground = Ground::new();
    fs::create_dir_all(ground.path("volume/swap/deep")).expect("mkdir");
    fs::write(ground.path("volume/swap/canary"), "mine").expect("write");
    for link in ["volume/link", "volume/swap/link"] {
        symlink(ground.path("host"), ground.path(link)).expect("symlink");
    }
    let canary = fs::metadata(ground.path("host/canary")).expect("canary");
    let host = fs::metadata(ground.path("host")).expect("host");
    let forbidden = [(host.dev(), host.ino()), (canary.dev(), canary.ino())];

    let over = AtomicBool::new(false);
    let swaps = AtomicU64::new(0);
    let swap = |one: PathBuf, other: PathBuf| {
        while !over.load(Ordering::Relaxed) {
            // Not at every moment are both there: the racers race each other, too.
            if renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).is_ok() {
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let (mut inside, mut refused, mut rounds) = (0_u64, 0_u64, 0_u64);
    std::thread::scope(|scope| {
        let _end = AtEnd(&over);
        scope.spawn(|| swap(ground.path("volume/swap"), ground.path("volume/link")));
        scope.spawn(|| {
            let deep = ground.path("volume/swap/deep");
            swap(deep, ground.path("volume/swap/link"));
        });
        while rounds < ROUNDS || inside == 0 || refused == 0 {
            let path = ["swap", "swap/canary", "swap/deep", "swap/new/deep"][rounds as usize % 4];
            match open(ground.volume.as_fd(), path) {
                Ok(found) => {
                    let found = fstat(&found).expect("fstat");
                    assert!(!forbidden.contains(&(found.st_dev, found.st_ino)), "{path}");
                    inside += 1;
                }
                Err(_) => refused += 1,
            }
            rounds += 1;
        }
    });
    assert!(swaps.load(Ordering::Relaxed) > 0 && inside > 0 && refused > 0);
    let names: Vec<_> = fs::read_dir(ground.path("host"))
        .expect("host")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["canary"], "nothing was made on the host");
}
