//! A container's configuration: `config.json` of its bundle (OCI runtime
//! specification, config.md), read and checked before anything is made.

use std::fs;
use std::path::{Component, Path};

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};

use super::error::{OciError, sentence};

/// The configuration's file name within a bundle.
pub const FILE: &str = "config.json";

/// Reads `config.json` of `bundle` (a path relative to the working directory,
/// or absolute) without judging it yet.
///
/// # Errors
/// [`OciError::Config`] naming the file and, for bad JSON, the field.
pub fn load(bundle: &Path) -> Result<Spec, OciError> {
    parse_file(&bundle.join(FILE))
}

/// Reads a process description (config.md, "process") from a file, as `exec
/// --process` takes it.
///
/// # Errors
/// As [`load`].
pub fn load_process(path: &Path) -> Result<Process, OciError> {
    parse_file(path)
}

fn parse_file<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, OciError> {
    let wrong = |reason| OciError::Config {
        path: path.to_owned(),
        reason,
    };
    let text = fs::read(path).map_err(|error| wrong(sentence(&error)))?;
    let mut json = serde_json::Deserializer::from_slice(&text);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let reason = error.into_inner().to_string();
        match field.as_str() {
            "." => wrong(reason),
            field => wrong(format!("field {field:?}: {reason}")),
        }
    })
}

/// Checks what can be checked without touching the machine.
///
/// `path` is only for the error's text.
///
/// # Errors
/// [`OciError::Config`] naming the field; [`OciError::Unsupported`] for what is
/// right but cannot be done by this build: silence would leave a container
/// less confined than its configuration says.
pub fn check(spec: &Spec, path: &Path) -> Result<(), OciError> {
    let wrong = |reason: String| OciError::Config {
        path: path.to_owned(),
        reason,
    };
    if !spec.version().starts_with("1.") {
        return Err(wrong(format!(
            "field \"ociVersion\": {:?} is not supported, only 1.x is",
            spec.version()
        )));
    }
    if spec.root().is_none() {
        return Err(wrong("field \"root\" is missing".into()));
    }
    let Some(process) = spec.process() else {
        return Err(wrong("field \"process\" is missing".into()));
    };
    check_process(process).map_err(|reason| wrong(format!("field \"process.{reason}")))?;
    let Some(linux) = spec.linux() else {
        return Err(wrong("field \"linux\" is missing".into()));
    };
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    for (index, namespace) in namespaces.iter().enumerate() {
        let kind = namespace.typ();
        if namespaces[..index].iter().any(|other| other.typ() == kind) {
            return Err(wrong(format!(
                "field \"linux.namespaces\": {kind:?} is listed twice"
            )));
        }
    }
    if !namespaces
        .iter()
        .any(|ns| ns.typ() == LinuxNamespaceType::Mount)
    {
        return Err(wrong(
            "field \"linux.namespaces\": no mount namespace is listed, and the container's mounts \
             would be made on the host: add {\"type\": \"mount\"}"
                .into(),
        ));
    }
    for mount in spec.mounts().as_deref().unwrap_or_default() {
        let climbs = mount
            .destination()
            .components()
            .any(|part| part == Component::ParentDir);
        if climbs || mount.destination().as_os_str().is_empty() {
            return Err(wrong(format!(
                "field \"mounts\": destination {:?} must be an absolute path without \"..\"",
                mount.destination()
            )));
        }
    }
    if linux
        .net_devices()
        .as_ref()
        .is_some_and(|devices| !devices.is_empty())
    {
        return Err(OciError::Unsupported(
            "linux.netDevices is not supported: move the devices into the container's network namespace by other means".into(),
        ));
    }
    if linux.intel_rdt().is_some() {
        return Err(OciError::Unsupported(
            "linux.intelRdt is not supported: remove it from the configuration".into(),
        ));
    }
    libcontainer::validator::Validator::validate_spec(spec).map_err(|error| wrong(sentence(&error)))
}

/// Checks a process description.
///
/// # Errors
/// The field below `process`, then what is wrong with it; the caller puts
/// `field "process.` before it.
pub fn check_process(process: &Process) -> Result<(), String> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err("args\" is empty: name the program to run".into());
    }
    if !process.cwd().is_absolute() {
        return Err(format!(
            "cwd\": {:?} is not an absolute path",
            process.cwd()
        ));
    }
    let strings = process.args().iter().chain(process.env()).flatten();
    if strings.clone().any(|string| string.contains('\0')) {
        return Err("args\" or \"process.env\" holds a zero byte".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut json = serde_json::to_value(Spec::default()).expect("spec");
        change(&mut json);
        let bundle = tempfile::tempdir().expect("tempdir");
        fs::write(bundle.path().join(FILE), json.to_string()).expect("write");
        let error = match load(bundle.path()) {
            Ok(spec) => check(&spec, Path::new("/b/config.json")).expect_err("accepted"),
            Err(error) => error,
        };
        error
            .to_string()
            .replace(&bundle.path().display().to_string(), "/b")
    }

    #[test]
    fn a_wrong_type_is_reported_with_its_field() {
        let text = refusal(|json| json["process"]["user"]["uid"] = "root".into());
        assert!(
            text.starts_with("/b/config.json: field \"process.user.uid\": invalid type"),
            "{text}"
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(Path::new("/nowhere")).expect_err("found");
        assert_eq!(
            error.to_string(),
            "/nowhere/config.json: no such file or directory"
        );
    }

    #[test]
    fn nonsense_is_refused_with_the_field_and_the_reason() {
        for (text, change) in [
            (
                "/b/config.json: field \"process.args\" is empty: name the program to run",
                (|json| json["process"]["args"] = serde_json::json!([]))
                    as fn(&mut serde_json::Value),
            ),
            (
                "/b/config.json: field \"process.cwd\": \"x\" is not an absolute path",
                |json| json["process"]["cwd"] = "x".into(),
            ),
            (
                "/b/config.json: field \"linux.namespaces\": no mount namespace is listed, and the container's mounts would be made on the host: add {\"type\": \"mount\"}",
                |json| json["linux"]["namespaces"] = serde_json::json!([{"type": "pid"}]),
            ),
            (
                "/b/config.json: field \"ociVersion\": \"2.0\" is not supported, only 1.x is",
                |json| json["ociVersion"] = "2.0".into(),
            ),
            (
                "/b/config.json: field \"mounts\": destination \"/a/../b\" must be an absolute path without \"..\"",
                |json| json["mounts"] = serde_json::json!([{"destination": "/a/../b"}]),
            ),
        ] {
            assert_eq!(refusal(change), text);
        }
    }
}
