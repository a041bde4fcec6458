//! `nfs.orlop.dev`: directories of an export, one for each claim. The parameters
//! are those of csi-driver-nfs and of nfs-subdir-external-provisioner, whose names
//! are understood too:
//!
//! | parameter | meaning |
//! |---|---|
//! | `server`, `share` | the export in which the directories are made |
//! | `subDir` | the directory's name, with `${pvc.metadata.name}`, `${pvc.metadata.namespace}` and `${pv.metadata.name}` |
//! | `pathPattern` | the same, with `${.PVC.name}`, `${.PVC.namespace}`, `${.PVC.labels.KEY}`, `${.PVC.annotations.KEY}` |
//! | `mountPermissions` | the directory's mode, octal |
//! | `onDelete` | `delete`, `retain`, or `archive`: renamed to `archived-<name>` |
//! | `archiveOnDelete` | `true` for `archive`, `false` for `delete` |
//!
//! What each of the names leaves open is as it is there: under the CSI driver's, the
//! directory has the volume's name, the mode that the server gives it, and is
//! deleted; under the other's, it is `<namespace>-<claim>-<volume>`, mode 0777, and
//! is archived. `nfs.orlop.dev` takes the volume's name, mode 0777, and deletes.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{NFSVolumeSource, PersistentVolume};
use rustix::fs::Mode;
use rustix::io::Errno;

use super::component::{Component, component, components, joined};
use super::draft::{self, Names};
use super::template::{Value, expand};
use super::{ProvisionError, Provisioner, Wish, ground};
use crate::storage::binder::facts::{annotate, annotation, name};
use crate::storage::reclaim::{ReclaimError, nfs_source};
use crate::storage::roots::Roots;
use crate::volume::nfs::kernel::KernelClient;
use crate::volume::nfs::{Mounter, NfsSource};
use crate::volume::remove::{Options, Removed, remove_tree};

/// Annotation of a volume with what becomes of its data.
const ON_DELETE: &str = "nfs.orlop.dev/on-delete";
/// Annotation of a volume with the mode of its directory, octal, if its class says one.
const MODE: &str = "nfs.orlop.dev/mode";
/// The mode of directories for which none is said.
const OPEN: u32 = 0o777;

/// Under orlop's own name.
pub(super) static OWN: Nfs = Nfs {
    long_name: false,
    mode: Some(OPEN),
    on_delete: "delete",
};
/// Under the CSI driver's.
pub(super) static CSI: Nfs = Nfs {
    long_name: false,
    mode: None,
    on_delete: "delete",
};
/// Under that of the older provisioner.
pub(super) static SUBDIR: Nfs = Nfs {
    long_name: true,
    mode: Some(OPEN),
    on_delete: "archive",
};

/// Makes directories of exports.
pub(super) struct Nfs {
    /// Whether namespace and claim are in the name of a directory.
    long_name: bool,
    mode: Option<u32>,
    on_delete: &'static str,
}

impl Provisioner for Nfs {
    fn plan(&self, wish: &Wish<'_>) -> Result<PersistentVolume, ProvisionError> {
        draft::check_claim(wish)?;
        let known = [
            "server",
            "share",
            "subdir",
            "pathpattern",
            "mountpermissions",
            "ondelete",
            "archiveondelete",
        ];
        let parameters = draft::parameters(wish, &known)?;
        let names = Names::of(wish)?;
        let server = required(&parameters, "server")?;
        if server.is_empty()
            || server
                .chars()
                .any(|c| c.is_control() || "/ #\\".contains(c))
        {
            let why = format!("{server:?} is no name or address of a host");
            return Err(ProvisionError::parameter("server", why));
        }
        let share = share(required(&parameters, "share")?)?;
        let directory = joined(&self.directory(&parameters, wish, &names)?);
        let mut volume = draft::volume(wish, &directory);
        annotate(&mut volume, ON_DELETE, self.wanted_on_delete(&parameters)?);
        if let Some(mode) = mode(&parameters)? {
            annotate(&mut volume, MODE, &format!("{mode:o}"));
        }
        let spec = volume.spec.get_or_insert_default();
        spec.nfs = Some(NFSVolumeSource {
            path: format!("{share}/{directory}"),
            read_only: None,
            server: server.to_owned(),
        });
        Ok(volume)
    }

