//! The seccomp profile of a container
//! (<https://kubernetes.io/docs/tutorials/security/seccomp/>): the container's own
//! field wins over the pod's, and a privileged container has none.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, PodSpec, SeccompProfile};
use oci_spec::runtime::{Capabilities, LinuxSeccomp};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};

use super::SpecError;
use crate::oci::seccomp::default;

/// The largest profile that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// The profile of `container`, whose bounding set is `bounding`; `None` when it is
/// unconfined. The profiles of this machine are in `directory`.
///
/// # Errors
/// A profile that is not there or is none.
pub(super) fn profile(
    pod_spec: &PodSpec,
    container: &Container,
    bounding: Option<&Capabilities>,
    directory: &Path,
) -> Result<Option<LinuxSeccomp>, SpecError> {
    let own = container.security_context.as_ref();
    if own.and_then(|context| context.privileged) == Some(true) {
        return Ok(None);
    }
    let shared = pod_spec.security_context.as_ref();
    let wanted = own
        .and_then(|context| context.seccomp_profile.as_ref())
        .or_else(|| shared.and_then(|context| context.seccomp_profile.as_ref()));
    match wanted {
        Some(SeccompProfile { type_, .. }) if type_ == "RuntimeDefault" => {
            let none = Capabilities::new();
            Ok(Some(default::profile(bounding.unwrap_or(&none))))
        }
        Some(SeccompProfile {
            type_,
            localhost_profile: Some(name),
        }) if type_ == "Localhost" => {
            let read = read(directory, name);
            read.map(Some).map_err(|source| SpecError::SeccompProfile {
                path: directory.join(name).display().to_string(),
                source,
            })
        }
        _ => Ok(None),
    }
}

/// Reads the profile `name`, which must lie below `directory`, links included.
fn read(directory: &Path, name: &str) -> io::Result<LinuxSeccomp> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, directory, flags, Mode::empty())?;
    // A pipe in a file's place must not block.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(&directory, name, flags, Mode::empty(), within)?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    File::from(file).take(LARGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    let mut json = serde_json::Deserializer::from_slice(&text);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let reason = error.into_inner();
        match field.as_str() {
            "." => io::Error::other(reason),
            field => io::Error::other(format!("field {field:?}: {reason}")),
        }
    })
}
