//! Pods whose images come from a registry.

use std::fs;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use orlop::sys::pidfd;
use serde_json::{Value, json};

use crate::common::http::{Reply, Server};
use crate::common::registry::{Image, PASSWORD, Registry, USER, busybox, gzip, serve};
use crate::common::{LIMIT, Machine, busybox_archive, finish, path};
use crate::image_archives::Layer;
use crate::support::{idle, kill, pod, row, status, until, with};

/// busybox with a file that says which version it is.
fn version(number: &str) -> Image {
    let file = Layer::new().file("version", number).finish();
    Image::new(&[busybox_archive(), file], gzip)
}

/// A container of this image that does nothing for a long time.
fn of(name: &str, image: &str) -> Value {
    with(idle(name), &json!({"image": image}))
}

fn waiting(machine: &Machine, container: &str) -> Value {
    status(&machine.pod("web"), container)["state"]["waiting"].clone()
}

fn wait_for_reason(machine: &Machine, container: &str, reason: &str) -> String {
    machine.wait_for("web", |pod| {
        status(pod, container)["state"]["waiting"]["reason"] == reason
    });
    let message = waiting(machine, container)["message"].clone();
    message.as_str().unwrap_or_default().to_owned()
}

/// Process ids of those who pull for this machine's pods.
fn pullers(machine: &Machine) -> Vec<i32> {
    let mark = path(&machine.roots.data).as_bytes().to_vec();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        if words.contains(&mark.as_slice()) && words.contains(&&b"--for-pod"[..]) {
            let name = entry.file_name();
            found.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
        }
    }
    found
}

