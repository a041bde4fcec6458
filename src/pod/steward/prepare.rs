//! What is decided before a piece of work begins: by the objects alone, without a
//! look at any volume.

use anyhow::Result;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use super::Steward;
use super::chore::Chore;
use crate::storage::binder::facts::{PROVISIONED_BY, annotation, claim_ref, name, namespace, uid};
use crate::storage::events::{Event, EventType};
use crate::storage::provisioner::{self, ProvisionError, Wish};
use crate::storage::reclaim;
use crate::storage::work::{Task, Work};
use crate::sys::node;

/// When to look again whether pods still use a volume.
const STILL_USED: SignedDuration = SignedDuration::from_secs(5);
/// When to look again whether somebody else has deleted what a volume stands for.
const EXTERNAL: SignedDuration = SignedDuration::from_hours(1);

/// What is to become of a piece of work.
pub(super) enum Prepared {
    /// It is to be done.
    Chore(Box<Chore>),
    /// It cannot be done.
    Failed {
        /// Why not.
        reason: String,
        /// Whether it is of no use to try again soon.
        lasting: bool,
    },
    /// It is not to be done yet, which is recorded.
    Postponed,
}

impl Steward<'_> {
    pub(super) fn prepare(&self, work: &Work, task: &Task) -> Result<Prepared> {
        match task {
            Task::Recycle(volume) => {
                if let Some(claim) = claim_ref(volume) {
                    let space = claim.namespace.as_deref().unwrap_or_default();
                    let claim = claim.name.as_deref().unwrap_or_default();
                    let there: Option<PersistentVolumeClaim> = self.store.object(space, claim)?;
                    let users = self.store.placed_users_of_claim(space, claim)?;
                    // With another claim of that name, the pods use that one's volume.
                    if there.is_none() && !users.is_empty() {
                        let message = format!("Volume is used by pods: {}", users.join(","));
                        let event = said(volume, "VolumeFailedRecycle", message);
                        self.store.postpone_work(work, STILL_USED, &event)?;
                        return Ok(Prepared::Postponed);
                    }
                }
                if let Some(failed) = self.endangers(volume)? {
                    return Ok(failed);
                }
                let message = format!("Recycling {}", reclaim::describe(volume));
                self.store.record(&said(volume, "RecyclerPod", message))?;
                Ok(Prepared::Chore(Box::new(Chore::Recycle(volume.clone()))))
            }
            Task::Delete(volume) => {
                let maker = annotation(&**volume, PROVISIONED_BY);
                let own = maker.and_then(provisioner::of);
                if let (Some(maker), None) = (maker, own) {
                    let error = reclaim::ReclaimError::External(maker.to_owned());
                    let event = said(volume, "VolumeDelete", error.to_string());
                    self.store.postpone_work(work, EXTERNAL, &event)?;
                    return Ok(Prepared::Postponed);
                }
                let keeps = own.is_some_and(|own| own.on_delete(volume) == "retain");
                if !keeps && let Some(failed) = self.endangers(volume)? {
                    return Ok(failed);
                }
                Ok(Prepared::Chore(Box::new(Chore::Delete(volume.clone()))))
            }
            Task::Provision { claim, class } => self.plan(work, claim, class),
        }
    }

    /// Whether another volume's data would go with this one's.
    fn endangers(&self, volume: &PersistentVolume) -> Result<Option<Prepared>> {
        let others: Vec<PersistentVolume> = self.store.objects(None)?;
        Ok(
            reclaim::endangered(volume, &others).map(|other| Prepared::Failed {
                reason: format!(
                    "persistentvolume {:?} has its data in the same directory ({})",
                    name(other),
                    reclaim::describe(other)
                ),
                lasting: false,
            }),
        )
    }

    fn plan(
        &self,
        work: &Work,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
    ) -> Result<Prepared> {
        let failed = |error: ProvisionError| Prepared::Failed {
            lasting: error.is_lasting(),
            reason: error.to_string(),
        };
        let Some(provisioner) = provisioner::of(&class.provisioner) else {
            return Ok(Prepared::Postponed);
        };
        let wish = Wish {
            claim,
            class,
            roots: self.roots,
            node: &node::name(),
        };
        let volume = match provisioner.plan(&wish) {
            Ok(volume) => volume,
            Err(error) => return Ok(failed(error)),
        };
        let others: Vec<PersistentVolume> = self.store.objects(None)?;
        if let Some(other) = reclaim::in_the_way(&volume, &others) {
            let error = ProvisionError::Taken(name(other).to_owned());
            return Ok(failed(error));
        }
        self.plans.note(&volume)?;
        if work.attempts == 0 {
            let (space, own) = (namespace(claim), name(claim));
            self.store.record(&Event {
                namespace: space.to_owned(),
                kind: "PersistentVolumeClaim".to_owned(),
                name: own.to_owned(),
                uid: uid(claim).to_owned(),
                field_path: String::new(),
                type_: EventType::Normal,
                reason: "Provisioning".to_owned(),
                message: format!(
                    "External provisioner is provisioning volume for claim \"{space}/{own}\""
                ),
                source: class.provisioner.clone(),
            })?;
        }
        Ok(Prepared::Chore(Box::new(Chore::Make(Box::new(volume)))))
    }
}

fn said(volume: &PersistentVolume, reason: &str, message: String) -> Event {
    Event {
        namespace: String::new(),
        kind: "PersistentVolume".to_owned(),
        name: name(volume).to_owned(),
        uid: uid(volume).to_owned(),
        field_path: String::new(),
        type_: EventType::Normal,
        reason: reason.to_owned(),
        message,
        source: "persistentvolume-controller".to_owned(),
    }
}
