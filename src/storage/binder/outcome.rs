//! What becomes of volumes after something was done outside of the database.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::Happening;
use super::facts::{name, namespace, uid};
use super::volumes::{fail, free, set_phase, warning};
use crate::storage::events::EventType;
use crate::storage::work::Action;

/// The volume after everything in it was deleted: free again.
pub fn recycled(mut volume: PersistentVolume, now: Timestamp) -> (PersistentVolume, Happening) {
    free(&mut volume);
    set_phase(&mut volume, "Available", now);
    let happened = Happening {
        type_: EventType::Normal,
        ..warning(&volume, "VolumeRecycled", "Volume recycled".to_owned())
    };
    (volume, happened)
}

/// The volume after it could not be recycled, or what it stands for not deleted.
pub fn not_reclaimed(
    mut volume: PersistentVolume,
    action: Action,
    reason: &str,
    now: Timestamp,
) -> (PersistentVolume, Happening) {
    let (word, message) = match action {
        Action::Recycle => ("VolumeFailedRecycle", format!("Recycle failed: {reason}")),
        _ => ("VolumeFailedDelete", reason.to_owned()),
    };
    fail(&mut volume, word, &message, now);
    let happened = warning(&volume, word, message);
    (volume, happened)
}

/// A claim for which a volume of this name was made.
pub fn provisioned(claim: &PersistentVolumeClaim, volume: &str) -> Happening {
    Happening {
        kind: "PersistentVolumeClaim",
        namespace: namespace(claim).to_owned(),
        name: name(claim).to_owned(),
        uid: uid(claim).to_owned(),
        type_: EventType::Normal,
        reason: "ProvisioningSucceeded",
        message: format!("Successfully provisioned volume {volume}"),
    }
}