fn wait_for_puller(machine: &Machine) {
    let start = Instant::now();
    while pullers(machine).is_empty() {
        assert!(start.elapsed() < LIMIT, "nobody pulls");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_pod_pulls_what_is_missing_and_only_that() {
    let machine = Machine::bare();
    let registry = Registry::start(&machine.path("registry"));
    let image = registry.push("tool:1.0", &busybox());
    machine.run_pod(&pod(
        &json!({"containers": [of("a", &image), of("b", &image)]}),
    ));
    let page = until(&machine, &["describe", "pod", "web"], |page| {
        page.contains("Started container b")
    });
    let images = machine.orlop(["image", "ls", "-o", "json"]).ok();
    let images: Value = serde_json::from_str(&images).expect("JSON");
    let size = &images["images"][0]["size"];
    assert!(
        page.contains(&format!("Pulling image \"{image}\"")),
        "{page}"
    );
    let pulled = format!("Successfully pulled image \"{image}\" in ");
    let line = page
        .lines()
        .find(|line| line.contains(&pulled))
        .expect("a line");
    let (_, times) = line.split_once(&pulled).expect("times");
    let (alone, rest) = times.split_once(" (").expect("times");
    assert!(
        alone.ends_with('s') && alone.as_bytes()[0].is_ascii_digit(),
        "{line}"
    );
    assert!(
        rest.ends_with(&format!("s including waiting). Image size: {size} bytes.")),
        "{line}"
    );
    let present = format!("Container image \"{image}\" already present on machine");
    assert!(page.contains(&present), "{page}");
    assert_eq!(row(&machine)[1..4], ["2/2", "Running", "0"]);
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn always_means_the_newest_and_without_a_registry_the_one_that_is_here() {
    let machine = Machine::bare();
    let mut registry = Registry::start(&machine.path("registry"));
    let image = registry.push("tool:latest", &version("1"));
    let spec = json!({"containers": [of("c", &image)]});
    machine.run_pod(&pod(&spec));
    assert_eq!(
        machine.pod("web")["spec"]["containers"][0]["imagePullPolicy"],
        "Always"
    );
    assert_eq!(machine.sh("web", "c", "cat /version"), "1");

    registry.push("tool:latest", &version("2"));
    kill(&machine, "c");
    machine.wait_for("web", |pod| {
        let c = status(pod, "c");
        c["restartCount"] == 1 && c["ready"] == true
    });
    assert_eq!(machine.sh("web", "c", "cat /version"), "2");
    machine.orlop(["delete", "pod", "web", "--now"]).ok();

    registry.stop();
    let start = Instant::now();
    machine.run_pod(&pod(&spec));
    let took = start.elapsed();
    assert_eq!(machine.sh("web", "c", "cat /version"), "2");
    let page = machine.orlop(["describe", "pod", "web"]).ok();
    let said = format!(
        "registry {} does not answer: Connection refused (os error 111): running image \
         \"{image}\" as it is present on this machine",
        registry.host
    );
    assert!(
        page.contains("RegistryUnavailable") && page.contains(&said),
        "{page}"
    );
    assert!(took < Duration::from_secs(20), "{took:?}");
    machine.orlop(["delete", "pod", "web", "--now"]).ok();

    // Nobody who listens says a word: that is found out soon, too.
    let silent = std::net::TcpListener::bind(&registry.host).expect("bind");
    let start = Instant::now();
    machine.run_pod(&pod(&spec));
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
    drop(silent);
    machine.orlop(["delete", "pod", "web", "--now"]).ok();

    // A registry that says no is not one that does not answer.
    fs::remove_dir_all(machine.path("registry/docker")).expect("remove");
    registry.restart();
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    let message = wait_for_reason(&machine, "c", "ErrImagePull");
    assert!(message.contains("has no image tool:latest"), "{message}");
}

#[test]
fn a_pod_waits_for_its_image_to_be_pushed() {
    let machine = Machine::bare();
    let registry = Registry::start(&machine.path("registry"));
    let image = format!("{}/tool:1", registry.host);
    let spec = json!({"containers": [of("c", &image), of("bad", "UPPER")]});
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    let message = wait_for_reason(&machine, "c", "ErrImagePull");
    assert!(
        message.contains("has no image tool:1: manifest unknown"),
        "{message}"
    );
    let shown = row(&machine);
    assert!(
        ["ErrImagePull", "ImagePullBackOff"].contains(&shown[2].as_str()),
        "{shown:?}"
    );
    let later = wait_for_reason(&machine, "c", "ImagePullBackOff");
    assert_eq!(
        later,
        format!("Back-off pulling image \"{image}\": ErrImagePull: {message}")
    );
    let bad = wait_for_reason(&machine, "bad", "InvalidImageName");
    assert_eq!(
        bad,
        "Failed to apply default image tag \"UPPER\": couldn't parse image name \"UPPER\": a \
         repository's name must be in lower case"
    );
    let page = machine.orlop(["describe", "pod", "web"]).ok();
    for event in [
        &format!("Failed to pull image \"{image}\": {message}"),
        "Error: ErrImagePull",
        &format!("Back-off pulling image \"{image}\""),
        "Error: ImagePullBackOff",
        "InspectFailed",
        "Error: InvalidImageName",
    ] {
        assert!(page.contains(event), "{event}\n{page}");
    }
    registry.push("tool:1", &busybox());
    machine.wait_for("web", |pod| status(pod, "c")["ready"] == true);
}

#[test]
fn an_image_from_a_file_is_never_asked_for() {
    let machine = Machine::bare();
    let server = Server::start(|_| Reply::new(404, ""));
    let image = format!("{}/tool:latest", server.host);
    let file = machine.path("busybox.tar");
    fs::write(&file, busybox_archive()).expect("write");
    machine.orlop(["image", "import", path(&file), &image]).ok();
    machine.run_pod(&pod(&json!({"containers": [of("c", &image)]})));
    let page = machine.orlop(["describe", "pod", "web"]).ok();
    let present = format!("Container image \"{image}\" already present on machine");
    assert!(page.contains(&present), "{page}");
    assert_eq!(server.seen().len(), 0);
}

/// A registry that never gives away more than the manifest of its image.
fn hanging() -> Server {
    let image = busybox();
    Server::start(move |request| {
        if request.path.contains(&image.layers[0]) {
            std::thread::sleep(LIMIT);
        }
        serve(&image, request)
    })
}

#[test]
fn a_pull_ends_with_the_pod_that_wanted_it() {
    let machine = Machine::bare();
    let server = hanging();
    let image = format!("{}/tool:1", server.host);
    let spec = json!({"containers": [of("c", &image)]});
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    wait_for_puller(&machine);
    assert_eq!(row(&machine)[2], "ContainerCreating");

    // Nor does it outlive the keeper: the next one begins it anew.
    let before = pullers(&machine);
    for pid in machine.keepers() {
        let keeper = pidfd::open(pid).expect("pidfd");
        pidfd::send_signal(&keeper, 9).expect("kill");
    }
    let start = Instant::now();
    loop {
        let now = pullers(&machine);
        if !now.is_empty() && now != before {
            assert_eq!(now.len(), 1, "{now:?}");
            break;
        }
        assert!(start.elapsed() < LIMIT, "nobody pulls anew");
        machine.orlop(["get", "pods"]).ok();
    }
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    assert_eq!(pullers(&machine), [0; 0]);
    machine.assert_nothing_is_left();
}

#[test]
fn a_pull_ends_when_another_image_is_wanted() {
    let machine = Machine::new();
    let server = hanging();
    let image = format!("{}/tool:1", server.host);
    let spec = json!({"containers": [of("c", &image)]});
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    wait_for_puller(&machine);
    let changed = with(
        of("c", "busybox"),
        &json!({"imagePullPolicy": "IfNotPresent"}),
    );
    machine.run_pod(&pod(&json!({"containers": [changed]})));
    assert_eq!(pullers(&machine), [0; 0]);
    assert_eq!(row(&machine)[1..4], ["1/1", "Running", "0"]);
}

#[test]
fn pods_that_want_one_image_download_it_once() {
    let machine = Machine::bare();
    let image = busybox();
    let layer = image.layers[0].clone();
    let server = Server::start(move |request| {
        if request.path.contains("/blobs/") {
            std::thread::sleep(Duration::from_millis(500));
        }
        serve(&image, request)
    });
    let name = format!("{}/tool:1", server.host);
    let pods: Vec<String> = ["one", "two", "three"]
        .into_iter()
        .map(|pod| {
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod},
                "spec": {"containers": [of("c", &name)]},
            })
            .to_string()
        })
        .collect();
    machine.run_pod(&pods.join("\n---\n"));
    assert_eq!(server.count(&layer), 1);
}

