//! `local-path.orlop.dev`: directories of this machine, one for each claim
//! (as rancher's local-path-provisioner has them, whose name is understood too).
//!
//! They are made in `<data root>/local-path`, or in the class's `nodePath`, with the
//! name `<volume>_<namespace>_<claim>` or as the class's `pathPattern` says, which
//! begins with the claim's namespace and name. Anybody may write into them; the
//! directory above is what keeps others out. Their sizes are not enforced.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, LocalVolumeSource, NodeSelector, NodeSelectorRequirement,
    NodeSelectorTerm, PersistentVolume, VolumeNodeAffinity,
};
use rustix::fs::{Mode, mkdirat};
use rustix::io::Errno;

use super::component::{Component, component, joined};
use super::draft::{self, Names};
use super::template::{Value, expand};
use super::{ProvisionError, Provisioner, Wish, ground};
use crate::storage::binder::facts::{annotation, is_for_one_pod, name, volume_spec};
use crate::storage::reclaim::{ReclaimError, check_foreign, climbs, refusal};
use crate::storage::roots::Roots;
use crate::sys::{mount, real_path};
use crate::volume::remove::{Options, Removed, remove_tree};
use crate::volume::trash::{Trash, TrashError};

/// Under orlop's own name.
pub(super) static OWN: LocalPath = LocalPath { shared: true };
/// Under the name that rancher's has.
pub(super) static RANCHER: LocalPath = LocalPath { shared: false };

/// The mode of a volume's directory.
const OPEN: Mode = Mode::from_raw_mode(0o777);
/// The mode of a directory that is made for volumes to be in.
const CLOSED: Mode = Mode::from_raw_mode(0o700);

/// Makes directories of this machine.
pub(super) struct LocalPath {
    /// Whether claims may ask to be mounted by several nodes; with one machine that
    /// is easily granted.
    shared: bool,
}

impl Provisioner for LocalPath {
    fn plan(&self, wish: &Wish<'_>) -> Result<PersistentVolume, ProvisionError> {
        draft::check_claim(wish)?;
        let known = ["nodepath", "pathpattern", "allowunsafepathpattern"];
        let parameters = draft::parameters(wish, &known)?;
        let names = Names::of(wish)?;
        let spec = wish.claim.spec.clone().unwrap_or_default();
        let modes = spec.access_modes.unwrap_or_default();
        let alone = modes.iter().all(|mode| mode == "ReadWriteOnce");
        if !self.shared && !alone && !is_for_one_pod(wish.claim) {
            return Err(ProvisionError::Claim(
                "NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes",
            ));
        }
        let options = wish.class.mount_options.as_deref().unwrap_or_default();
        if !options.is_empty() {
            return Err(ProvisionError::Options(options.join(",")));
        }
        if parameters
            .get("allowunsafepathpattern")
            .is_some_and(|value| value != "false")
        {
            let why = "no path is taken that may lead elsewhere: leave it out";
            return Err(ProvisionError::parameter("allowUnsafePathPattern", why));
        }
        let base = base(parameters.get("nodepath").map(String::as_str), wish.roots)?;
        let directory = directory(
            parameters.get("pathpattern").map(String::as_str),
            wish,
            &names,
        )?;
        let path = base.join(&directory);
        let path = path
            .to_str()
            .ok_or_else(|| ProvisionError::parameter("nodePath", "the path is not valid UTF-8"))?;
        let mut volume = draft::volume(wish, &directory);
        let spec = volume.spec.get_or_insert_default();
        let type_ = annotation(wish.claim, "volumeType")
            .or_else(|| annotation(wish.class, "defaultVolumeType"));
        match type_.unwrap_or("hostPath") {
            "local" => {
                spec.local = Some(LocalVolumeSource {
                    fs_type: None,
                    path: path.to_owned(),
                });
            }
            "hostPath" => {
                spec.host_path = Some(HostPathVolumeSource {
                    path: path.to_owned(),
                    type_: Some("DirectoryOrCreate".to_owned()),
                });
            }
            _ => {
                return Err(ProvisionError::Claim(
                    "the annotation volumeType must be \"local\" or \"hostPath\"",
                ));
            }
        }
        spec.node_affinity = Some(only_on(wish.node));
        Ok(volume)
    }

