//! What goes together with users of a pod's own
//! (<https://kubernetes.io/docs/concepts/workloads/pods/user-namespaces/>).

use k8s_openapi::api::core::v1::PodSpec;

use crate::kube::field::Findings;

pub(super) fn check(spec: &PodSpec, findings: &mut Findings) {
    if spec.host_users == Some(false) {
        for (field, value) in [
            ("hostNetwork", spec.host_network),
            ("hostPID", spec.host_pid),
            ("hostIPC", spec.host_ipc),
        ] {
            if value == Some(true) {
                findings.forbidden(format!("spec.{field}"), "when `hostUsers` is false");
            }
        }
        return;
    }
    let lists = [
        ("initContainers", spec.init_containers.as_deref()),
        ("containers", Some(spec.containers.as_slice())),
    ];
    for (list, containers) in lists {
        for (i, container) in containers.unwrap_or_default().iter().enumerate() {
            let context = container.security_context.as_ref();
            if context.and_then(|context| context.proc_mount.as_deref()) == Some("Unmasked") {
                findings.invalid(
                    format!("spec.{list}[{i}].securityContext.procMount"),
                    "Unmasked",
                    "`hostUsers` must be false to use `Unmasked`",
                );
            }
        }
    }
}
