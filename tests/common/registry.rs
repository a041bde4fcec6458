//! Images as registries have them; Debian's registry server to push them to;
//! and one of our own, which can be told to lie.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use sha2::Digest;

use super::http::{self, Reply, Request};
use super::{LIMIT, path};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Name and password of the registry that wants some, and the same in its own form.
pub const USER: &str = "sailor";
pub const PASSWORD: &str = "secret";
const HTPASSWD: &str = "sailor:$2b$04$IvLFMUzf7nCffX9fXaxx5eYQ4jjLADAbkxpF63zknNIZk1Kj.Ka/e\n";

pub fn digest_of(bytes: &[u8]) -> String {
    let hash = sha2::Sha256::digest(bytes);
    let digits: Vec<String> = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", digits.concat())
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).expect("gzip");
    out.finish().expect("gzip")
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("zstd")
}

/// What architecture images must be of to run here.
pub fn architecture() -> String {
    oci_spec::image::Arch::default().to_string()
}

/// An image: its manifest, and all blobs that this needs.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub manifest: Vec<u8>,
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// The digests of its layers, the lowest first.
    pub layers: Vec<String>,
}

impl Image {
    /// An image of layers as tar archives, each kept as `pack` has it.
    pub fn new(layers: &[Vec<u8>], pack: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        Self::of(layers, pack, &architecture(), "")
    }

    /// An image for a machine of this kind.
    pub fn of(
        layers: &[Vec<u8>],
        pack: impl Fn(&[u8]) -> Vec<u8>,
        architecture: &str,
        comment: &str,
    ) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest_of(layer)).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "author": comment,
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let mut image = Self::default();
        let config = image.blob(CONFIG, config.to_string().into_bytes());
        let mut described = Vec::new();
        for layer in layers {
            let packed = pack(layer);
            let kind = match packed.as_slice() {
                [0x1f, 0x8b, ..] => format!("{LAYER}+gzip"),
                [0x28, 0xb5, ..] => format!("{LAYER}+zstd"),
                _ => LAYER.to_owned(),
            };
            let descriptor = image.blob(&kind, packed);
            let digest = descriptor["digest"].as_str().expect("digest");
            image.layers.push(digest.to_owned());
            described.push(descriptor);
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described,
        });
        image.manifest = manifest.to_string().into_bytes();
        image
    }

    fn blob(&mut self, kind: &str, content: Vec<u8>) -> Value {
        let digest = digest_of(&content);
        let descriptor = json!({"mediaType": kind, "digest": digest, "size": content.len()});
        self.blobs.insert(digest, content);
        descriptor
    }

    pub fn digest(&self) -> String {
        digest_of(&self.manifest)
    }

    /// The same image with a changed manifest.
    pub fn with_manifest(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let mut manifest = serde_json::from_slice(&self.manifest).expect("JSON");
        change(&mut manifest);
        self.manifest = manifest.to_string().into_bytes();
        self
    }
}

/// The busybox of this machine as an image.
pub fn busybox() -> Image {
    Image::new(&[super::busybox_archive()], gzip)
}

/// An index of images for platforms such as `linux/arm/v7`.
pub fn index(images: &[(&str, &Image)]) -> Vec<u8> {
    let manifests = images.iter().map(|(platform, image)| {
        let parts: Vec<&str> = platform.split('/').collect();
        let mut platform = json!({"os": parts[0], "architecture": parts[1]});
        if let Some(variant) = parts.get(2) {
            platform["variant"] = json!(variant);
        }
        json!({
            "mediaType": MANIFEST, "digest": image.digest(), "size": image.manifest.len(),
            "platform": platform,
        })
    });
    let manifests: Vec<Value> = manifests.collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
        .to_string()
        .into_bytes()
}

/// Debian's `docker-registry`, on a port of 127.0.0.1.
pub struct Registry {
    pub host: String,
    directory: PathBuf,
    process: Option<Child>,
    authorization: Option<String>,
}

impl Registry {
    /// A registry whose content lies in `directory`.
    pub fn start(directory: &Path) -> Self {
        Self::run(directory, "127.0.0.1:0", None, None)
    }

    /// One that speaks TLS; `certificate` gets its certificate. Nothing can be
    /// pushed to it: what lies in `directory` was pushed before.
    pub fn with_tls(directory: &Path, certificate: &Path) -> Self {
        let key = directory.join("key.pem");
        let made = Command::new("openssl")
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes".split(' '))
            .args([
                "-days",
                "2",
                "-subj",
                "/CN=test",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ])
            .args(["-keyout", path(&key), "-out", path(certificate)])
            .output()
            .expect("openssl: install Debian's package of that name");
        assert!(made.status.success(), "{made:?}");
        let tls = json!({"certificate": certificate, "key": key});
        Self::run(directory, "127.0.0.1:0", None, Some(tls))
    }

    /// One that lets in [`USER`] alone.
    pub fn with_password(directory: &Path) -> Self {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        Self::run(
            directory,
            "127.0.0.1:0",
            Some(format!("Basic {pair}")),
            None,
        )
    }

