//! What an image says about the process to run in it (OCI image-spec, `config.md`).

use std::collections::BTreeMap;

use oci_spec::image::{Arch, Config, ImageConfiguration, Os};
use serde::{Deserialize, Serialize};

/// The search path of an image that was made from a bare root file system.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image's defaults for its containers. Empty where the image says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageConfig {
    /// The program and its fixed arguments; a manifest's `command` replaces it.
    pub entrypoint: Vec<String>,
    /// Further arguments; a manifest's `args` replace them.
    pub cmd: Vec<String>,
    /// Environment, each as `NAME=VALUE`.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, `uid:gid` or a mix of these.
    pub user: String,
    /// The directory to start in; empty means `/`.
    pub working_dir: String,
    /// The signal that asks the process to end, such as `SIGTERM`.
    pub stop_signal: Option<String>,
    /// Arbitrary labels. They come from the image and must never be acted on.
    pub labels: BTreeMap<String, String>,
    /// Directories that the image expects to be volumes, sorted.
    pub volumes: Vec<String>,
}

/// The defaults for an image made from a bare root file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RootFsConfig {
    /// Default program and its arguments.
    pub entrypoint: Vec<String>,
    /// Default arguments, or program and arguments where there is no entrypoint.
    pub cmd: Vec<String>,
    /// Environment, each as `NAME=VALUE`, beside a usual `PATH`.
    pub env: Vec<String>,
}

impl RootFsConfig {
    /// Whether it says anything at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// An image configuration for this machine with a single layer. The same
    /// content always gets the same configuration, and so the same image ID.
    pub(super) fn configuration(&self, diff_id: &str) -> ImageConfiguration {
        let mut env = self.env.clone();
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.insert(0, DEFAULT_PATH.to_owned());
        }
        let some = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
        let mut config = Config::default();
        config.set_env(Some(env));
        config.set_entrypoint(some(&self.entrypoint));
        config.set_cmd(some(&self.cmd));
        let mut configuration = ImageConfiguration::default();
        configuration.set_architecture(Arch::default());
        configuration.set_os(Os::Linux);
        configuration.set_config(Some(config));
        let root = configuration.rootfs_mut();
        root.set_typ("layers".to_owned());
        root.set_diff_ids(vec![diff_id.to_owned()]);
        configuration
    }
}

impl ImageConfig {
    /// Takes from an image configuration what containers need.
    ///
    /// # Errors
    ///
    /// A text that says what is wrong, when a value could be given to no process.
    pub(super) fn new(configuration: &ImageConfiguration) -> Result<Self, String> {
        let Some(config) = configuration.config() else {
            return Ok(Self::default());
        };
        let list = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
        let mut volumes = list(config.volumes());
        volumes.sort();
        let parsed = ImageConfig {
            entrypoint: list(config.entrypoint()),
            cmd: list(config.cmd()),
            env: list(config.env()),
            user: config.user().clone().unwrap_or_default(),
            working_dir: config.working_dir().clone().unwrap_or_default(),
            stop_signal: config.stop_signal().clone().filter(|s| !s.is_empty()),
            labels: config
                .labels()
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect(),
            volumes,
        };
        parsed.check()?;
        Ok(parsed)
    }

    fn check(&self) -> Result<(), String> {
        let words = [&self.entrypoint, &self.cmd, &self.env, &self.volumes];
        let single = [&self.user, &self.working_dir];
        let mut all = words.into_iter().flatten().chain(single);
        if let Some(bad) = all.find(|word| word.contains('\0')) {
            return Err(format!("has a NUL character in {bad:?}"));
        }
        Ok(())
    }
}

/// This machine's platform as image indexes write it: `linux/amd64`.
pub(super) fn platform() -> String {
    format!("linux/{}", Arch::default())
}
