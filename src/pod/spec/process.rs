//! The process of a container: command, environment, user, working directory
//! and privileges.
//!
//! Command and arguments follow
//! <https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/>.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use oci_spec::runtime::{Capability, Process, User};

use super::{ImageDefaults, Sandbox, SpecError, env, labels, resources, security, user};
use crate::kube::expand::expand;
use crate::pod::users::COUNT;

pub(super) fn process(
    pod: &Pod,
    pod_spec: &PodSpec,
    container: &Container,
    image: &ImageDefaults,
    sandbox: &Sandbox,
    rootfs: BorrowedFd,
) -> Result<Process, SpecError> {
    let context = container.security_context.as_ref();
    let tty = container.tty.unwrap_or(false);
    let identity = user::resolve(pod, container, &image.user, rootfs)?;
    let given = env::given(pod, pod_spec, container, sandbox)?;
    let args = command(container, image, &given.values)?;
    let environment = env::environment(image, given, sandbox.hostname, tty, &identity.home)?;

    if sandbox.users.is_some() {
        let mut ids = identity.groups.iter().chain([&identity.uid]);
        if let Some(id) = ids.find(|id| **id >= COUNT) {
            return Err(SpecError::NotAmongUsers(*id));
        }
    }

    let mut user = User::default();
    user.set_uid(identity.uid)
        .set_gid(identity.gid)
        .set_additional_gids(Some(identity.groups));

    let wanted = resources::oom_score_adj(pod_spec, container, sandbox.memory_capacity);
    let may_lower = sandbox.capabilities.contains(&Capability::SysResource);
    let oom_score_adj = resources::clamp_oom_score(wanted, sandbox.oom_score_adj, may_lower);

    let mut process = Process::default();
    process
        .set_terminal(Some(tty))
        .set_user(user)
        .set_args(Some(args))
        .set_env(Some(environment))
        .set_cwd(working_directory(container, image)?)
        .set_capabilities(Some(security::capabilities(context, sandbox.capabilities)?))
        .set_no_new_privileges(Some(
            context.and_then(|c| c.allow_privilege_escalation) == Some(false),
        ))
        .set_oom_score_adj(Some(oom_score_adj))
        .set_apparmor_profile(labels::app_armor(
            pod.metadata.annotations.as_ref(),
            pod_spec,
            container,
        )?)
        .set_rlimits(None);
    Ok(process)
}

/// What to execute. The manifest's `command` replaces entrypoint and arguments
/// of the image, `args` alone replaces its arguments; `$(NAME)` in either is
/// replaced from `values`, the environment that the manifest gives.
fn command(
    container: &Container,
    image: &ImageDefaults,
    values: &HashMap<&str, String>,
) -> Result<Vec<String>, SpecError> {
    let command = container.command.as_deref().unwrap_or_default();
    let args = container.args.as_deref().unwrap_or_default();
    let expanded = |list: &[String]| -> Vec<String> {
        let value = |name: &str| values.get(name).map(String::as_str);
        list.iter().map(|text| expand(text, value)).collect()
    };

    let (mut all, rest) = match (command.is_empty(), args.is_empty()) {
        (false, _) => (expanded(command), expanded(args)),
        (true, false) => (image.entrypoint.clone(), expanded(args)),
        (true, true) => (image.entrypoint.clone(), image.cmd.clone()),
    };
    all.extend(rest);
    if all.is_empty() {
        return Err(SpecError::NoCommand);
    }
    if all.iter().any(|text| text.contains('\0')) {
        return Err(SpecError::Nul { field: "command" });
    }
    Ok(all)
}

/// The manifest's `workingDir`, else the image's, else `/`. A relative one is
/// taken from the root. Where it is missing, [`crate::oci`] makes it.
fn working_directory(container: &Container, image: &ImageDefaults) -> Result<PathBuf, SpecError> {
    let given = container.working_dir.as_deref().unwrap_or_default();
    let directory = if given.is_empty() {
        &image.working_dir
    } else {
        given
    };
    if directory.contains('\0') {
        return Err(SpecError::Nul {
            field: "workingDir",
        });
    }
    Ok(PathBuf::from("/").join(directory))
}

#[cfg(test)]
mod tests;
