//! Registries that lie. Nothing of what they send becomes an image.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::Machine;
use crate::common::http::{Reply, Request, Server};
use crate::common::registry::{Image, MANIFEST, digest_of, gzip, offset, serve};
use crate::support::{assert_nothing, file_layer, large_layer, pull};

fn image() -> Image {
    Image::new(&[file_layer("a", "content")], gzip)
}

/// Pulls from a registry that answers some requests in its own way.
#[track_caller]
fn refusal(
    image: Image,
    lie: impl Fn(&Image, &Request) -> Option<Reply> + Send + Sync + 'static,
) -> String {
    let machine = Machine::bare();
    let server = Server::start(move |request| {
        lie(&image, request).unwrap_or_else(|| serve(&image, request))
    });
    let refused = pull(&machine, &[&format!("{}/tool:1", server.host)]).refused();
    assert_nothing(&machine);
    refused
}

fn is_layer(image: &Image, request: &Request) -> bool {
    request.path.contains(&image.layers[0])
}

#[test]
fn content_with_another_digest_is_refused() {
    let forged = refusal(image(), |image, request| {
        let mut content = image.blobs[&image.layers[0]].clone();
        // The time in gzip's header: it unpacks as well as before.
        content[4] ^= 1;
        is_layer(image, request).then(|| Reply::new(200, content))
    });
    assert!(
        forged.contains("layer 1 of 1 is damaged or forged: its digest is sha256:"),
        "{forged}"
    );

    let forged = refusal(image(), |image, request| {
        let config = image.blobs.keys().find(|one| **one != image.layers[0])?;
        let content = vec![b'{'; image.blobs[config].len()];
        request
            .path
            .contains(config)
            .then(|| Reply::new(200, content))
    });
    assert!(forged.contains("is damaged or forged"), "{forged}");

    // The layer's own digest is right, that of its content is not.
    let mut wrong = image();
    let (digest, config) = wrong
        .blobs
        .iter()
        .find(|(digest, _)| **digest != wrong.layers[0])
        .map(|(digest, config)| (digest.clone(), config.clone()))
        .expect("a configuration");
    let text = String::from_utf8(config).expect("text");
    let diff_id = digest_of(&file_layer("a", "content"));
    let text = text.replace(&diff_id, &digest_of(b"other"));
    let changed = digest_of(text.as_bytes());
    wrong.blobs.insert(changed.clone(), text.into_bytes());
    let wrong = wrong.with_manifest(|manifest| {
        assert_eq!(manifest["config"]["digest"], digest);
        manifest["config"]["digest"] = changed.into();
    });
    let forged = refusal(wrong, |_, _| None);
    assert!(
        forged.contains("the content of layer 1 of 1 is damaged or forged"),
        "{forged}"
    );
}

#[test]
fn a_manifest_asked_for_by_digest_must_have_it() {
    let machine = Machine::bare();
    let other = image();
    let wanted = digest_of(b"what was asked for");
    let server = Server::start(move |request| serve(&other, request));
    let refused = pull(&machine, &[&format!("{}/tool@{wanted}", server.host)]).refused();
    assert!(refused.contains("is damaged or forged"), "{refused}");
    assert!(refused.contains(&format!("not {wanted}")), "{refused}");
    assert_nothing(&machine);
}

#[test]
fn sizes_must_be_those_of_the_descriptors() {
    let longer = refusal(image(), |image, request| {
        let mut content = image.blobs[&image.layers[0]].clone();
        content.push(0);
        is_layer(image, request).then(|| Reply::new(200, content))
    });
    assert!(
        longer.contains("as its descriptor says, but registry"),
        "{longer}"
    );

    // Whoever announces too much never sends it.
    let announced = refusal(image(), |image, request| {
        let content = image.blobs[&image.layers[0]].clone();
        is_layer(image, request).then(|| Reply {
            announced: Some(1 << 40),
            ..Reply::new(200, content)
        })
    });
    assert!(announced.contains("sends 1099511627776"), "{announced}");

    // Without a length the stream itself is measured, and not read for ever.
    let endless = refusal(image(), |image, request| {
        is_layer(image, request).then(|| Reply {
            unannounced: true,
            ..Reply::new(200, vec![0; 8 << 20])
        })
    });
    assert!(endless.contains("sends more"), "{endless}");

    let manifest = refusal(image(), |_, request| {
        let endless = Reply {
            unannounced: true,
            ..Reply::new(200, vec![b' '; 9 << 20])
        };
        request
            .path
            .contains("/manifests/")
            .then(|| endless.header("Content-Type", MANIFEST))
    });
    assert!(manifest.contains("is larger than 8 MiB"), "{manifest}");

    let huge = image().with_manifest(|manifest| manifest["config"]["size"] = (1_u64 << 40).into());
    let huge = refusal(huge, |_, _| None);
    assert!(huge.contains("is larger than 8 MiB"), "{huge}");
}

#[test]
fn a_document_that_is_index_and_image_at_once_is_refused() {
    let both = image().with_manifest(|manifest| manifest["manifests"] = serde_json::json!([]));
    let refused = refusal(both, |_, _| None);
    assert!(
        refused.contains("claims to be an index and an image at once"),
        "{refused}"
    );
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_server() {
    let machine = Machine::bare();
    let image = image();
    let (here, there) = (image.clone(), image);
    let storage = Server::start(move |request| serve(&there, request));
    let target = storage.host.clone();
    let registry = Server::start(move |request| {
        if !request.headers.contains_key("authorization") {
            return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        match is_layer(&here, request) {
            true => {
                Reply::new(307, "").header("Location", &format!("http://{target}{}", request.path))
            }
            false => serve(&here, request),
        }
    });
    let auths =
        serde_json::json!({"auths": {(registry.host.clone()): {"username": "u", "password": "p"}}});
    crate::support::docker_config(&machine, &auths);
    pull(&machine, &[&format!("{}/tool:1", registry.host)]).ok();
    let asked = storage.seen();
    assert_eq!(asked.len(), 1);
    assert!(!asked[0].headers.contains_key("authorization"), "{asked:?}");
}

#[test]
fn a_body_that_breaks_off_is_asked_for_from_there() {
    let machine = Machine::bare();
    let image = Image::new(&[large_layer(1 << 20)], gzip);
    let (name, served, calls) = (
        image.layers[0].clone(),
        image,
        Arc::new(AtomicUsize::new(0)),
    );
    let server = Server::start(move |request| {
        let mut reply = serve(&served, request);
        if is_layer(&served, request) && calls.fetch_add(1, Ordering::SeqCst) < 3 {
            reply.cut = Some(300_000);
        }
        reply
    });
    pull(&machine, &[&format!("{}/tool:1", server.host)]).ok();
    let asked = server.seen();
    let from: Vec<_> = asked
        .iter()
        .filter(|request| request.path.contains(&name))
        .map(offset)
        .collect();
    assert_eq!(from, [Some(0), Some(300_000), Some(600_000), Some(900_000)]);
}
