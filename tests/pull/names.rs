//! What is pulled: tags, digests, platforms, mirrors; and what is not.

use std::time::{Duration, Instant};

use crate::common::http::{Reply, Server};
use crate::common::registry::{Image, Registry, architecture, digest_of, gzip, index, serve};
use crate::common::{Machine, path};
use crate::support::{assert_nothing, file_layer, images, layer, pull};

#[test]
fn an_image_is_pulled_by_its_tag_and_again_only_when_the_tag_has_moved() {
    let machine = Machine::bare();
    let registry = Registry::start(&machine.path("registry"));
    let shared = file_layer("a", "shared");
    let first = Image::new(&[shared.clone(), file_layer("b", "1")], gzip);
    let name = registry.push("team/tool:1.0", &first);
    let outcome = pull(&machine, &[&name]);
    let lines = outcome.stderr.clone();
    let said = outcome.ok();
    assert!(
        said.starts_with(&format!("image/{name} pulled (sha256:")),
        "{said}"
    );
    assert!(said.ends_with(", 2 layers, 7 B)\n"), "{said}");
    let short = &first.layers[0][7..19];
    assert!(
        lines.contains(&format!("layer 1/2 {short}: downloading")),
        "{lines}"
    );
    assert!(
        lines.contains(&format!("layer 1/2 {short}: done")),
        "{lines}"
    );

    let again = pull(&machine, &[&name]).ok();
    assert!(
        again.starts_with(&format!("image/{name} is up to date (")),
        "{again}"
    );

    // The next version shares a layer: that one is not downloaded again.
    let second = Image::new(&[shared, file_layer("b", "2")], gzip);
    registry.push("team/tool:1.0", &second);
    let outcome = pull(&machine, &[&name, "--quiet"]);
    assert_eq!(outcome.stderr, "");
    let id = outcome.ok();
    let listed = images(&machine);
    assert_eq!(listed.len(), 1, "the former is gone: {listed:?}");
    assert_eq!(listed[0]["id"], id.trim_end());
    assert_eq!(listed[0]["digest"], second.digest());

    let table = machine.orlop(["image", "ls", "--digests"]).ok();
    let row = table.lines().nth(1).expect("a row");
    let words: Vec<&str> = row.split_whitespace().collect();
    let (repository, tag) = name.rsplit_once(':').expect("a tag");
    assert_eq!(words[..3], [repository, tag, &second.digest()], "{table}");
    machine.orlop(["image", "rm", &name]).ok();
    assert_nothing(&machine);
}

#[test]
fn a_layer_that_is_there_is_not_downloaded_again() {
    let machine = Machine::bare();
    let (one, two) = (file_layer("a", "1"), file_layer("b", "2"));
    let small = Image::new(std::slice::from_ref(&one), gzip);
    let large = Image::new(&[one, two], gzip);
    let (before, after) = (small.clone(), large.clone());
    let server = Server::start(move |request| match request.path.contains("/small/") {
        true => serve(&before, request),
        false => serve(&after, request),
    });
    pull(&machine, &[&format!("{}/small:1", server.host)]).ok();
    let said = pull(&machine, &[&format!("{}/large:1", server.host)]);
    assert!(said.stderr.contains("already here"), "{}", said.stderr);
    said.ok();
    assert_eq!(server.count(&small.layers[0]), 1);
    assert_eq!(server.count(&large.layers[1]), 1);
}

#[test]
fn a_digest_is_pulled_whatever_the_tag_beside_it_says() {
    let machine = Machine::bare();
    let registry = Registry::start(&machine.path("registry"));
    let (old, new) = (
        Image::new(&[file_layer("a", "old")], gzip),
        Image::new(&[file_layer("a", "new")], gzip),
    );
    registry.push("tool:1", &old);
    let name = registry.push("tool:1", &new);
    let pinned = format!("{name}@{}", old.digest());
    pull(&machine, &[&pinned]).ok();
    let by_digest = format!("{}/tool@{}", registry.host, old.digest());
    let listed = images(&machine);
    assert_eq!(listed[0]["names"], serde_json::json!([by_digest]));
    // All content is known by now: nobody needs to be asked.
    drop(registry);
    for name in [&pinned, &by_digest] {
        let said = pull(&machine, &[name]).ok();
        assert!(said.contains("is up to date"), "{said}");
    }
    let table = machine.orlop(["image", "ls"]).ok();
    assert!(table.contains("<none>"), "{table}");
    machine.orlop(["image", "rm", &by_digest]).ok();
    assert_nothing(&machine);
}

#[test]
fn of_an_index_the_image_for_the_platform_is_taken() {
    let machine = Machine::bare();
    let registry = Registry::start(&machine.path("registry"));
    let build = |architecture: &str, comment: &str| {
        let tar = file_layer("arch", comment);
        (
            Image::of(std::slice::from_ref(&tar), gzip, architecture, comment),
            tar,
        )
    };
    let (ours, our_tar) = build(&architecture(), "ours");
    let (v6, _) = build("arm", "v6");
    let (v7, v7_tar) = build("arm", "v7");
    let here = format!("linux/{}", architecture());
    let all = [
        ("linux/arm/v6", &v6),
        ("linux/arm/v7", &v7),
        ("unknown/unknown", &v6),
        (here.as_str(), &ours),
    ];
    let name = registry.push_index("multi:latest", &all);
    pull(&machine, &[&name]).ok();
    assert!(layer(&machine, &our_tar).join("arch").exists());
    let listed = images(&machine);
    assert_eq!(listed[0]["digest"], digest_of(&index(&all)));
    assert_eq!(listed[0]["manifest"], ours.digest());

    pull(&machine, &[&name, "--platform", "linux/arm/v7"]).ok();
    assert!(layer(&machine, &v7_tar).join("arch").exists());
    // The name means the other one now, whose index has the same digest.
    let said = pull(&machine, &[&name]).ok();
    assert!(said.contains(" pulled ("), "{said}");
    assert_eq!(images(&machine)[0]["manifest"], ours.digest());

    let refused = pull(&machine, &[&name, "--platform", "linux/s390x"]).refused();
    let have = format!("it has linux/arm/v6, linux/arm/v7, {here}");
    let have = match architecture().as_str() < "arm" {
        true => format!("it has {here}, linux/arm/v6, linux/arm/v7"),
        false => have,
    };
    assert!(
        refused.contains("has no variant for linux/s390x"),
        "{refused}"
    );
    assert!(refused.contains(&have), "{refused}");
    let refused = pull(&machine, &[&name, "--platform", "arm64"]).refused();
    assert!(refused.contains("\"arm64\" is not a platform"), "{refused}");
}

