//! Short words for what these tests do.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::common::registry::digest_of;
use crate::common::{Machine, Outcome, finish, path};
use crate::image_archives::Layer;

/// `orlop image pull`.
pub fn pull(machine: &Machine, arguments: &[&str]) -> Outcome {
    finish(command(machine, arguments))
}

/// The same, not started yet.
pub fn command(machine: &Machine, arguments: &[&str]) -> Command {
    machine.command(["image", "pull"].iter().chain(arguments))
}

/// Writes docker's configuration file.
pub fn docker_config(machine: &Machine, config: &Value) {
    std::fs::create_dir_all(machine.path("docker")).expect("directory");
    std::fs::write(machine.path("docker/config.json"), config.to_string()).expect("write");
}

/// A layer with one file.
pub fn file_layer(name: &str, content: &str) -> Vec<u8> {
    Layer::new().file(name, content).finish()
}

/// A layer of so many bytes that no compression makes small.
pub fn large_layer(bytes: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(bytes);
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    while content.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    Layer::new().bytes("large", &content, 0o644).finish()
}

/// The images of a machine, as JSON.
pub fn images(machine: &Machine) -> Vec<Value> {
    let text = machine.orlop(["image", "ls", "-o", "json"]).ok();
    let list: Value = serde_json::from_str(&text).expect("JSON");
    list["images"].as_array().expect("a list").clone()
}

/// Where a layer lies unpacked.
pub fn layer(machine: &Machine, tar: &[u8]) -> PathBuf {
    let digest = digest_of(tar).replace(':', "/");
    machine.roots.images().join("layers").join(digest)
}

/// What lies in the directory of pulls that are under way.
pub fn staged(machine: &Machine) -> Vec<String> {
    let mut names = crate::common::entries(&machine.roots.images().join("pulls"));
    names.sort();
    names
}

/// Fails when anything of an image is left.
#[track_caller]
pub fn assert_nothing(machine: &Machine) {
    assert!(images(machine).is_empty(), "{:?}", images(machine));
    assert_eq!(staged(machine), [""; 0]);
    let layers = machine.roots.images().join("layers/sha256");
    assert_eq!(
        crate::common::entries(&layers),
        [""; 0],
        "{}",
        path(&layers)
    );
}
