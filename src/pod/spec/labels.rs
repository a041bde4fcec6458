//! AppArmor and SELinux, as far as the kernel has them.

use std::fs;

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, PodSpec};

use super::SpecError;

/// Says `Y` where AppArmor is there and on.
const APP_ARMOR: &str = "/sys/module/apparmor/parameters/enabled";

/// There where SELinux is there and on.
const SELINUX: &str = "/sys/fs/selinux/enforce";

/// The profile of type RuntimeDefault, which the launcher loads when it is asked for.
pub const DEFAULT_PROFILE: &str = "orlop-default";

/// The annotation of one container that came before the field; its name follows.
const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The AppArmor profile that `container` asks for, by the name under which the kernel
/// knows it; `None` for none. The container's own field wins over its annotation, and
/// that over the pod's field.
///
/// # Errors
/// A profile on a machine without AppArmor.
pub(super) fn app_armor(
    annotations: Option<&std::collections::BTreeMap<String, String>>,
    pod_spec: &PodSpec,
    container: &Container,
) -> Result<Option<String>, SpecError> {
    let own = container.security_context.as_ref();
    if own.and_then(|context| context.privileged) == Some(true) {
        return Ok(None);
    }
    let key = format!("{ANNOTATION}{}", container.name);
    let annotated = annotations.and_then(|all| all.get(&key));
    let shared = pod_spec.security_context.as_ref();
    let shared = shared.and_then(|context| context.app_armor_profile.as_ref());
    let wanted = match (
        own.and_then(|own| own.app_armor_profile.as_ref()),
        annotated,
    ) {
        (Some(own), _) => name(own),
        (None, Some(annotated)) => match annotated.as_str() {
            "unconfined" => Wanted::Nothing,
            "runtime/default" => Wanted::Default,
            other => Wanted::Loaded(other.trim_start_matches("localhost/").to_owned()),
        },
        (None, None) => shared.map_or(Wanted::Nothing, name),
    };
    let is_on = || fs::read(APP_ARMOR).is_ok_and(|text| text.starts_with(b"Y"));
    match wanted {
        Wanted::Nothing => Ok(None),
        _ if !is_on() => Err(SpecError::NoAppArmor),
        Wanted::Default => Ok(Some(DEFAULT_PROFILE.to_owned())),
        Wanted::Loaded(name) => Ok(Some(name)),
    }
}

enum Wanted {
    Nothing,
    Default,
    Loaded(String),
}

fn name(profile: &AppArmorProfile) -> Wanted {
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("RuntimeDefault", _) => Wanted::Default,
        ("Localhost", Some(name)) => Wanted::Loaded(name.clone()),
        _ => Wanted::Nothing,
    }
}

/// Refuses `seLinuxOptions` where they would mean something. Without SELinux they
/// mean nothing, here as on any node.
///
/// # Errors
/// [`SpecError::SeLinux`].
pub(super) fn se_linux(pod_spec: &PodSpec, container: &Container) -> Result<(), SpecError> {
    let own = container.security_context.as_ref();
    let own = own.and_then(|context| context.se_linux_options.as_ref());
    let shared = pod_spec.security_context.as_ref();
    let wanted = own.or_else(|| shared.and_then(|context| context.se_linux_options.as_ref()));
    match wanted {
        Some(_) if fs::exists(SELINUX).unwrap_or(true) => Err(SpecError::SeLinux),
        _ => Ok(()),
    }
}
