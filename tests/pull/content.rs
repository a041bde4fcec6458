//! What arrives: every kind of compression, and every kind of entry.

use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::common::Machine;
use crate::common::registry::{Image, Registry, gzip, zstd};
use crate::image_archives::Layer;
use crate::support::{assert_nothing, command, file_layer, large_layer, layer, pull};

#[test]
fn layers_come_plain_or_compressed_by_gzip_or_zstd() {
    let machine = Machine::bare();
    let registry = Registry::start(&machine.path("registry"));
    for (name, pack) in [
        ("plain", (|tar: &[u8]| tar.to_vec()) as fn(&[u8]) -> Vec<u8>),
        ("gzip", gzip),
        ("zstd", zstd),
    ] {
        let layers: Vec<_> = (0..6).map(|n| file_layer(&format!("{n}"), name)).collect();
        let pushed = registry.push(&format!("{name}:1"), &Image::new(&layers, pack));
        pull(&machine, &[&pushed]).ok();
        for (place, tar) in layers.iter().enumerate() {
            let file = layer(&machine, tar).join(place.to_string());
            assert_eq!(std::fs::read_to_string(file).expect("read"), name);
        }
    }
}

#[test]
fn whiteouts_links_and_attributes_come_out_as_they_went_in() {
    let machine = Machine::bare();
    let registry = Registry::start(&machine.path("registry"));
    let below = Layer::new()
        .directory("d", 0o755)
        .file("d/gone", "x")
        .directory("o", 0o755)
        .file("o/hidden", "x")
        .finish();
    let above = Layer::new()
        .directory("d", 0o755)
        .file("d/.wh.gone", "")
        .directory("o", 0o755)
        .file("o/.wh..wh..opq", "")
        .file("a", "linked")
        .hard_link("b", "a")
        .pax(&[("SCHILY.xattr.trusted.colour", b"blue")])
        .file("c", "marked")
        .finish();
    let name = registry.push("tree:1", &Image::new(&[below, above.clone()], gzip));
    pull(&machine, &[&name]).ok();
    let at = layer(&machine, &above);
    let gone = at.join("d/gone").symlink_metadata().expect("whiteout");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let opaque = xattr::get(at.join("o"), "trusted.overlay.opaque").expect("xattr");
    assert_eq!(opaque.as_deref(), Some(&b"y"[..]));
    let (a, b) = (
        at.join("a").metadata().unwrap(),
        at.join("b").metadata().unwrap(),
    );
    assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
    let colour = xattr::get(at.join("c"), "trusted.colour");
    assert_eq!(colour.expect("xattr").as_deref(), Some(&b"blue"[..]));
}

#[test]
fn a_layer_that_leads_out_of_its_directory_is_refused() {
    let machine = Machine::bare();
    let registry = Registry::start(&machine.path("registry"));
    let good = file_layer("a", "good");
    for (number, escape) in ["../../etc/passwd", "a/../../x"].iter().enumerate() {
        let bad = Layer::new().file(escape, "owned").finish();
        let image = Image::new(&[good.clone(), bad], gzip);
        let name = registry.push(&format!("escape:{number}"), &image);
        let refused = pull(&machine, &[&name]).refused();
        let sentence = format!("entry {escape:?} leads out of the image's root directory");
        assert!(refused.contains(&sentence), "{refused}");
        assert!(refused.contains("cannot unpack layer 2 of 2"), "{refused}");
    }
    // The good layer may wait for another try; nothing else is left.
    let passwd = std::fs::read_to_string("/etc/passwd").expect("read");
    assert!(!passwd.contains("owned"));
    assert!(crate::support::images(&machine).is_empty());
}

#[test]
fn what_is_no_image_is_refused() {
    let machine = Machine::bare();
    let registry = Registry::start(&machine.path("registry"));
    let image = Image::new(&[file_layer("a", "a")], gzip);
    let artifact = image.clone().with_manifest(|manifest| {
        manifest["config"]["mediaType"] = "application/vnd.example.thing".into();
    });
    let name = registry.push("thing:1", &artifact);
    let refused = pull(&machine, &[&name]).refused();
    assert!(
        refused.contains("an artifact of type application/vnd.example.thing"),
        "{refused}"
    );
    let name = registry.push(
        "other:1",
        &Image::of(&[file_layer("a", "a")], gzip, "s390x", ""),
    );
    let refused = pull(&machine, &[&name]).refused();
    assert!(refused.contains("it has linux/s390x"), "{refused}");
    assert_nothing(&machine);
}

#[test]
fn a_terminal_shows_bars() {
    let machine = Machine::bare();
    let registry = Registry::start(&machine.path("registry"));
    let name = registry.push("large:1", &Image::new(&[large_layer(4 << 20)], gzip));
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("openpt");
    grantpt(&terminal).expect("grantpt");
    unlockpt(&terminal).expect("unlockpt");
    let other = ptsname(&terminal, Vec::new()).expect("ptsname");
    let other = std::fs::File::options()
        .read(true)
        .write(true)
        .open(other.to_str().expect("a name"))
        .expect("open");
    rustix::termios::tcsetwinsize(
        &other,
        rustix::termios::Winsize {
            ws_row: 24,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )
    .expect("size");
    let mut command = command(&machine, &[&name]);
    command.stderr(other).env("TERM", "xterm");
    let mut child = command.spawn().expect("spawn");
    // The last descriptor of the other side must be the child's.
    drop(command);
    let mut shown = Vec::new();
    let mut buffer = [0; 4096];
    let mut terminal = std::fs::File::from(terminal);
    // Reading ends with EIO when the other side is closed.
    while let Ok(read @ 1..) = terminal.read(&mut buffer) {
        shown.extend_from_slice(&buffer[..read]);
    }
    assert!(child.wait().expect("wait").success());
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("layer 1/1"), "{shown:?}");
    assert!(shown.contains("4.00 MiB/4.00 MiB"), "{shown:?}");
    assert!(shown.contains('█') && shown.contains("done"), "{shown:?}");
}