    fn make(&self, volume: &PersistentVolume, roots: &Roots) -> Result<(), ProvisionError> {
        let path = path(volume)?;
        let (base, made) = draft::divide(volume, &path)?;
        let base = open_base(Path::new(base), roots, true)?;
        let base = base.ok_or_else(|| failed("open", &path)(Errno::NOENT))?;
        ground::make(&base, &made, OPEN, false).map_err(failed("make the directory", &path))
    }

    fn unmake(&self, volume: &PersistentVolume, roots: &Roots) -> Result<(), ProvisionError> {
        let path = path(volume)?;
        let (base, made) = draft::divide(volume, &path)?;
        let Some(base) = open_base(Path::new(base), roots, false)? else {
            return Ok(());
        };
        let unmade = ground::remove_empty(&base, &made).and_then(|_| ground::prune(&base, &made));
        unmade.map_err(failed("remove the directory", &path))
    }

    /// Moves the directory to the trash, from where it is deleted behind everybody's
    /// back. What lies on another file system is deleted here and now.
    fn remove(
        &self,
        volume: &PersistentVolume,
        roots: &Roots,
        options: Options<'_>,
    ) -> Result<Removed, ReclaimError> {
        let path = path(volume)?;
        let (base, made) = draft::divide(volume, &path)?;
        let Some(base) = open_base(Path::new(base), roots, false)? else {
            return Ok(Removed::default());
        };
        let failed = |step| step_failed(step, &path);
        let found = ground::parent(&base, &made).map_err(failed("open"))?;
        let Some((parent, last)) = found else {
            return Ok(Removed::default());
        };
        let real = real_path::of(&parent).map_err(failed("open"))?.join(&last);
        check_foreign(&real, roots)?;
        let points = mount::points_beneath(&real).map_err(|source| ReclaimError::Step {
            step: "look for mounts in",
            path: real.clone(),
            source,
        })?;
        if let Some(point) = points.into_iter().next() {
            return Err(ReclaimError::Mounted(point));
        }
        let data = real_path::open_directory(&roots.data).map_err(failed("open"))?;
        let trash = Trash::open(data.as_fd()).map_err(ReclaimError::Trash)?;
        let removed = match trash.bury(parent.as_fd(), &last, name(volume)) {
            Ok(_) => Removed::default(),
            Err(TrashError::Elsewhere(_)) => {
                remove_tree(parent.as_fd(), &last, options).map_err(ReclaimError::Remove)?
            }
            Err(error) => return Err(ReclaimError::Trash(error)),
        };
        ground::prune(&base, &made).map_err(failed("remove the directories above"))?;
        Ok(removed)
    }

    fn on_delete(&self, _: &PersistentVolume) -> &'static str {
        "delete"
    }
}

/// The directory in which volumes of the class are made.
fn base(given: Option<&str>, roots: &Roots) -> Result<PathBuf, ProvisionError> {
    let Some(given) = given else {
        return Ok(roots.local_path());
    };
    let wrong = |why: &str| ProvisionError::parameter("nodePath", format!("{given:?} {why}"));
    let path = Path::new(given);
    if climbs(path) {
        return Err(wrong("must be an absolute path without '..'"));
    }
    let normal: PathBuf = path.components().collect();
    if normal == Path::new("/") {
        return Err(wrong("is the root of everything: name a directory in it"));
    }
    for part in given.split('/').filter(|part| !part.is_empty()) {
        component("a directory of nodePath", part)?;
    }
    Ok(normal)
}