    fn make(&self, volume: &PersistentVolume, _: &Roots) -> Result<(), ProvisionError> {
        let (share, made) = place(volume)?;
        let base = KernelClient.mount(&share)?;
        let given = annotation(volume, MODE).and_then(|mode| u32::from_str_radix(mode, 8).ok());
        let failed = failed("make the directory", volume);
        match given.or(self.mode) {
            Some(mode) => {
                let mode = Mode::from_raw_mode(mode & 0o7777);
                ground::make(&base, &made, mode, given.is_some()).map_err(failed)
            }
            None => ground::make(&base, &made, Mode::from_raw_mode(0o755), false).map_err(failed),
        }
    }

    fn unmake(&self, volume: &PersistentVolume, _: &Roots) -> Result<(), ProvisionError> {
        let (share, made) = place(volume)?;
        let base = KernelClient.mount(&share)?;
        let unmade = ground::remove_empty(&base, &made).and_then(|_| ground::prune(&base, &made));
        unmade.map_err(failed("remove the directory", volume))
    }

    fn remove(
        &self,
        volume: &PersistentVolume,
        _: &Roots,
        options: Options<'_>,
    ) -> Result<Removed, ReclaimError> {
        let what = self.on_delete(volume);
        let (share, made) = place(volume)?;
        if what == "retain" {
            return Ok(Removed::default());
        }
        let base = KernelClient.mount(&share)?;
        if what == "archive" {
            return ground::archive(&base, &made)
                .map(|()| Removed::default())
                .map_err(|error| failed("archive", volume)(error).into());
        }
        delete(&base, &made, volume, options)
    }

    fn on_delete(&self, volume: &PersistentVolume) -> &'static str {
        match annotation(volume, ON_DELETE) {
            Some("delete") => "delete",
            Some("archive") => "archive",
            Some(_) => "retain",
            None => self.on_delete,
        }
    }
}

impl Nfs {
    /// The directory of the claim's volume below the share.
    fn directory(
        &self,
        parameters: &BTreeMap<String, String>,
        wish: &Wish<'_>,
        names: &Names,
    ) -> Result<Vec<Component>, ProvisionError> {
        let of = |key: &str| parameters.get(key).filter(|text| !text.is_empty());
        let made = match (of("subdir"), of("pathpattern")) {
            (Some(_), Some(_)) => {
                let why = "subDir says the same: leave one out";
                return Err(ProvisionError::parameter("pathPattern", why));
            }
            (Some(template), None) => {
                expand(template, ("${", "}"), |variable| csi(variable, names))?
            }
            (None, Some(template)) => expand(template, ("${", "}"), |variable| {
                subdir(variable, wish, names)
            })?,
            (None, None) => None,
        };
        if let Some(made) = made {
            return Ok(made);
        }
        let name = match self.long_name {
            true => {
                let parts = [&names.namespace, &names.claim, &names.volume];
                parts.map(Component::as_str).join("-")
            }
            false => names.volume.as_str().to_owned(),
        };
        Ok(vec![component("the directory of the volume", &name)?])
    }

    fn wanted_on_delete(
        &self,
        parameters: &BTreeMap<String, String>,
    ) -> Result<&'static str, ProvisionError> {
        let of = |key: &str| parameters.get(key).map_or("", String::as_str);
        let (what, archive) = (of("ondelete"), of("archiveondelete"));
        match (&*what.to_lowercase(), archive) {
            ("delete", _) | ("", "false") => Ok("delete"),
            ("archive", _) | ("", "true") => Ok("archive"),
            ("retain", _) => Ok("retain"),
            ("", "") => Ok(self.on_delete),
            ("", other) => {
                let why = format!("{other:?} is neither \"true\" nor \"false\"");
                Err(ProvisionError::parameter("archiveOnDelete", why))
            }
            _ => {
                let why = format!("{what:?} is not one of delete, retain, archive");
                Err(ProvisionError::parameter("onDelete", why))
            }
        }
    }
}