#[test]
fn without_the_program_that_pulls_the_pod_says_so() {
    let machine = Machine::bare();
    // Links beside the programs: the shim looks for `orlop` where it lies itself.
    let orlop = std::path::Path::new(env!("CARGO_BIN_EXE_orlop"));
    let shim = orlop.with_file_name("containerd-shim-orlop-v2");
    let parent = orlop.parent().expect("a directory");
    let place = tempfile::tempdir_in(parent).expect("directory");
    fs::hard_link(orlop, place.path().join("other")).expect("link");
    fs::hard_link(shim, place.path().join("containerd-shim-orlop-v2")).expect("link");
    let file = machine.path("pod.json");
    fs::write(
        &file,
        pod(&json!({"containers": [of("c", "localhost:1/tool:1")]})),
    )
    .expect("write");
    let mut command = machine.command(["apply", "-f", path(&file)]);
    let mut other = std::process::Command::new(place.path().join("other"));
    other.arg0("orlop").args(command.get_args());
    for (key, value) in command.get_envs() {
        other.env(key, value.unwrap_or_default());
    }
    command = other;
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    finish(command).ok();
    let message = wait_for_reason(&machine, "c", "ErrImagePull");
    let missing = place.path().join("orlop");
    assert!(
        message.contains(&format!("cannot execute {missing:?}")),
        "{message}"
    );
    assert!(
        message.contains("install it beside containerd-shim-orlop-v2"),
        "{message}"
    );
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
}

