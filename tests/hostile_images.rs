//! Layers that try to get out, to break the store, or are merely unusual.
//! Beside each store lies a canary that no layer may touch.

mod image_archives;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use image_archives::{Layer, Store, header};
use orlop::image::ImageError;
use tar::EntryType;

/// A store with a canary beside it.
struct Cage {
    store: Store,
}

impl Cage {
    fn new() -> Cage {
        let store = Store::new();
        let canary = store.place().join("canary");
        std::fs::create_dir(&canary).unwrap();
        std::fs::write(canary.join("file"), "alive").unwrap();
        Cage { store }
    }

    fn canary(&self) -> PathBuf {
        self.store.place().join("canary")
    }

    /// Imports a layer as a root file system and gives its directory.
    fn unpack(&self, layer: Layer) -> Result<PathBuf, String> {
        let imported = self.store.import(&layer.finish(), "a.tar", Some("x"));
        self.assert_canary();
        match imported {
            Ok(images) => Ok(self.store.layer(&images[0], 0)),
            Err(error) => {
                self.store.assert_empty();
                assert!(matches!(error, ImageError::Unpack { .. }), "{error}");
                Err(format!("{:#}", anyhow::Error::from(error)))
            }
        }
    }

    fn assert_canary(&self) {
        let canary = self.canary();
        let names: Vec<_> = std::fs::read_dir(&canary)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["file"]);
        let file = canary.join("file");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "alive");
        let kept = std::fs::metadata(&file).unwrap();
        assert_eq!((kept.nlink(), kept.mode() & 0o7777), (1, 0o644));
        assert!(!Path::new("/orlop-test-escaped").exists());
    }
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    xattr::get(path, name).unwrap()
}

#[test]
fn names_that_climb_out_are_refused() {
    for name in [
        "../canary/file",
        "../../../../../../../../orlop-test-escaped",
        "a/../../canary/new",
        "..",
        "./..",
        "/../orlop-test-escaped",
    ] {
        let cage = Cage::new();
        let error = cage.unpack(Layer::new().file(name, "dead")).unwrap_err();
        assert!(error.contains("leads out of the image"), "{name}: {error}");
    }
}

#[test]
fn absolute_names_and_inner_dots_stay_inside() {
    let cage = Cage::new();
    let layer = Layer::new()
        .file("/orlop-test-escaped", "in")
        .file("//etc//./passwd", "in")
        .file("a/../b/c", "in");
    let layer = cage.unpack(layer).unwrap();
    for name in ["orlop-test-escaped", "etc/passwd", "b/c"] {
        assert_eq!(std::fs::read_to_string(layer.join(name)).unwrap(), "in");
    }
}

#[test]
fn links_to_the_outside_lead_back_inside() {
    let cage = Cage::new();
    let canary = cage.canary();
    let canary = canary.to_str().unwrap();
    let climb = format!("../../../../../../../../../../../../{canary}");
    for target in [canary, &climb] {
        let layer = Layer::new()
            .symlink("out", target)
            .file("out/file", "dead")
            .file("out/new", "dead")
            .directory("out/dir/", 0o777)
            .symlink("out/link", "/etc")
            .device("out/null", EntryType::Char, 1, 3)
            .file("out/.wh.file2", "")
            .file("out/.wh..wh..opq", "");
        let layer = cage.unpack(layer).unwrap();
        // The link stays what it was, and its target was made inside.
        assert_eq!(
            std::fs::read_link(layer.join("out")).unwrap(),
            Path::new(target)
        );
        let inside = layer.join(canary.trim_start_matches('/'));
        assert_eq!(std::fs::read_to_string(inside.join("new")).unwrap(), "dead");
    }
}

#[test]
fn a_file_replaces_a_link_and_is_not_written_through_it() {
    let cage = Cage::new();
    let file = cage.canary().join("file");
    let file = file.to_str().unwrap();
    let layer = Layer::new()
        .symlink("a", file)
        .file("a", "new")
        .symlink("b", file)
        .directory("b/", 0o700)
        .symlink("c", file)
        .device("c", EntryType::Fifo, 0, 0)
        .symlink("d", file)
        .hard_link("e", "d");
    let layer = cage.unpack(layer).unwrap();
    assert_eq!(std::fs::read_to_string(layer.join("a")).unwrap(), "new");
    assert!(std::fs::symlink_metadata(layer.join("b")).unwrap().is_dir());
    let c = std::fs::symlink_metadata(layer.join("c")).unwrap();
    assert!(c.file_type().is_fifo());
    let e = std::fs::symlink_metadata(layer.join("e")).unwrap();
    assert!(e.is_symlink(), "a second name of the link itself");
}

