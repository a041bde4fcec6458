//! The ground that the tests stand on: a tree to delete, and a canary beside it.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use orlop::volume::remove::{self, Options, RemoveError, Removed};
use rustix::fs::IFlags;

const SONG: &str = "the canary sings";
/// Set for a test that was started again inside something.
const AGAIN: &str = "ORLOP_TEST_STARTED_AGAIN";

/// A directory of its own, with `tree` to be deleted and `outside/canary`.
pub struct Ground {
    pub root: PathBuf,
    before: (u32, u32, u64),
}

impl Ground {
    pub fn new() -> Ground {
        let made = tempfile::Builder::new().prefix("deletion-").tempdir();
        Ground::at(made.expect("a directory for the test").keep())
    }

    pub fn at(root: PathBuf) -> Ground {
        fs::create_dir_all(root.join("tree")).unwrap();
        fs::create_dir_all(root.join("outside")).unwrap();
        fs::write(root.join("outside/canary"), SONG).unwrap();
        let before = features(&root.join("outside"));
        Ground { root, before }
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// Makes a file in `tree`, and the directories above it.
    pub fn file(&self, below: &str) -> PathBuf {
        let path = self.path("tree").join(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "cargo").unwrap();
        path
    }

    pub fn dir(&self, below: &str) -> PathBuf {
        let path = self.path("tree").join(below);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub fn open(&self) -> File {
        File::open(&self.root).unwrap()
    }

    pub fn remove_tree(&self) -> Result<Removed, RemoveError> {
        self.remove_with(Options::default())
    }

    pub fn remove_with(&self, options: Options<'_>) -> Result<Removed, RemoveError> {
        remove::remove_tree(self.open().as_fd(), "tree".as_ref(), options)
    }

    pub fn tree_is_gone(&self) -> bool {
        fs::symlink_metadata(self.path("tree")).is_err()
    }

    /// Content, mode, place and company of the canary are what they were.
    #[track_caller]
    pub fn assert_the_canary_sings(&self) {
        let outside = self.path("outside");
        assert_eq!(fs::read_to_string(outside.join("canary")).unwrap(), SONG);
        assert_eq!(features(&outside), self.before);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }
}

fn features(outside: &Path) -> (u32, u32, u64) {
    let canary = fs::metadata(outside.join("canary")).unwrap();
    let mode = fs::metadata(outside).unwrap().mode();
    (mode, canary.mode(), canary.ino())
}

impl Drop for Ground {
    fn drop(&mut self) {
        // What a failed test leaves may be immutable, or too deep for others.
        let undo: [&[&str]; 3] = [
            &["chattr", "-R", "-f", "-ia"],
            &["chmod", "-R", "-f", "u+rwx"],
            &["rm", "-rf"],
        ];
        for words in undo {
            // The first two complain of what they can't change, and rm shows the rest.
            let _ = Command::new(words[0])
                .args(&words[1..])
                .arg(&self.root)
                .output();
        }
    }
}

/// Sets (or clears) flags of chattr(1) on a file or directory.
pub fn set_flags(path: &Path, flags: IFlags, on: bool) -> rustix::io::Result<()> {
    let file = File::open(path).unwrap();
    let mut now = rustix::fs::ioctl_getflags(&file)?;
    now.set(flags, on);
    rustix::fs::ioctl_setflags(&file, now)
}

pub fn flags(path: &Path) -> IFlags {
    rustix::fs::ioctl_getflags(File::open(path).unwrap()).unwrap()
}

/// Whether this process has been started by [`start_again`] for the test.
pub fn started_again() -> bool {
    std::env::var_os(AGAIN).is_some()
}

/// This very test once more, in a process of its own, by way of `wrapper`.
pub fn start_again(wrapper: &[&str], test: &str) -> Command {
    let (program, arguments) = wrapper.split_first().unwrap();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(AGAIN, "1");
    command
}

/// Runs the test that `command` starts, and makes sure that it did run.
#[track_caller]
pub fn expect_one_passed(command: &mut Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && text.contains("1 passed");
    assert!(passed, "{command:?}: {}\n{text}\n{errors}", output.status);
}

/// Runs `body` in a process of its own whose mounts nobody else sees.
pub fn in_private_mounts(test: &str, body: impl FnOnce()) {
    if started_again() {
        return body();
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can mount");
        return;
    }
    let unshare = ["unshare", "--mount", "--propagation", "private"];
    expect_one_passed(&mut start_again(&unshare, test));
}

/// Runs `body` where files can be made immutable: in the directory for
/// temporary files, or else in an ext4 image.
pub fn where_flags_work(test: &str, body: impl FnOnce(&Ground)) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can make files immutable");
        return;
    }
    let ground = Ground::new();
    let probe = ground.path("probe");
    File::create(&probe).unwrap();
    if set_flags(&probe, IFlags::IMMUTABLE, true).is_ok() {
        set_flags(&probe, IFlags::IMMUTABLE, false).unwrap();
        return body(&ground);
    }
    in_private_mounts(test, || {
        let image = ground.path("image");
        File::create(&image).unwrap().set_len(32 << 20).unwrap();
        let disk = ground.path("disk");
        fs::create_dir(&disk).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        run(Command::new("mount")
            .args(["-o", "loop"])
            .args([&image, &disk]));
        body(&Ground::at(disk.join("ground")));
        run(Command::new("umount").arg(&disk));
    });
}

#[track_caller]
pub fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}