#[test]
fn a_pod_brings_along_what_the_registry_wants() {
    let machine = Machine::bare();
    let registry = Registry::with_password(&machine.path("registry"));
    registry.push("tool:1", &busybox());
    let mut pod: serde_json::Value = serde_json::from_str(&pod(&json!({
        "containers": [of("c", &format!("{}/tool:1", registry.host))],
        "imagePullSecrets": [{"name": "login"}],
    })))
    .expect("JSON");
    let file = machine.path("pod.json");
    fs::write(&file, pod.to_string()).expect("write");
    machine.orlop(["apply", "-f", path(&file)]).ok();
    wait_for_reason(&machine, "c", "ErrImagePull");
    let page = machine.orlop(["describe", "pod", "web"]).ok();
    let missing = "Unable to retrieve some image pull secrets (login); attempting to pull the image may not succeed.";
    assert!(page.contains(missing), "{page}");
    machine.orlop(["delete", "pod", "web", "--now"]).ok();

    let login =
        json!({"auths": {(registry.host.clone()): {"username": USER, "password": PASSWORD}}});
    pod["metadata"]["name"] = json!("web");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"},
        "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": login.to_string()},
    });
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [secret, pod]});
    fs::write(&file, both.to_string()).expect("write");
    machine.orlop(["apply", "--wait", "-f", path(&file)]).ok();
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
}

#[test]
fn the_image_of_a_volume_is_pulled_too() {
    let machine = Machine::new();
    let registry = Registry::start(&machine.path("registry"));
    let image = format!("{}/files:1", registry.host);
    let spec = json!({
        "containers": [with(idle("c"), &json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))],
        "volumes": [{"name": "v", "image": {"reference": image}}],
    });
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    let page = until(&machine, &["describe", "pod", "web"], |page| {
        page.contains("MountVolume.SetUp failed for volume \"v\" : ErrImagePull: ")
    });
    assert!(
        page.contains(&format!("Failed to pull image \"{image}\"")),
        "{page}"
    );
    assert_eq!(row(&machine)[1..4], ["0/1", "ContainerCreating", "0"]);
    registry.push(
        "files:1",
        &Image::new(&[Layer::new().file("one", "first").finish()], gzip),
    );
    machine.wait_for("web", |pod| pod["status"]["phase"] == "Running");
    assert_eq!(machine.sh("web", "c", "cat /v/one"), "first");
    let page = machine.orlop(["describe", "pod", "web"]).ok();
    let pulled = format!("Successfully pulled image \"{image}\" in ");
    assert!(page.contains(&pulled), "{page}");
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_pull_for_a_volume_ends_with_the_pod_that_wanted_it() {
    let machine = Machine::new();
    let server = hanging();
    let image = format!("{}/files:1", server.host);
    let spec = json!({
        "containers": [idle("c")],
        "volumes": [{"name": "v", "image": {"reference": image}}],
    });
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    wait_for_puller(&machine);
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    assert_eq!(pullers(&machine), [0; 0]);
    machine.assert_nothing_is_left();
}

#[test]
fn the_manifest_of_an_image_in_a_registry_runs_as_it_stands() {
    let machine = Machine::bare();
    let registry = Registry::start(&machine.path("registry"));
    registry.push("shop/web:1.0", &busybox());
    let hosts = machine.path("hosts/registry.example.org");
    fs::create_dir_all(&hosts).expect("directory");
    let mirror = format!("[host.\"http://{}\"]\n", registry.host);
    fs::write(hosts.join("hosts.toml"), mirror).expect("write");
    let command = machine.command([
        "apply",
        "--wait",
        "-f",
        concat!(env!("CARGO_MANIFEST_DIR"), "/specs/image-pull.yaml"),
    ]);
    finish(command).ok();
    assert_eq!(machine.orlop(["logs", "image-pull"]).ok(), "pulled\n");
    let page = machine.orlop(["describe", "pod", "image-pull"]).ok();
    let pulled = "Successfully pulled image \"registry.example.org/shop/web:1.0\" in ";
    assert!(page.contains(pulled), "{page}");
    machine.orlop(["delete", "pod", "image-pull", "--now"]).ok();
}