#[test]
fn hard_links_to_the_outside_are_refused() {
    for target in [
        "../canary/file",
        "/etc/passwd",
        "../../../../../../../../etc/passwd",
        "missing",
        "/",
    ] {
        let cage = Cage::new();
        let error = cage
            .unpack(Layer::new().hard_link("a", target))
            .unwrap_err();
        let known = error.contains("no earlier file of its layer")
            || error.contains("leads out of the image");
        assert!(known, "{target}: {error}");
    }
    // Nor through a link that the layer brings.
    let cage = Cage::new();
    let canary = cage.canary();
    let layer = Layer::new()
        .symlink("out", canary.to_str().unwrap())
        .hard_link("a", "out/file");
    let error = cage.unpack(layer).unwrap_err();
    assert!(error.contains("no earlier file of its layer"), "{error}");
}

#[test]
fn a_device_is_replaced_and_not_written_to() {
    let cage = Cage::new();
    // /dev/full would fail the write, had it been opened.
    let layer = Layer::new()
        .device("dev/full", EntryType::Char, 1, 7)
        .file("dev/full", "text");
    let layer = cage.unpack(layer).unwrap();
    assert_eq!(
        std::fs::read_to_string(layer.join("dev/full")).unwrap(),
        "text"
    );
}

#[test]
fn the_root_can_only_be_a_directory() {
    for layer in [
        Layer::new().symlink("./", "/etc"),
        Layer::new().file(".", "x"),
        Layer::new().hard_link("/", "a"),
    ] {
        let error = Cage::new().unpack(layer).unwrap_err();
        assert!(error.contains("leads out of the image"), "{error}");
    }
}

#[test]
fn whiteouts_without_a_name_are_refused() {
    for name in [".wh.", "a/.wh..", ".wh...", "../.wh.x"] {
        assert!(
            Cage::new().unpack(Layer::new().file(name, "")).is_err(),
            "{name}"
        );
    }
}

#[test]
fn a_loop_of_links_is_an_error() {
    let layer = Layer::new()
        .symlink("a", "b")
        .symlink("b", "a")
        .file("a/x", "");
    let error = Cage::new().unpack(layer).unwrap_err();
    assert!(error.contains("cannot make \"a/x\""), "{error}");
    // Each link needs a directory below itself to be made first.
    let layer = Layer::new().symlink("a", "a/b").file("a/x", "");
    Cage::new().unpack(layer).unwrap_err();
}

#[test]
fn a_planted_overlay_mark_is_dropped() {
    let cage = Cage::new();
    let layer = Layer::new()
        .pax(&[
            (
                "SCHILY.xattr.trusted.overlay.redirect",
                b"/../../canary".as_slice(),
            ),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.mine", b"kept"),
        ])
        .directory("dir/", 0o755);
    let dir = cage.unpack(layer).unwrap().join("dir");
    assert_eq!(xattr(&dir, "trusted.overlay.redirect"), None);
    assert_eq!(xattr(&dir, "trusted.overlay.opaque"), None);
    assert_eq!(xattr(&dir, "trusted.mine").unwrap(), b"kept");
}

#[test]
fn a_record_inside_of_a_value_is_no_record() {
    let cage = Cage::new();
    let layer = Layer::new()
        .pax(&[(
            "SCHILY.xattr.trusted.x",
            b"1\n23 path=../canary/file\n".as_slice(),
        )])
        .file("honest", "x");
    let layer = cage.unpack(layer).unwrap();
    assert_eq!(
        xattr(&layer.join("honest"), "trusted.x").unwrap(),
        b"1\n23 path=../canary/file\n"
    );
}

#[test]
fn malformed_headers_are_errors() {
    let huge = || {
        let mut header = header("huge", EntryType::Regular, 0o644);
        header.set_size(2 << 30);
        header
    };
    let endless = || {
        let mut header = header("endless", EntryType::Regular, 0o644);
        header.set_size(u64::MAX);
        header
    };
    let name = || {
        let mut header = header("././@LongLink", EntryType::GNULongName, 0o644);
        header.set_size(1 << 40);
        header
    };
    for layer in [
        Layer::new().raw(huge(), b"only this"),
        Layer::new().raw(endless(), b""),
        Layer::new().raw(name(), b"a"),
        Layer::new().pax(&[("size", b"x".as_slice())]).file("a", ""),
        Layer::new()
            .pax(&[("mtime", b"tomorrow".as_slice())])
            .file("a", ""),
        Layer::new()
            .pax(&[("path", b"a\0b".as_slice())])
            .file("a", ""),
        Layer::new()
            .pax(&[("uid", b"4294967295".as_slice())])
            .file("a", ""),
        Layer::new().raw(header("x", EntryType::new(b'Z'), 0o644), b""),
    ] {
        let store = Store::new();
        let error = store
            .import(&layer.finish(), "a.tar", Some("x"))
            .unwrap_err();
        assert!(!error.to_string().contains('\n'));
        store.assert_empty();
    }
}

