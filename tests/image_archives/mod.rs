//! Building image archives for tests, good ones and spoilt ones.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::Write;
use std::path::{Path, PathBuf};

use orlop::image::{Image, ImageError, ImageStore};
use serde_json::{Value, json};
use sha2::Digest;

/// A store in a temporary directory, which goes with it.
pub struct Store {
    place: tempfile::TempDir,
}

impl Store {
    pub fn new() -> Store {
        Store {
            place: tempfile::tempdir().unwrap(),
        }
    }

    /// The directory beside the store that archives lie in.
    pub fn place(&self) -> &Path {
        self.place.path()
    }

    pub fn dir(&self) -> PathBuf {
        self.place.path().join("images")
    }

    pub fn open(&self) -> ImageStore {
        ImageStore::open(&self.dir()).unwrap()
    }

    pub fn write(&self, file: &str, content: &[u8]) -> PathBuf {
        let path = self.place.path().join(file);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn import(
        &self,
        archive: &[u8],
        file: &str,
        name: Option<&str>,
    ) -> Result<Vec<Image>, ImageError> {
        let path = self.write(file, archive);
        self.open().import(&path, name, &|_| {})
    }

    pub fn list(&self) -> Vec<Image> {
        self.open().list().unwrap()
    }

    /// A layer's directory, counted from the bottom.
    pub fn layer(&self, image: &Image, place: usize) -> PathBuf {
        let id = image.layers[place].diff_id.replace(':', "/");
        self.dir().join("layers").join(id)
    }

    pub fn layer_count(&self) -> usize {
        count(&self.dir().join("layers/sha256"))
    }

    /// Sees that no image, layer, blob or temporary file is there.
    pub fn assert_empty(&self) {
        assert_eq!(self.list(), []);
        for dir in ["layers/sha256", "blobs/sha256", "tmp"] {
            assert_eq!(count(&self.dir().join(dir)), 0, "{dir}");
        }
    }
}

fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

/// A layer's tar stream in the making. Names are written as they are given.
pub struct Layer {
    tar: tar::Builder<Vec<u8>>,
}

impl Layer {
    pub fn new() -> Layer {
        Layer {
            tar: tar::Builder::new(Vec::new()),
        }
    }

    pub fn file(self, path: &str, content: &str) -> Layer {
        self.bytes(path, content.as_bytes(), 0o644)
    }

    pub fn bytes(self, path: &str, content: &[u8], mode: u32) -> Layer {
        let mut header = header(path, tar::EntryType::Regular, mode);
        header.set_size(content.len() as u64);
        self.raw(header, content)
    }

    pub fn directory(self, path: &str, mode: u32) -> Layer {
        self.raw(header(path, tar::EntryType::Directory, mode), &[])
    }

    pub fn symlink(self, path: &str, target: &str) -> Layer {
        self.link(path, target, tar::EntryType::Symlink)
    }

    pub fn hard_link(self, path: &str, target: &str) -> Layer {
        self.link(path, target, tar::EntryType::Link)
    }

    fn link(self, path: &str, target: &str, kind: tar::EntryType) -> Layer {
        let mut header = header(path, kind, 0o777);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.raw(header, &[])
    }

    pub fn device(self, path: &str, kind: tar::EntryType, major: u32, minor: u32) -> Layer {
        let mut header = header(path, kind, 0o600);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.raw(header, &[])
    }

    /// Puts pax records before the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Layer {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            write!(data, "{length} {key}=").unwrap();
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        let mut header = header("pax", tar::EntryType::XHeader, 0o644);
        header.set_size(data.len() as u64);
        self.raw(header, &data)
    }

    pub fn raw(mut self, mut header: tar::Header, data: &[u8]) -> Layer {
        header.set_cksum();
        self.tar.append(&header, data).unwrap();
        self
    }

    pub fn finish(self) -> Vec<u8> {
        self.tar.into_inner().unwrap()
    }
}

/// A header whose name is taken as it is, `..` and all.
pub fn header(path: &str, kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header.set_size(0);
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header
}

pub fn digest_of(bytes: &[u8]) -> String {
    let digits: Vec<String> = sha2::Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{}", digits.concat())
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn plain(layer: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match layer {
        [0x1f, 0x8b, ..] => {
            std::io::copy(&mut flate2::read::GzDecoder::new(layer), &mut out).unwrap();
        }
        [0x28, 0xb5, ..] => out = zstd::decode_all(layer).unwrap(),
        _ => out = layer.to_vec(),
    }
    out
}

/// This machine's architecture as images name it.
fn architecture() -> String {
    oci_spec::image::Arch::default().to_string()
}

fn config(layers: &[Vec<u8>]) -> Value {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| digest_of(&plain(layer)))
        .collect();
    json!({
        "created": "2024-01-02T03:04:05Z",
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": ["/entry"], "Cmd": ["word"], "Env": ["A=b"], "User": "1:2",
            "WorkingDir": "/srv", "StopSignal": "SIGINT",
            "Labels": {"k": "v"}, "Volumes": {"/data": {}}, "OnBuild": null,
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "test"}],
    })
}

/// The members of an archive in the making.
#[derive(Default)]
pub struct Members(Vec<(String, Vec<u8>)>);