#[test]
fn what_is_missing_is_said_in_one_sentence() {
    let machine = Machine::bare();
    let registry = Registry::start(&machine.path("registry"));
    let missing = format!("{}/nothing:1", registry.host);
    let refused = pull(&machine, &[&missing]).refused();
    assert_eq!(
        refused,
        format!(
            "error: cannot pull image \"{missing}\": registry {} has no image nothing:1: \
             manifest unknown\n",
            registry.host
        )
    );
    let refused = pull(&machine, &["UPPER"]).refused();
    assert!(
        refused.contains("\"UPPER\" is not an image reference"),
        "{refused}"
    );
    assert_nothing(&machine);
}

#[test]
fn a_registry_that_is_not_there_is_no_long_wait() {
    let machine = Machine::bare();
    // Nobody listens where somebody has just stopped.
    let mut registry = Registry::start(&machine.path("registry"));
    registry.stop();
    let start = Instant::now();
    let name = format!("{}/tool:1", registry.host);
    let refused = pull(&machine, &[&name]).refused();
    assert!(
        refused.contains("does not answer: Connection refused"),
        "{refused}"
    );
    assert!(
        refused.contains(&format!("orlop image import FILE {name}")),
        "{refused}"
    );
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn mirrors_are_asked_before_the_registry() {
    let machine = Machine::bare();
    let image = Image::new(&[file_layer("a", "mirrored")], gzip);
    let served = image.clone();
    let mirror = Server::start(move |request| match request.path.contains("/absent/") {
        true => Reply::new(404, ""),
        false => serve(&served, request),
    });
    let registry = Registry::start(&machine.path("registry"));
    let hosts = |registry: &str, text: &str| {
        let directory = machine.path("hosts").join(registry);
        std::fs::create_dir_all(&directory).expect("directory");
        std::fs::write(directory.join("hosts.toml"), text).expect("write");
    };
    let mirrored = format!(
        "[host.\"http://{}/v2/prefix\"]\noverride_path = true\ncapabilities = [\"pull\", \"resolve\"]\n",
        mirror.host
    );
    hosts("registry.example.org", &mirrored);
    pull(&machine, &["registry.example.org/team/tool:1"]).ok();
    let names = &images(&machine)[0]["names"];
    assert_eq!(
        *names,
        serde_json::json!(["registry.example.org/team/tool:1"])
    );
    let asked = mirror.seen();
    assert!(
        asked
            .iter()
            .any(|request| request.path
                == "/v2/prefix/team/tool/manifests/1?ns=registry.example.org"),
        "{asked:?}"
    );

    // What the mirror does not have comes from the registry itself.
    let other = Image::new(&[file_layer("b", "registry")], gzip);
    let name = registry.push("absent:1", &other);
    hosts(
        &registry.host,
        &mirrored
            .replace("/v2/prefix", "")
            .replace("override_path = true", ""),
    );
    pull(&machine, &[&name]).ok();
    assert!(mirror.count("/v2/absent/manifests/1?ns=") > 0);

    hosts("_default", "[host.\"https://x\".header]\na = \"b\"");
    let refused = pull(&machine, &["other.example.org/tool"]).refused();
    let file = machine.path("hosts/_default/hosts.toml");
    assert!(refused.contains(path(&file)), "{refused}");
    assert!(
        refused.contains("host.\"https://x\".header: this version"),
        "{refused}"
    );
}

#[test]
fn tls_is_believed_when_somebody_vouches_for_it() {
    let machine = Machine::bare();
    let directory = machine.path("registry");
    let image = Image::new(&[file_layer("a", "a")], gzip);
    Registry::start(&directory).push("tool:1", &image);
    let certificate = machine.path("ca.pem");
    let registry = Registry::with_tls(&directory, &certificate);
    let name = format!("{}/tool:1", registry.host);
    let hosts = machine.path("hosts").join(&registry.host);
    std::fs::create_dir_all(&hosts).expect("directory");
    let server = format!("server = \"https://{}\"\n", registry.host);
    let configure = |more: &str| {
        std::fs::write(hosts.join("hosts.toml"), format!("{server}{more}")).expect("write");
    };
    configure("");
    let refused = pull(&machine, &[&name]).refused();
    assert!(refused.contains("certificate"), "{refused}");
    for vouched in [
        format!("ca = {certificate:?}"),
        "skip_verify = true".to_owned(),
    ] {
        configure(&vouched);
        pull(&machine, &[&name]).ok();
        machine.orlop(["image", "rm", &name]).ok();
    }
    assert_nothing(&machine);
}