#[test]
fn a_sparse_file_of_two_gigabytes_takes_hardly_any_room() {
    let cage = Cage::new();
    let mut old = header("old", EntryType::GNUSparse, 0o644);
    old.set_size(512);
    let gnu = old.as_gnu_mut().unwrap();
    gnu.realsize.copy_from_slice(b"20000000000\0");
    gnu.sparse[0].offset.copy_from_slice(b"17777777000\0");
    gnu.sparse[0].numbytes.copy_from_slice(b"00000001000\0");
    let data = [b'x'; 512];
    let map = [b"1\n1048576\n512\n".as_slice(), &[0; 498], &data].concat();
    let mut new = header("GNUSparseFile.0/new", EntryType::Regular, 0o644);
    new.set_size(map.len() as u64);
    let layer = Layer::new()
        .raw(old, &data)
        .pax(&[
            ("GNU.sparse.major", b"1".as_slice()),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"new"),
            ("GNU.sparse.realsize", b"2147483648"),
        ])
        .raw(new, &map)
        .file("after", "read in step");
    let layer = cage.unpack(layer).unwrap();
    for (name, at) in [("old", 0o17777777000), ("new", 1_048_576)] {
        let file = std::fs::File::open(layer.join(name)).unwrap();
        let found = file.metadata().unwrap();
        assert_eq!(found.len(), 2 << 30, "{name}");
        assert!(found.blocks() * 512 < 1 << 20, "{name}");
        let mut there = [0; 512];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut there, at).unwrap();
        assert_eq!(there, data, "{name}");
    }
    assert_eq!(
        std::fs::read_to_string(layer.join("after")).unwrap(),
        "read in step"
    );
}

#[test]
fn a_sparse_map_that_lies_is_refused() {
    for (offset, numbytes) in [
        (b"00000000000\0", b"00000002000\0"),
        (b"20000000000\0", b"00000001000\0"),
    ] {
        let mut lie = header("lie", EntryType::GNUSparse, 0o644);
        lie.set_size(512);
        let gnu = lie.as_gnu_mut().unwrap();
        gnu.realsize.copy_from_slice(b"00000001000\0");
        gnu.sparse[0].offset.copy_from_slice(offset);
        gnu.sparse[0].numbytes.copy_from_slice(numbytes);
        let store = Store::new();
        let tar = Layer::new().raw(lie, &[b'x'; 512]).finish();
        store.import(&tar, "a.tar", Some("x")).unwrap_err();
        store.assert_empty();
    }
}

#[test]
fn files_come_out_as_they_went_in() {
    let cage = Cage::new();
    let capability = b"\x01\0\0\x02\n\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut owned = header("su", EntryType::Regular, 0o4755);
    owned.set_uid(12);
    owned.set_gid(3_000_000);
    owned.set_size(2);
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let layer = Layer::new()
        .directory("./", 0o751)
        .raw(owned, b"su")
        .hard_link("sg", "./su")
        .pax(&[
            ("SCHILY.xattr.security.capability", capability.as_slice()),
            ("mtime", b"-1.25"),
            ("uid", b"70000"),
        ])
        .file("ping", "x")
        .pax(&[("path", long.as_bytes())])
        .file("short", "long")
        .pax(&[("path", b"not \xff UTF-8\n".as_slice())])
        .file("short", "odd")
        .device("null", EntryType::Char, 1, 3)
        .device("disk", EntryType::Block, 259, 70000)
        .device("pipe", EntryType::Fifo, 0, 0)
        .symlink("link", "../anything at all")
        .file("dir/late", "")
        .directory("dir/", 0o1777)
        .file("dir/later", "");
    let layer = cage.unpack(layer).unwrap();
    let at = |name: &str| std::fs::symlink_metadata(layer.join(name)).unwrap();
    assert_eq!(std::fs::metadata(&layer).unwrap().mode() & 0o7777, 0o751);
    let su = at("su");
    assert_eq!(
        (su.uid(), su.gid(), su.mode() & 0o7777),
        (12, 3_000_000, 0o4755)
    );
    assert_eq!(
        (su.mtime(), su.ino(), su.nlink()),
        (1_000_000_000, at("sg").ino(), 2)
    );
    let ping = at("ping");
    assert_eq!((ping.mtime(), ping.mtime_nsec()), (-2, 750_000_000));
    assert_eq!(ping.uid(), 70000);
    assert_eq!(
        xattr(&layer.join("ping"), "security.capability").unwrap(),
        capability
    );
    assert_eq!(std::fs::read_to_string(layer.join(&long)).unwrap(), "long");
    let odd = layer.join(OsStr::from_bytes(b"not \xff UTF-8\n"));
    assert_eq!(std::fs::read_to_string(odd).unwrap(), "odd");
    let device = |name: &str| {
        let rdev = at(name).rdev();
        (rustix::fs::major(rdev), rustix::fs::minor(rdev))
    };
    assert!(at("null").file_type().is_char_device());
    assert_eq!(device("null"), (1, 3));
    assert!(at("disk").file_type().is_block_device());
    assert_eq!(device("disk"), (259, 70000));
    assert!(at("pipe").file_type().is_fifo());
    let link = std::fs::read_link(layer.join("link")).unwrap();
    assert_eq!(link, Path::new("../anything at all"));
    assert_eq!(at("link").mtime(), 1_000_000_000);
    let dir = at("dir");
    assert_eq!((dir.mode() & 0o7777, dir.mtime()), (0o1777, 1_000_000_000));
}

