use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

struct Volume(tempfile::TempDir);

impl Volume {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn root(&self) -> fs::File {
        fs::File::open(self.path()).unwrap()
    }

    fn write(&self, files: &Files) -> Result<bool, WriteError> {
        write(self.root().as_fd(), files)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path().join(path)).unwrap()
    }

    /// All names in the root, those of versions as `..version`.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .map(|name| match is_version(&name) {
                true => "..version".to_owned(),
                false => name,
            })
            .collect();
        names.sort();
        names
    }
}

fn files(pairs: &[(&str, &str)]) -> Files {
    let file = |(path, text): &(&str, &str)| {
        let bytes = text.as_bytes().to_vec();
        ((*path).to_owned(), File { mode: 0o644, bytes })
    };
    pairs.iter().map(file).collect()
}

#[test]
fn the_layout_is_that_of_a_kubernetes_node() {
    let volume = Volume::new();
    let all = files(&[("colour", "blue"), ("deep/er/file", "x"), ("deep/two", "y")]);
    assert!(volume.write(&all).unwrap());
    assert_eq!(volume.names(), ["..data", "..version", "colour", "deep"]);
    assert_eq!(volume.read("colour"), "blue");
    assert_eq!(volume.read("deep/er/file"), "x");
    let link = |name: &str| fs::read_link(volume.path().join(name)).unwrap();
    assert_eq!(link("colour"), Path::new("..data/colour"));
    assert_eq!(link("deep"), Path::new("..data/deep"));
    let version = link("..data").into_os_string().into_string().unwrap();
    assert_eq!(version.len(), "..2026_11_21_05_39_13.123456789".len());
    assert!(version.starts_with("..2"), "{version}");
    let mode = |path: &str| {
        let metadata = fs::metadata(volume.path().join(path)).unwrap();
        metadata.permissions().mode() & 0o7777
    };
    assert_eq!(mode(&version), 0o755);
    assert_eq!(mode("deep/er"), 0o755);
    assert_eq!(mode("colour"), 0o644);
}

#[test]
fn nothing_is_written_when_nothing_has_changed() {
    let volume = Volume::new();
    let mut all = files(&[("a", "1"), ("d/b", "2")]);
    assert!(volume.write(&all).unwrap());
    let version = fs::read_link(volume.path().join("..data")).unwrap();
    assert!(!volume.write(&all).unwrap());
    assert_eq!(
        fs::read_link(volume.path().join("..data")).unwrap(),
        version
    );
    for change in [
        files(&[("a", "1"), ("d/b", "3")]),
        files(&[("a", "1"), ("d/c", "2")]),
        files(&[("a", "1")]),
        files(&[]),
    ] {
        assert!(volume.write(&change).unwrap(), "{change:?}");
        assert!(!volume.write(&change).unwrap(), "{change:?}");
    }
    volume.write(&all).unwrap();
    all.get_mut("a").unwrap().mode = 0o400;
    assert!(volume.write(&all).unwrap());
    let mode = fs::metadata(volume.path().join("a")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o7777, 0o400);
}

#[test]
fn keys_that_are_gone_leave_no_link_and_places_of_mounts_stay() {
    let volume = Volume::new();
    volume.write(&files(&[("a", "1"), ("b", "2")])).unwrap();
    make_place(volume.root().as_fd(), "sub/mount").unwrap();
    make_place(volume.root().as_fd(), "a/below/a/file").unwrap();
    volume.write(&files(&[("b", "3"), ("c", "4")])).unwrap();
    assert_eq!(volume.names(), ["..data", "..version", "b", "c", "sub"]);
    assert!(volume.path().join("sub/mount").is_dir());
    volume.write(&Files::new()).unwrap();
    assert_eq!(volume.names(), ["..data", "..version", "sub"]);
}

#[test]
fn a_path_that_leads_elsewhere_changes_nothing() {
    let volume = Volume::new();
    let long = "x".repeat(300);
    let deep = "x/".repeat(2048) + "x";
    for path in [
        "..",
        "../x",
        "a/../b",
        "/etc/passwd",
        "",
        "a//b",
        "a/",
        "./a",
        "a/./b",
        "..data",
        "..x",
        "a\0b",
        &long,
        &deep,
    ] {
        let refused = volume
            .write(&files(&[("good", "1"), (path, "2")]))
            .unwrap_err();
        assert!(
            matches!(refused, WriteError::Path { .. }),
            "{path}: {refused}"
        );
        assert!(make_place(volume.root().as_fd(), path).is_err(), "{path}");
        assert_eq!(volume.names(), [""; 0], "{path}");
    }
}

