//! Kernel parameters of a container's namespaces (config-linux.md, "Sysctl").

use std::io;

use oci_spec::runtime::Spec;

use super::error::RootfsError;
use crate::sys::sysctl::Parameters;

/// Writes the parameters through the host's procfs, before the root changes:
/// the files speak of the writer's namespaces, and no image can be in the way.
///
/// # Errors
/// The parameter at fault.
pub(super) fn apply(spec: &Spec) -> Result<(), RootfsError> {
    let linux = spec.linux().as_ref();
    let parameters = linux.and_then(|linux| linux.sysctl().as_ref());
    let Some(parameters) = parameters.filter(|all| !all.is_empty()) else {
        return Ok(());
    };
    let opened = Parameters::open().map_err(RootfsError::step::<io::Error>(
        "open the kernel's parameters",
    ))?;
    for (name, value) in parameters {
        let set = opened.set(name, value);
        set.map_err(RootfsError::step::<io::Error>(format!(
            "set linux.sysctl {name:?} to {value:?}"
        )))?;
    }
    Ok(())
}
