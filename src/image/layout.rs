//! Which images an archive holds, and where their parts lie in it.
//!
//! Two layouts are read: the OCI image layout (image-spec `image-layout.md`),
//! and the one of `docker save` (Docker image specification v1.2). Every
//! document is checked against its digest before it is believed.

use std::collections::HashMap;
use std::path::Path;

use oci_spec::image::{
    Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os, ToDockerV2S2,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::archive::Archive;
use super::config::platform;
use super::reference::Reference;
use super::{ImageError, digest};

/// How deeply indexes may nest in indexes.
const DEEPEST_INDEX: usize = 4;
/// The most layers that overlayfs stacks (kernel: `OVL_MAX_STACK`).
const MOST_LAYERS: usize = 500;

const IMAGE_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// One image of an archive, read but not unpacked.
#[derive(Debug)]
pub(super) struct Plan {
    /// The names that the archive gives it.
    pub names: Vec<Reference>,
    /// The digest by which registries know it: of its index or its manifest.
    pub digest: Option<String>,
    /// The manifest's digest and text.
    pub manifest: Option<(String, Vec<u8>)>,
    /// The configuration's digest, which is the image's ID.
    pub id: String,
    /// The configuration's text.
    pub config: Vec<u8>,
    /// The configuration.
    pub configuration: ImageConfiguration,
    /// The layers, the lowest first.
    pub layers: Vec<LayerPlan>,
}

/// One layer of an archive.
#[derive(Debug)]
pub(super) struct LayerPlan {
    /// The digest of its uncompressed content.
    pub diff_id: String,
    /// The archive's member that holds it.
    pub member: String,
    /// The digest of the member, where one is known.
    pub digest: Option<String>,
}

/// One image in the `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The images of an archive; none when it is a bare root file system.
pub(super) fn plans(archive: &Archive) -> Result<Option<Vec<Plan>>, ImageError> {
    if archive.has("oci-layout") && archive.has("index.json") {
        return oci(archive).map(Some);
    }
    if archive.has("manifest.json") {
        let text = archive.document("manifest.json")?;
        // A root file system may have a file of this name, too.
        if let Ok(images) = serde_json::from_slice::<Vec<DockerImage>>(&text)
            && !images.is_empty()
        {
            return images
                .iter()
                .map(|image| docker(archive, image))
                .collect::<Result<_, _>>()
                .map(Some);
        }
    }
    Ok(None)
}

fn oci(archive: &Archive) -> Result<Vec<Plan>, ImageError> {
    let index: ImageIndex = parse(archive, "index.json", &archive.document("index.json")?)?;
    let mut plans: Vec<Plan> = Vec::new();
    let mut others = Vec::new();
    for descriptor in index.manifests() {
        let Some(manifest) = select(archive, descriptor, 0, &mut others)? else {
            continue;
        };
        let names = names(archive, descriptor)?;
        let known = |plan: &&mut Plan| {
            plan.manifest
                .as_ref()
                .is_some_and(|(digest, _)| *digest == manifest.digest().to_string())
        };
        if let Some(plan) = plans.iter_mut().find(known) {
            plan.names.extend(names);
            continue;
        }
        let Some(plan) = oci_image(archive, descriptor, &manifest, names, &mut others)? else {
            continue;
        };
        plans.push(plan);
    }
    if plans.is_empty() {
        others.sort();
        others.dedup();
        let found = match others.is_empty() {
            true => "none at all".to_owned(),
            false => others.join(", "),
        };
        return Err(ImageError::Platform {
            archive: archive.path().to_owned(),
            wanted: platform(),
            found,
        });
    }
    Ok(plans)
}

/// The manifest for this machine that a descriptor leads to.
fn select(
    archive: &Archive,
    descriptor: &Descriptor,
    depth: usize,
    others: &mut Vec<String>,
) -> Result<Option<Descriptor>, ImageError> {
    if let Some(platform) = descriptor.platform() {
        let (os, architecture) = (platform.os(), platform.architecture());
        if *os != Os::Linux || *architecture != Arch::default() {
            others.push(format!("{os}/{architecture}"));
            return Ok(None);
        }
    }
    if !is(descriptor.media_type(), &MediaType::ImageIndex) {
        return match is(descriptor.media_type(), &MediaType::ImageManifest) {
            true => Ok(Some(descriptor.clone())),
            false => {
                others.push(descriptor.media_type().to_string());
                Ok(None)
            }
        };
    }
    let (name, text) = blob(archive, descriptor)?;
    if depth == DEEPEST_INDEX {
        return Err(archive.damaged(&name, "nests indexes too deeply"));
    }
    let index: ImageIndex = parse(archive, &name, &text)?;
    for inner in index.manifests() {
        if let Some(found) = select(archive, inner, depth + 1, others)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn oci_image(
    archive: &Archive,
    top: &Descriptor,
    descriptor: &Descriptor,
    names: Vec<Reference>,
    others: &mut Vec<String>,
) -> Result<Option<Plan>, ImageError> {
    let (name, text) = blob(archive, descriptor)?;
    let manifest: ImageManifest = parse(archive, &name, &text)?;
    let config = manifest.config();
    if !is(config.media_type(), &MediaType::ImageConfig) {
        others.push(format!("an artifact of type {}", config.media_type()));
        return Ok(None);
    }
    let (config_name, config_text) = blob(archive, config)?;
    let configuration: ImageConfiguration = parse(archive, &config_name, &config_text)?;
    if *configuration.os() != Os::Linux || *configuration.architecture() != Arch::default() {
        let (os, architecture) = (configuration.os(), configuration.architecture());
        others.push(format!("{os}/{architecture}"));
        return Ok(None);
    }
    let mut members = Vec::new();
    for layer in manifest.layers() {
        let digest = layer.digest().to_string();
        if !is_layer(layer.media_type()) {
            let reason = format!("has a layer of unknown type {}", layer.media_type());
            return Err(archive.damaged(&name, reason));
        }
        members.push((member(archive, &digest)?, Some(digest)));
    }
    Ok(Some(Plan {
        names,
        digest: Some(top.digest().to_string()),
        manifest: Some((descriptor.digest().to_string(), text)),
        id: config.digest().to_string(),
        layers: layers(archive, &config_name, &configuration, members)?,
        config: config_text,
        configuration,
    }))
}

fn docker(archive: &Archive, image: &DockerImage) -> Result<Plan, ImageError> {
    let config = archive.document(&image.config)?;
    let id = digest::of(&config);
    if let Some(expected) = stated(&image.config) {
        same(archive, &image.config, expected, &id)?;
    }
    let configuration: ImageConfiguration = parse(archive, &image.config, &config)?;
    if *configuration.os() != Os::Linux || *configuration.architecture() != Arch::default() {
        return Err(ImageError::Platform {
            archive: archive.path().to_owned(),
            wanted: platform(),
            found: format!("{}/{}", configuration.os(), configuration.architecture()),
        });
    }
    let names = image.repo_tags.iter().flatten();
    let members = image
        .layers
        .iter()
        .map(|member| (member.clone(), stated(member)))
        .collect();
    Ok(Plan {
        names: names
            .map(|name| name.parse::<Reference>())
            .collect::<Result<_, _>>()?,
        digest: None,
        manifest: None,
        layers: layers(archive, &image.config, &configuration, members)?,
        id,
        config,
        configuration,
    })
}

/// The digest that a member of a docker archive states by its name, if it does.
fn stated(member: &str) -> Option<String> {
    let hex = match member.strip_prefix("blobs/sha256/") {
        Some(hex) => hex,
        None => member.strip_suffix(".json")?,
    };
    let stated = format!("sha256:{hex}");
    digest::hex(&stated).is_some().then_some(stated)
}

/// Puts the configuration's diffIDs and the archive's layers side by side.
fn layers(
    archive: &Archive,
    config_name: &str,
    configuration: &ImageConfiguration,
    members: Vec<(String, Option<String>)>,
) -> Result<Vec<LayerPlan>, ImageError> {
    let diff_ids = diff_ids(configuration, members.len())
        .map_err(|reason| archive.damaged(config_name, reason))?;
    Ok(diff_ids
        .iter()
        .zip(members)
        .map(|(diff_id, (member, digest))| LayerPlan {
            diff_id: diff_id.clone(),
            member,
            digest,
        })
        .collect())
}

/// The diffIDs of an image that has this many layers.
///
/// # Errors
/// A text that says what is wrong with the configuration.
pub(super) fn diff_ids(
    configuration: &ImageConfiguration,
    there: usize,
) -> Result<&Vec<String>, String> {
    let diff_ids = configuration.rootfs().diff_ids();
    let announced = diff_ids.len();
    if announced != there {
        return Err(format!(
            "announces {announced} layers, but the image has {there}"
        ));
    }
    if announced == 0 {
        return Err("describes an image without layers".to_owned());
    }
    if announced > MOST_LAYERS {
        return Err(format!(
            "has {announced} layers; the kernel stacks {MOST_LAYERS}"
        ));
    }
    match diff_ids.iter().find(|id| digest::hex(id).is_none()) {
        Some(bad) => Err(format!("has {bad:?} for a layer's digest")),
        None => Ok(diff_ids),
    }
}

/// The names that an index gives an image. A `ref.name` without colon and
/// slash is a tag alone, as the specification has it, and so no name.
fn names(archive: &Archive, descriptor: &Descriptor) -> Result<Vec<Reference>, ImageError> {
    let empty = HashMap::new();
    let annotations = descriptor.annotations().as_ref().unwrap_or(&empty);
    let name = annotations.get(IMAGE_NAME).or_else(|| {
        annotations
            .get(REF_NAME)
            .filter(|name| name.contains([':', '/']))
    });
    let Some(name) = name else {
        return Ok(Vec::new());
    };
    match name.parse::<Reference>() {
        Ok(name) if name.digest().is_some() => Ok(Vec::new()),
        Ok(name) => Ok(vec![name]),
        Err(error) => Err(archive.damaged("index.json", format!("names an image badly: {error}"))),
    }
}

/// Whether a media type is this one of the OCI's, or docker's for the same.
pub(super) fn is(found: &MediaType, wanted: &MediaType) -> bool {
    let docker = wanted.to_docker_v2s2().ok();
    found == wanted || docker.is_some_and(|docker| found.as_ref() == docker)
}

/// Whether a media type is that of a layer that can be read.
pub(super) fn is_layer(found: &MediaType) -> bool {
    let kind = found.as_ref();
    let known = kind.starts_with("application/vnd.oci.image.layer.")
        || kind.starts_with("application/vnd.docker.image.rootfs.");
    known && !kind.ends_with("+encrypted")
}

/// The member that holds a blob.
fn member(archive: &Archive, digest: &str) -> Result<String, ImageError> {
    match digest::hex(digest) {
        Some(hex) => Ok(format!("blobs/sha256/{hex}")),
        None => Err(archive.damaged(
            "index.json",
            format!("names a blob {digest:?}; only sha256 digests are read"),
        )),
    }
}

/// A document's name in the archive and its text, once its digest was seen to fit.
fn blob(archive: &Archive, descriptor: &Descriptor) -> Result<(String, Vec<u8>), ImageError> {
    let expected = descriptor.digest().to_string();
    let name = member(archive, &expected)?;
    let text = archive.document(&name)?;
    same(archive, &name, expected, &digest::of(&text))?;
    Ok((name, text))
}

fn same(archive: &Archive, what: &str, expected: String, actual: &str) -> Result<(), ImageError> {
    match expected == actual {
        true => Ok(()),
        false => Err(ImageError::Digest {
            archive: archive.path().to_owned(),
            what: what.to_owned(),
            expected,
            actual: actual.to_owned(),
        }),
    }
}

fn parse<T: DeserializeOwned>(archive: &Archive, what: &str, text: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(text).map_err(|source| ImageError::Json {
        archive: Path::to_owned(archive.path()),
        what: what.to_owned(),
        source,
    })
}