#[test]
fn links_that_somebody_planted_lead_nowhere() {
    let volume = Volume::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "mine").unwrap();
    let plant = |name: &str| {
        let place = volume.path().join(name);
        let _ = fs::remove_file(&place);
        symlink(outside.path(), place).unwrap();
    };
    for name in [
        "..data",
        "..data_tmp",
        "..2020_01_01_00_00_00.000000000",
        "a",
        "d",
    ] {
        plant(name);
    }
    volume
        .write(&files(&[("a", "1"), ("d/file", "2")]))
        .unwrap();
    assert_eq!(volume.read("d/file"), "2");
    assert_eq!(volume.names(), ["..data", "..version", "a", "d"]);
    // Planted in the present version, in the place of a directory and of a file.
    for name in ["..data/d", "..data/a"] {
        let place = volume.path().join(name);
        let _ = fs::remove_dir_all(&place);
        let _ = fs::remove_file(&place);
        symlink(outside.path(), place).unwrap();
        volume
            .write(&files(&[("a", "1"), ("d/file", "2")]))
            .unwrap();
        assert_eq!(volume.read("d/file"), "2");
    }
    assert_eq!(
        fs::read_to_string(outside.path().join("file")).unwrap(),
        "mine"
    );
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn whatever_a_change_was_interrupted_in_the_next_one_makes_good() {
    let (old, new) = (
        files(&[("a", "1"), ("b", "1")]),
        files(&[("a", "2"), ("c", "2")]),
    );
    // How far the interrupted change came.
    for stage in 0..6 {
        for wanted in [&old, &new] {
            let volume = Volume::new();
            volume.write(&old).unwrap();
            let root = volume.root();
            let at = |name: &str| volume.path().join(name);
            let version = match stage {
                0 => {
                    fs::create_dir(at("..2020_01_01_00_00_00.000000000")).unwrap();
                    None
                }
                _ => Some(fill_new(root.as_fd(), &new).unwrap()),
            };
            if let (2, Some(version)) = (stage, &version) {
                symlink(version, at("..data_tmp")).unwrap();
            }
            if let (3.., Some(version)) = (stage, &version) {
                point(root.as_fd(), version).unwrap();
            }
            if stage >= 4 {
                symlink("..data/c", at("c")).unwrap();
            }
            if stage >= 5 {
                fs::remove_file(at("b")).unwrap();
            }
            volume.write(wanted).unwrap();
            let mut expected = vec!["..data".to_owned(), "..version".to_owned()];
            expected.extend(wanted.keys().cloned());
            assert_eq!(volume.names(), expected, "stage {stage}");
            for (path, file) in wanted {
                assert_eq!(volume.read(path).as_bytes(), file.bytes, "stage {stage}");
            }
        }
    }
}

#[test]
fn a_reader_sees_all_of_the_old_files_or_all_of_the_new_ones() {
    let volume = Volume::new();
    let version = |number: usize| {
        let text = number.to_string();
        files(&[("a", &text), ("b", &text), ("c/d", &text)])
    };
    volume.write(&version(0)).unwrap();
    let over = AtomicBool::new(false);
    let reads = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut whole = 0;
            while !over.load(Ordering::Relaxed) {
                // What one look through `..data` leads to.
                let target = fs::read_link(volume.path().join("..data")).unwrap();
                let read = |name: &str| fs::read_to_string(volume.path().join(&target).join(name));
                // The old files go away soon after the switch, never before.
                let (Ok(a), Ok(b), Ok(d)) = (read("a"), read("b"), read("c/d")) else {
                    assert_ne!(fs::read_link(volume.path().join("..data")).unwrap(), target);
                    continue;
                };
                assert!(a == b && b == d, "a mixed set: {a} {b} {d}");
                whole += 1;
            }
            whole
        });
        for number in 1..=2000 {
            volume.write(&version(number)).unwrap();
        }
        over.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(reads > 100, "the reader had a chance: {reads}");
}