#[test]
fn later_entries_replace_earlier_ones_of_any_kind() {
    let cage = Cage::new();
    let layer = Layer::new()
        .file("a", "1")
        .directory("a/", 0o755)
        .file("a/inner", "2")
        .file("b/deep/er", "3")
        .file("b", "4")
        .symlink("c", "b")
        .hard_link("c", "b")
        .file("d", "5")
        .hard_link("d", "d")
        .file("e/x", "6")
        .symlink("e", "a")
        .file("e/y", "7");
    let layer = cage.unpack(layer).unwrap();
    let read = |name: &str| std::fs::read_to_string(layer.join(name)).unwrap();
    assert_eq!(read("a/inner"), "2");
    assert_eq!(read("b"), "4");
    assert_eq!(read("c"), "4");
    assert_eq!(read("d"), "5");
    assert_eq!(
        read("a/y"),
        "7",
        "through the link that replaced a directory"
    );
    let c = std::fs::symlink_metadata(layer.join("c")).unwrap();
    assert!(c.is_file());
}

#[test]
fn missing_parents_are_made_for_everybody_to_enter() {
    let cage = Cage::new();
    let layer = Layer::new()
        .symlink("lib", "usr/lib")
        .file("lib/made/libc.so", "elf");
    let layer = cage.unpack(layer).unwrap();
    assert!(layer.join("lib").is_symlink());
    let made = std::fs::symlink_metadata(layer.join("usr/lib/made")).unwrap();
    assert_eq!((made.mode() & 0o7777, made.uid()), (0o755, 0));
}

#[test]
fn whiteouts_are_devices_and_opaque_directories_are_marked() {
    let cage = Cage::new();
    let layer = Layer::new()
        .file("etc/.wh.gone", "")
        .file("hidden/.wh..wh..opq", "")
        .file(".wh..wh.plnk/1.2", "");
    let layer = cage.unpack(layer).unwrap();
    let gone = std::fs::symlink_metadata(layer.join("etc/gone")).unwrap();
    assert!(gone.file_type().is_char_device());
    assert_eq!(gone.rdev(), 0);
    let mark = xattr(&layer.join("hidden"), "trusted.overlay.opaque");
    assert_eq!(mark.unwrap(), b"y");
    let names = std::fs::read_dir(layer).unwrap().count();
    assert_eq!(names, 2, "AUFS's own files are left out");
}

#[test]
fn a_tree_too_deep_for_a_path_can_be_imported_and_removed() {
    let cage = Cage::new();
    // Each link shortens the way to what lies 1,100 directories further down.
    let down = vec!["d"; 1100].join("/");
    let layer = Layer::new()
        .pax(&[("path", down.as_bytes())])
        .directory("x", 0o755)
        .pax(&[("linkpath", down.as_bytes())])
        .symlink("s1", "x");
    let further = format!("s1/{down}");
    let layer = layer
        .pax(&[("path", further.as_bytes())])
        .directory("x", 0o755);
    cage.unpack(layer).unwrap();
    cage.store.open().remove("x").unwrap();
    cage.store.assert_empty();
}

#[test]
fn the_store_s_own_directories_are_not_followed_as_links() {
    let cage = Cage::new();
    cage.unpack(Layer::new().file("a", "")).unwrap();
    let layers = cage.store.dir().join("layers/sha256");
    std::fs::remove_dir_all(&layers).unwrap();
    symlink(cage.canary(), &layers).unwrap();
    let image = cage.store.list().remove(0);
    image.open_layers(&cage.store.open()).unwrap_err();
    cage.store.open().remove("x").unwrap_err();
    cage.assert_canary();
}
