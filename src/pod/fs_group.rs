//! Which volumes of a pod get its `fsGroup`, and which its users.

use k8s_openapi::api::core::v1::{PodSpec, Volume};

use crate::volume::Persistent;
use crate::volume::ownership::Ownership;
use crate::volume::written::Written;

/// What `volume` is to be given; `None` without an `fsGroup`, and for kinds that belong
/// to somebody else (hostPath, nfs, image). `persistent` is what the volume's
/// PersistentVolume says: a `local` one is the claim's, and gets it.
#[must_use]
pub fn of(spec: &PodSpec, volume: &Volume, persistent: Option<&Persistent>) -> Option<Ownership> {
    let context = spec.security_context.as_ref()?;
    let group = u32::try_from(context.fs_group?).ok()?;
    let is_written = Written::of(volume).is_some();
    let is_local = persistent.is_some_and(|volume| volume.is_local);
    (is_written || is_local || volume.empty_dir.is_some()).then(|| Ownership {
        user: None,
        group,
        is_shared: true,
        is_read_only: is_written,
        trusts_root: !is_written
            && context.fs_group_change_policy.as_deref() == Some("OnRootMismatch"),
    })
}

/// The same for a volume whose files are given to the users of the pod, the first of
/// which is the machine's `first`.
#[must_use]
pub fn of_users(spec: &PodSpec, volume: &Volume, first: u32) -> Ownership {
    let shared = of(spec, volume, None).map(|own| Ownership {
        user: Some(first),
        group: first.saturating_add(own.group),
        ..own
    });
    shared.unwrap_or(Ownership {
        user: Some(first),
        group: first,
        is_shared: false,
        is_read_only: true,
        trusts_root: false,
    })
}