fn csi(variable: &str, names: &Names) -> Value {
    let text = match variable {
        "pvc.metadata.name" => &names.claim,
        "pvc.metadata.namespace" => &names.namespace,
        "pv.metadata.name" => &names.volume,
        _ => return Value::Unknown,
    };
    Value::Text(text.as_str().to_owned())
}

fn subdir(variable: &str, wish: &Wish<'_>, names: &Names) -> Value {
    let metadata = &wish.claim.metadata;
    let of = |map: &Option<BTreeMap<String, String>>, key: &str| {
        let value = map.as_ref().and_then(|map| map.get(key));
        value.map_or(Value::Absent, |value| Value::Text(value.clone()))
    };
    match variable {
        ".PVC.name" => Value::Text(names.claim.as_str().to_owned()),
        ".PVC.namespace" => Value::Text(names.namespace.as_str().to_owned()),
        other => match (
            other.strip_prefix(".PVC.labels."),
            other.strip_prefix(".PVC.annotations."),
        ) {
            (Some(key), _) => of(&metadata.labels, key),
            (None, Some(key)) => of(&metadata.annotations, key),
            (None, None) => Value::Unknown,
        },
    }
}

fn required<'a>(
    parameters: &'a BTreeMap<String, String>,
    key: &str,
) -> Result<&'a str, ProvisionError> {
    let value = parameters.get(key).map(String::as_str);
    value.filter(|value| !value.is_empty()).ok_or_else(|| {
        ProvisionError::parameter(
            key,
            "it is required: volumes are made in an export of that server",
        )
    })
}

/// The share without a slash at its end: empty for the server's root.
fn share(given: &str) -> Result<String, ProvisionError> {
    let Some(path) = given.strip_prefix('/') else {
        let why = format!("{given:?} is no absolute path");
        return Err(ProvisionError::parameter("share", why));
    };
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return Ok(String::new());
    }
    Ok(format!("/{}", joined(&components("the share", path)?)))
}

fn mode(parameters: &BTreeMap<String, String>) -> Result<Option<u32>, ProvisionError> {
    let Some(given) = parameters
        .get("mountpermissions")
        .filter(|it| !it.is_empty())
    else {
        return Ok(None);
    };
    let mode = u32::from_str_radix(given, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777);
    let wrong = || {
        let why = format!("{given:?} is no mode: write it in octal, as in 0770");
        ProvisionError::parameter("mountPermissions", why)
    };
    // Nothing is changed then, as the CSI driver has it.
    mode.map(|mode| (mode != 0).then_some(mode))
        .ok_or_else(wrong)
}

/// The share in which a volume was made, and its directory there.
fn place(volume: &PersistentVolume) -> Result<(NfsSource, Vec<Component>), ProvisionError> {
    let source = nfs_source(volume);
    let source = source.ok_or_else(|| ProvisionError::Foreign(name(volume).to_owned()))?;
    let (share, made) = draft::divide(volume, &source.path)?;
    let share = NfsSource {
        path: share.to_owned(),
        ..source.clone()
    };
    Ok((share, made))
}

fn delete(
    base: &OwnedFd,
    made: &[Component],
    volume: &PersistentVolume,
    options: Options<'_>,
) -> Result<Removed, ReclaimError> {
    let failed = |step| move |error| ReclaimError::from(failed(step, volume)(error));
    let Some((parent, last)) = ground::parent(base, made).map_err(failed("open"))? else {
        return Ok(Removed::default());
    };
    let removed = remove_tree(parent.as_fd(), &last, options).map_err(ReclaimError::Remove)?;
    ground::prune(base, made).map_err(failed("remove the directories above"))?;
    Ok(removed)
}

fn failed(step: &'static str, volume: &PersistentVolume) -> impl FnOnce(Errno) -> ProvisionError {
    let path = nfs_source(volume).map(|source| PathBuf::from(source.export()));
    move |error| ProvisionError::Step {
        step,
        path: path.unwrap_or_default(),
        source: error.into(),
    }
}
