//! Pulls that were interrupted, and pulls side by side.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::http::{Reply, Server};
use crate::common::registry::{Image, gzip, offset, serve};
use crate::common::{LIMIT, Machine};
use crate::image_archives::Layer;
use crate::support::{command, file_layer, images, large_layer, pull, staged};

/// Bytes of the large layer that a hanging server gives away.
const HALF: usize = 400_000;

/// A server that gives half of a layer and then hangs, as long as `hang` says.
fn hanging(image: Image, hang: impl Fn(usize) -> bool + Send + Sync + 'static) -> Server {
    let calls = AtomicUsize::new(0);
    Server::start(move |request| {
        let reply = serve(&image, request);
        if !request.path.contains(&image.layers[0]) {
            return reply;
        }
        if hang(calls.fetch_add(1, Ordering::SeqCst)) {
            return Reply {
                cut: Some(HALF),
                ..reply
            };
        }
        reply
    })
}

/// Waits until as much of a layer is there as the server gives.
fn wait_for_half(machine: &Machine) {
    let start = Instant::now();
    loop {
        let directory = machine.roots.images().join("pulls");
        let blob = staged(machine)
            .into_iter()
            .find(|name| name.starts_with("blob-"));
        let length = blob.and_then(|name| directory.join(name).metadata().ok());
        if length.is_some_and(|length| length.len() >= HALF as u64) {
            return;
        }
        assert!(start.elapsed() < LIMIT, "{:?}", staged(machine));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn kill_half_way(machine: &Machine, name: &str) {
    let mut child = command(machine, &[name])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("spawn");
    wait_for_half(machine);
    child.kill().expect("kill");
    child.wait().expect("wait");
}

#[test]
fn after_a_kill_only_the_rest_is_downloaded() {
    let machine = Machine::bare();
    // Its directory is as old as the image says: that tells nothing.
    let small = Layer::new()
        .directory("./", 0o755)
        .file("small", "small")
        .finish();
    let image = Image::new(&[large_layer(1 << 20), small], gzip);
    let (large, small) = (image.layers[0].clone(), image.layers[1].clone());
    // The killed one tries several times in vain.
    let killed = Arc::new(AtomicUsize::new(0));
    let after = Arc::clone(&killed);
    let server = hanging(image, move |_| after.load(Ordering::SeqCst) == 0);
    let name = format!("{}/tool:1", server.host);
    kill_half_way(&machine, &name);
    assert!(
        images(&machine).is_empty(),
        "an image appears whole or not at all"
    );
    // A pull of something else in between takes nothing away.
    let other = Image::new(&[file_layer("other", "other")], gzip);
    let elsewhere = Server::start(move |request| serve(&other, request));
    pull(&machine, &[&format!("{}/other:1", elsewhere.host)]).ok();
    let before = server.seen().len();
    killed.store(1, Ordering::SeqCst);
    let said = pull(&machine, &[&name]);
    let lines = said.stderr.clone();
    said.ok();
    assert!(lines.contains(" more of "), "{lines}");
    let asked = server.seen().split_off(before);
    let offsets: Vec<_> = asked
        .iter()
        .filter(|request| request.path.contains(&large))
        .map(|request| offset(request).expect("a range"))
        .collect();
    assert_eq!(offsets.len(), 1, "{offsets:?}");
    assert!(offsets[0] >= HALF, "{offsets:?}");
    assert!(
        asked.iter().all(|request| !request.path.contains(&small)),
        "what was done is taken as it is"
    );
    assert_eq!(staged(&machine), [""; 0]);
}

#[test]
fn what_was_damaged_on_the_way_is_downloaded_anew() {
    let machine = Machine::bare();
    let image = Image::new(&[large_layer(1 << 20)], gzip);
    let layer = image.layers[0].clone();
    let server = Server::start(move |request| serve(&image, request));
    let pulls = machine.roots.images().join("pulls");
    std::fs::create_dir_all(&pulls).expect("directory");
    let hex = layer.strip_prefix("sha256:").expect("a digest");
    std::fs::write(pulls.join(format!("blob-{hex}")), vec![0; 1000]).expect("write");
    pull(&machine, &[&format!("{}/tool:1", server.host)]).ok();
    let asked = server.seen();
    let blobs = asked.iter().filter(|request| request.path.contains(&layer));
    assert_eq!(blobs.map(offset).collect::<Vec<_>>(), [Some(1000), Some(0)]);
    assert_eq!(staged(&machine), [""; 0]);
}

#[test]
fn a_server_without_ranges_is_read_from_the_beginning() {
    let machine = Machine::bare();
    let image = Image::new(&[large_layer(1 << 20)], gzip);
    let calls = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let mut whole = request.clone();
        whole.headers.remove("range");
        let mut reply = serve(&image, &whole);
        if request.path.contains(&image.layers[0]) && calls.fetch_add(1, Ordering::SeqCst) == 0 {
            reply.cut = Some(HALF);
        }
        reply
    });
    pull(&machine, &[&format!("{}/tool:1", server.host)]).ok();
    assert_eq!(images(&machine).len(), 1);
}

#[test]
fn several_pulls_of_an_image_download_it_once() {
    let machine = Machine::bare();
    let image = Image::new(&[large_layer(1 << 20), file_layer("b", "b")], gzip);
    let layers = image.layers.clone();
    let server = Server::start(move |request| {
        if request.path.contains("/blobs/") {
            std::thread::sleep(Duration::from_millis(300));
        }
        serve(&image, request)
    });
    let pulls: Vec<_> = (0..4)
        .map(|number| {
            let name = format!("{}/tool:{}", server.host, number % 2);
            command(&machine, &[&name]).spawn().expect("spawn")
        })
        .collect();
    for pull in pulls {
        let output = pull.wait_with_output().expect("wait");
        assert!(output.status.success(), "{output:?}");
    }
    for layer in &layers {
        assert_eq!(server.count(layer), 1, "{layer}");
    }
    assert_eq!(
        images(&machine)[0]["names"]
            .as_array()
            .expect("names")
            .len(),
        2
    );
}

#[test]
fn what_nobody_went_on_with_for_a_day_is_removed() {
    let machine = Machine::bare();
    let image = Image::new(&[large_layer(1 << 20)], gzip);
    let server = hanging(image, |_| true);
    kill_half_way(&machine, &format!("{}/tool:1", server.host));
    let before = staged(&machine);
    assert_eq!(before.len(), 2, "{before:?}");
    let other = Image::new(&[file_layer("a", "a")], gzip);
    let server = Server::start(move |request| serve(&other, request));
    let name = format!("{}/other:1", server.host);
    pull(&machine, &[&name]).ok();
    assert_eq!(staged(&machine), before, "it may be gone on with");
    let pulls = machine.roots.images().join("pulls");
    for entry in &before {
        let aged = Command::new("touch")
            .args(["-d", "2 days ago"])
            .arg(pulls.join(entry))
            .status();
        assert!(aged.expect("touch").success());
    }
    machine.orlop(["image", "rm", &name]).ok();
    assert_eq!(staged(&machine), [""; 0]);
}