impl Members {
    /// Adds a blob under its digest and gives a descriptor of it.
    fn blob(&mut self, kind: &str, content: &[u8]) -> Value {
        let digest = digest_of(content);
        self.0.push((
            format!("blobs/{}", digest.replace(':', "/")),
            content.to_vec(),
        ));
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": digest,
            "size": content.len(),
        })
    }

    fn manifest(&mut self, layers: &[Vec<u8>], config: &Value) -> Value {
        let config = self.blob("config.v1+json", config.to_string().as_bytes());
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| match layer.as_slice() {
                [0x1f, 0x8b, ..] => self.blob("layer.v1.tar+gzip", layer),
                [0x28, 0xb5, ..] => self.blob("layer.v1.tar+zstd", layer),
                _ => self.blob("layer.v1.tar", layer),
            })
            .collect();
        json!({"schemaVersion": 2, "config": config, "layers": layers})
    }

    fn layout(mut self, manifests: &[Value]) -> Vec<u8> {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        self.0.push((
            "oci-layout".into(),
            b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec(),
        ));
        self.0
            .push(("index.json".into(), index.to_string().into_bytes()));
        self.pack()
    }

    fn pack(self) -> Vec<u8> {
        let layer = Layer::new().directory("blobs/", 0o755);
        let add =
            |layer: Layer, (name, content): &(String, Vec<u8>)| layer.bytes(name, content, 0o644);
        self.0.iter().fold(layer, add).finish()
    }
}

fn annotated(manifest: &Value, name: &str) -> Value {
    let mut manifest = manifest.clone();
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    manifest
}

/// An OCI archive of one image under several names.
pub fn oci_archive(layers: &[Vec<u8>], names: &[&str]) -> Vec<u8> {
    let mut members = Members::default();
    let manifest = members.manifest(layers, &config(layers));
    let manifest = members.blob("manifest.v1+json", manifest.to_string().as_bytes());
    let manifests: Vec<Value> = names
        .iter()
        .map(|name| annotated(&manifest, name))
        .collect();
    members.layout(&manifests)
}

/// An OCI archive with an index for two architectures, as builders write it.
pub fn nested_oci_archive(layer: &[u8], name: &str, for_us: bool) -> Vec<u8> {
    let mut members = Members::default();
    let layers = [layer.to_vec()];
    let manifest = members.manifest(&layers, &config(&layers));
    let mut ours = members.blob("manifest.v1+json", manifest.to_string().as_bytes());
    let architecture = match for_us {
        true => architecture(),
        false => "riscv64".to_owned(),
    };
    ours["platform"] = json!({"os": "linux", "architecture": architecture});
    let mut other = ours.clone();
    other["digest"] = json!(digest_of(b"not in this archive"));
    other["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let mut attestation = other.clone();
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let index = json!({"schemaVersion": 2, "manifests": [other, attestation, ours]});
    let mut index = members.blob("index.v1+json", index.to_string().as_bytes());
    index["annotations"] = json!({
        "io.containerd.image.name": format!("docker.io/library/{name}"),
        "org.opencontainers.image.ref.name": "latest",
    });
    members.layout(&[index])
}

/// An archive as `docker save` wrote it for years: layers in directories, equal ones as links.
pub fn docker_archive(layers: &[Vec<u8>], tags: &[&str]) -> Vec<u8> {
    let config = config(layers).to_string().into_bytes();
    let config_name = format!("{}.json", digest_of(&config).trim_start_matches("sha256:"));
    let mut archive = Layer::new();
    let mut names: Vec<String> = Vec::new();
    for (place, layer) in layers.iter().enumerate() {
        let name = format!("{place}/layer.tar");
        archive = match layers.iter().position(|other| other == layer) {
            Some(first) if first < place => {
                archive.symlink(&name, &format!("../{first}/layer.tar"))
            }
            _ => archive.bytes(&name, layer, 0o644),
        };
        names.push(name);
    }
    let manifest = json!([{"Config": config_name, "RepoTags": tags, "Layers": names}]);
    archive
        .bytes(&config_name, &config, 0o644)
        .file("manifest.json", &manifest.to_string())
        .finish()
}

/// What is wrong with an OCI archive.
#[derive(Clone, Copy, PartialEq)]
pub enum Spoilt {
    LayerDigest,
    DiffId,
    ConfigDigest,
    MissingLayer,
    LayerCount,
    Json,
}

impl Spoilt {
    /// An archive of several layers that is right up to the last one.
    pub fn oci(self, layers: &[Vec<u8>]) -> Vec<u8> {
        let mut members = Members::default();
        let mut config = config(layers);
        let ids = &mut config["rootfs"]["diff_ids"];
        let last = layers.len() - 1;
        match self {
            Spoilt::DiffId => ids[last] = json!(digest_of(b"something else")),
            Spoilt::LayerCount => *ids = json!([ids[0]]),
            _ => {}
        }
        let manifest = members.manifest(layers, &config);
        let text = match self {
            Spoilt::Json => "{\"schemaVersion\":".to_owned(),
            _ => manifest.to_string(),
        };
        let manifest_blob = members.blob("manifest.v1+json", text.as_bytes());
        let member = |what: &Value| {
            let digest = what["digest"].as_str().unwrap();
            format!("blobs/{}", digest.replace(':', "/"))
        };
        let layer = member(&manifest["layers"][last]);
        let config = member(&manifest["config"]);
        match self {
            Spoilt::LayerDigest => members.change(&layer, |data| *data = gzip(b"")),
            Spoilt::ConfigDigest => members.change(&config, |data| data.push(b' ')),
            Spoilt::MissingLayer => members.0.retain(|(name, _)| *name != layer),
            _ => {}
        }
        members.layout(&[annotated(&manifest_blob, "spoilt:1")])
    }
}

impl Members {
    fn change(&mut self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let member = self.0.iter_mut().find(|(known, _)| known == name);
        change(&mut member.unwrap().1);
    }
}