/// The directory of the claim's volume below the base.
fn directory(
    pattern: Option<&str>,
    wish: &Wish<'_>,
    names: &Names,
) -> Result<String, ProvisionError> {
    let (volume, space, claim) = (&names.volume, &names.namespace, &names.claim);
    let Some(pattern) = pattern.filter(|pattern| !pattern.is_empty()) else {
        let parts = [volume, space, claim].map(Component::as_str);
        let made = component("the directory of the volume", &parts.join("_"))?;
        return Ok(made.as_str().to_owned());
    };
    let metadata = &wish.claim.metadata;
    let of = |map: &Option<std::collections::BTreeMap<String, String>>, key: &str| {
        let value = map.as_ref().and_then(|map| map.get(key));
        value.map_or(Value::Absent, |value| Value::Text(value.clone()))
    };
    let value = |variable: &str| match variable {
        ".PVName" => Value::Text(volume.as_str().to_owned()),
        ".PVC.Name" => Value::Text(claim.as_str().to_owned()),
        ".PVC.Namespace" => Value::Text(space.as_str().to_owned()),
        other => match (
            other.strip_prefix(".PVC.Labels."),
            other.strip_prefix(".PVC.Annotations."),
        ) {
            (Some(key), _) => of(&metadata.labels, key),
            (None, Some(key)) => of(&metadata.annotations, key),
            (None, None) => Value::Unknown,
        },
    };
    let made = expand(pattern, ("{{", "}}"), value)?.unwrap_or_default();
    let is_own = matches!(
        &*made,
        [first, second, ..] if first == space && second.as_str().starts_with(claim.as_str())
    );
    match is_own {
        true => Ok(joined(&made)),
        false => Err(ProvisionError::parameter(
            "pathPattern",
            "it must begin with \"{{ .PVC.Namespace }}/{{ .PVC.Name }}\", so that no claim gets the directory of another",
        )),
    }
}

/// The path of a volume, whichever kind it has.
fn path(volume: &PersistentVolume) -> Result<String, ProvisionError> {
    let spec = volume_spec(volume);
    let path = spec.host_path.map(|source| source.path);
    path.or_else(|| spec.local.map(|source| source.path))
        .ok_or_else(|| ProvisionError::Foreign(name(volume).to_owned()))
}

/// Opens the directory in which volumes are made; with `make` it is made.
fn open_base(base: &Path, roots: &Roots, make: bool) -> Result<Option<OwnedFd>, ProvisionError> {
    let own = |error| ProvisionError::Base(Box::new(error));
    if climbs(base) {
        return Err(own(ReclaimError::Link(base.to_owned())));
    }
    if base != roots.local_path() {
        check_foreign(base, roots).map_err(own)?;
    }
    match real_path::open_directory(base) {
        Err(Errno::NOENT) if make => make_base(base).map(Some),
        Err(Errno::NOENT) => Ok(None),
        opened => opened.map(Some).map_err(|error| own(refusal(base, error))),
    }
}

/// Makes a directory for volumes to be in, and those above it, through no link.
fn make_base(base: &Path) -> Result<OwnedFd, ProvisionError> {
    let failed = |error| ProvisionError::Base(Box::new(refusal(base, error)));
    let (Some(above), Some(name)) = (base.parent(), base.file_name()) else {
        return Err(failed(Errno::NOENT));
    };
    let above = match real_path::open_directory(above) {
        Err(Errno::NOENT) => make_base(above)?,
        opened => opened.map_err(failed)?,
    };
    match mkdirat(&above, name, CLOSED) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(failed(error)),
    }
    real_path::open_directory(base).map_err(failed)
}

/// Only this machine has the directory.
fn only_on(node: &str) -> VolumeNodeAffinity {
    let here = NodeSelectorRequirement {
        key: "kubernetes.io/hostname".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm {
        match_expressions: Some(vec![here]),
        match_fields: None,
    };
    VolumeNodeAffinity {
        required: Some(NodeSelector {
            node_selector_terms: vec![term],
        }),
    }
}

fn failed(step: &'static str, path: &str) -> impl FnOnce(Errno) -> ProvisionError {
    let path = PathBuf::from(path);
    move |error| ProvisionError::Step {
        step,
        path,
        source: error.into(),
    }
}

fn step_failed(step: &'static str, path: &str) -> impl FnOnce(Errno) -> ReclaimError {
    let path = PathBuf::from(path);
    move |error| ReclaimError::Step {
        step,
        path,
        source: error.into(),
    }
}