    fn run(
        directory: &Path,
        address: &str,
        authorization: Option<String>,
        tls: Option<Value>,
    ) -> Self {
        fs::create_dir_all(directory).expect("directory");
        let mut config = json!({
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": directory}, "delete": {"enabled": true}},
            "http": {"addr": address},
        });
        if authorization.is_some() {
            let file = directory.join("htpasswd");
            fs::write(&file, HTPASSWD).expect("htpasswd");
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": file}});
        }
        if let Some(tls) = tls {
            config["http"]["tls"] = tls;
        }
        // JSON is YAML, too.
        let file = directory.join("config.yml");
        fs::write(&file, config.to_string()).expect("config");
        let log = directory.join("log");
        let mut process = Command::new("docker-registry")
            .args(["serve", path(&file)])
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("log"))
            .spawn()
            .expect("docker-registry: install Debian's package of that name");
        let start = Instant::now();
        let host = loop {
            let lines = BufReader::new(File::open(&log).expect("log")).lines();
            let mut lines = lines.map_while(Result::ok);
            let line = lines.find(|line| line.contains("listening on "));
            let port = line.and_then(|line| {
                let (_, rest) = line.split_once("listening on ")?;
                let (_, port) = rest.split_once(':')?;
                let digits = port.chars().take_while(char::is_ascii_digit);
                Some(digits.collect::<String>())
            });
            if let Some(port) = port {
                break format!("127.0.0.1:{port}");
            }
            let ended = process.try_wait().expect("wait");
            assert!(
                ended.is_none() && start.elapsed() < LIMIT,
                "the registry does not start: {}",
                fs::read_to_string(&log).unwrap_or_default()
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        };
        Self {
            host,
            directory: directory.to_owned(),
            process: Some(process),
            authorization,
        }
    }

    /// Ends the server; its content stays.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("kill");
            process.wait().expect("wait");
        }
    }

    /// Starts it again where it was.
    pub fn restart(&mut self) {
        self.stop();
        *self = Self::run(&self.directory, &self.host, self.authorization.take(), None);
    }

    fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Reply {
        let mut headers = vec![("Content-Type", kind)];
        if let Some(authorization) = &self.authorization {
            headers.push(("Authorization", authorization));
        }
        http::send(&self.host, method, path, &headers, body)
    }

    /// Pushes an image under a tag, and gives its name with the registry's.
    pub fn push(&self, name: &str, image: &Image) -> String {
        let (repository, tag) = name.split_once(':').expect("a tag");
        self.push_blobs(repository, image);
        self.put(repository, tag, MANIFEST, &image.manifest);
        format!("{}/{name}", self.host)
    }

    /// Pushes images, and an index of them under a tag.
    pub fn push_index(&self, name: &str, images: &[(&str, &Image)]) -> String {
        let (repository, tag) = name.split_once(':').expect("a tag");
        for (_, image) in images {
            self.push_blobs(repository, image);
            self.put(repository, &image.digest(), MANIFEST, &image.manifest);
        }
        self.put(repository, tag, INDEX, &index(images));
        format!("{}/{name}", self.host)
    }

    fn push_blobs(&self, repository: &str, image: &Image) {
        for (digest, content) in &image.blobs {
            let begun = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[]);
            assert_eq!(begun.status, 202, "{begun:?}");
            let location = begun.get("location");
            let (_, place) = location.split_once("/v2/").expect("a location");
            let sign = if place.contains('?') { '&' } else { '?' };
            let place = format!("/v2/{place}{sign}digest={digest}");
            let done = self.send("PUT", &place, "application/octet-stream", content);
            assert_eq!(done.status, 201, "{}", String::from_utf8_lossy(&done.body));
        }
    }

    fn put(&self, repository: &str, what: &str, kind: &str, content: &[u8]) {
        let place = format!("/v2/{repository}/manifests/{what}");
        let done = self.send("PUT", &place, kind, content);
        assert_eq!(done.status, 201, "{}", String::from_utf8_lossy(&done.body));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Answers like a registry that has one image under every tag.
pub fn serve(image: &Image, request: &Request) -> Reply {
    let path = request.path.split('?').next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    if path == "/v2/" {
        return Reply::new(200, "{}");
    }
    if path.contains("/manifests/") {
        return Reply::new(200, image.manifest.clone())
            .header("Content-Type", MANIFEST)
            .header("Docker-Content-Digest", &image.digest());
    }
    let Some(content) = image.blobs.get(last) else {
        let text = r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}"#;
        return Reply::new(404, text);
    };
    match offset(request) {
        Some(from) => Reply::new(206, &content[from.min(content.len())..]),
        None => Reply::new(200, content.clone()),
    }
}

/// Where a request wants a blob to begin, if it says so.
pub fn offset(request: &Request) -> Option<usize> {
    let range = request.headers.get("range")?;
    range
        .strip_prefix("bytes=")?
        .split('-')
        .next()?
        .parse()
        .ok()
}
