//! The `Volumes` section of a page: each volume's source.

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeSource, EmptyDirVolumeSource, HostPathVolumeSource, ProjectedVolumeSource,
    Volume,
};

use super::{Limits, Page};
use crate::cli::print::printable;
use crate::storage::binder::short_modes;
use crate::volume::empty_dir::Enforcement;

/// The section, also when there are no volumes.
pub(super) fn all(page: &mut Page, volumes: &[Volume], limits: &Limits) {
    if volumes.is_empty() {
        page.entry(0, "Volumes", "<none>");
        return;
    }
    page.line(0, "Volumes:");
    for volume in volumes {
        page.line(1, printable(&volume.name) + ":");
        source(page, volume, limits);
    }
}

fn source(page: &mut Page, volume: &Volume, limits: &Limits) {
    if let Some(source) = &volume.host_path {
        host_path(page, source);
    } else if let Some(source) = &volume.empty_dir {
        empty_dir(page, source, limits.get(&volume.name));
    } else if let Some(source) = &volume.nfs {
        let type_ = "NFS (an NFS mount that lasts the lifetime of a pod)";
        block(
            page,
            type_,
            &[
                ("Server", &source.server),
                ("Path", &source.path),
                ("ReadOnly", yes(source.read_only)),
            ],
        );
    } else if let Some(source) = &volume.persistent_volume_claim {
        let type_ =
            "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)";
        block(
            page,
            type_,
            &[
                ("ClaimName", &source.claim_name),
                ("ReadOnly", yes(source.read_only)),
            ],
        );
    } else if let Some(source) = &volume.config_map {
        block(
            page,
            "ConfigMap (a volume populated by a ConfigMap)",
            &[("Name", &source.name), ("Optional", yes(source.optional))],
        );
    } else if let Some(source) = &volume.secret {
        block(
            page,
            "Secret (a volume populated by a Secret)",
            &[
                (
                    "SecretName",
                    source.secret_name.as_deref().unwrap_or_default(),
                ),
                ("Optional", yes(source.optional)),
            ],
        );
    } else if let Some(source) = &volume.downward_api {
        downward_api(page, source);
    } else if let Some(source) = &volume.projected {
        projected(page, source);
    } else if let Some(source) = &volume.image {
        block(
            page,
            "Image (a container image or OCI artifact)",
            &[
                ("Reference", source.reference.as_deref().unwrap_or_default()),
                (
                    "PullPolicy",
                    source.pull_policy.as_deref().unwrap_or_default(),
                ),
            ],
        );
    } else if let Some(source) = &volume.ephemeral {
        let template = source.volume_claim_template.clone().unwrap_or_default();
        let class = template.spec.storage_class_name.unwrap_or_default();
        let modes = template.spec.access_modes.unwrap_or_default();
        block(
            page,
            "EphemeralVolume (an inline specification for a volume that gets created and deleted with the pod)",
            &[
                ("StorageClass", &class),
                ("Access Modes", &short_modes(&modes)),
                (
                    "VolumeMode",
                    template.spec.volume_mode.as_deref().unwrap_or_default(),
                ),
            ],
        );
    } else {
        page.line(1, "<unknown>");
    }
}

pub(super) fn block(page: &mut Page, type_: &str, entries: &[(&str, &str)]) {
    page.entry(2, "Type", type_);
    for (key, value) in entries {
        page.entry(2, key, value);
    }
}

pub(super) fn host_path(page: &mut Page, source: &HostPathVolumeSource) {
    block(
        page,
        "HostPath (bare host directory volume)",
        &[
            ("Path", &source.path),
            ("HostPathType", source.type_.as_deref().unwrap_or("<none>")),
        ],
    );
}

fn empty_dir(page: &mut Page, source: &EmptyDirVolumeSource, enforcement: Option<&Enforcement>) {
    let limit = source.size_limit.as_ref().map(|limit| limit.0.as_str());
    let type_ = "EmptyDir (a temporary directory that shares a pod's lifetime)";
    let limit = match (limit.filter(|limit| *limit != "0"), enforcement) {
        (None, _) => "<unset>".to_owned(),
        (Some(limit), None) => limit.to_owned(),
        (Some(limit), Some(by)) => format!("{limit} ({})", by.as_str()),
    };
    block(
        page,
        type_,
        &[
            ("Medium", source.medium.as_deref().unwrap_or_default()),
            ("SizeLimit", &limit),
        ],
    );
}

fn downward_api(page: &mut Page, source: &DownwardAPIVolumeSource) {
    page.entry(
        2,
        "Type",
        "DownwardAPI (a volume populated by information about the pod)",
    );
    page.line(2, "Items:");
    for item in source.items.iter().flatten() {
        let field = item.field_ref.as_ref().map(|field| &field.field_path);
        let resource = item
            .resource_field_ref
            .as_ref()
            .map(|field| &field.resource);
        for of in field.into_iter().chain(resource) {
            page.line(3, printable(of) + " -> " + &printable(&item.path));
        }
    }
}

fn projected(page: &mut Page, source: &ProjectedVolumeSource) {
    let type_ = "Projected (a volume that contains injected data from multiple sources)";
    page.entry(2, "Type", type_);
    for part in source.sources.iter().flatten() {
        if let Some(secret) = &part.secret {
            page.entry(2, "SecretName", &secret.name);
            page.entry(2, "Optional", yes(secret.optional));
        } else if part.downward_api.is_some() {
            page.entry(2, "DownwardAPI", "true");
        } else if let Some(map) = &part.config_map {
            page.entry(2, "ConfigMapName", &map.name);
            page.entry(2, "Optional", yes(map.optional));
        } else if let Some(token) = &part.service_account_token {
            // Kubernetes' default is an hour.
            let seconds = token.expiration_seconds.unwrap_or(3600);
            page.entry(2, "TokenExpirationSeconds", seconds.to_string());
        }
    }
}

fn yes(flag: Option<bool>) -> &'static str {
    if flag == Some(true) { "true" } else { "false" }
}
