//! PersistentVolumeClaims, and what claims and volumes have in common
//! (the Kubernetes API reference, "PersistentVolumeClaim v1 core").

use k8s_openapi::api::core::v1::{
    EphemeralVolumeSource, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeClaimTemplate,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{metadata, names};
use crate::kube::field::{FieldError, Findings};
use crate::kube::quantity::Quantity;

const MODES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
const OPERATORS: &[&str] = &["DoesNotExist", "Exists", "In", "NotIn"];
/// The annotation that was the class before there was a field.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Everything that is wrong with a claim, whose defaults are filled in.
pub fn claim(claim: &PersistentVolumeClaim) -> Vec<FieldError> {
    let mut findings = Findings::default();
    metadata::check(&claim.metadata, &mut findings);
    let absent = PersistentVolumeClaimSpec::default();
    check_spec(
        claim.spec.as_ref().unwrap_or(&absent),
        "spec",
        &mut findings,
    );
    findings.0
}

fn check_spec(spec: &PersistentVolumeClaimSpec, at: &str, findings: &mut Findings) {
    check_modes(
        spec.access_modes.as_deref(),
        &format!("{at}.accessModes"),
        "at least 1 access mode is required",
        findings,
    );
    if let Some(selector) = &spec.selector {
        check_selector(selector, &format!("{at}.selector"), findings);
    }
    let requests = spec.resources.as_ref().and_then(|it| it.requests.as_ref());
    match requests.and_then(|requests| requests.get("storage")) {
        None => findings.required(format!("{at}.resources[storage]"), ""),
        Some(size) => check_size(&size.0, &format!("{at}.resources[storage]"), findings),
    }
    check_class(
        spec.storage_class_name.as_deref(),
        &format!("{at}.storageClassName"),
        findings,
    );
    check_volume_mode(
        spec.volume_mode.as_deref(),
        &format!("{at}.volumeMode"),
        findings,
    );
}

/// Checks a list of access modes; `why` says what an empty one lacks.
pub(super) fn check_modes(
    modes: Option<&[String]>,
    at: &str,
    why: &'static str,
    findings: &mut Findings,
) {
    let modes = modes.unwrap_or_default();
    if modes.is_empty() {
        findings.required(at, why);
    }
    for mode in modes {
        findings.one_of(at, Some(mode), MODES);
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        findings.forbidden(at, "may not use ReadWriteOncePod with other access modes");
    }
}

/// Checks an amount of storage.
pub(super) fn check_size(size: &str, at: &str, findings: &mut Findings) {
    match size.parse::<Quantity>() {
        Err(error) => findings.invalid(at, size, error.to_string()),
        Ok(size) if size.is_negative() || size.to_bytes() == 0 => {
            findings.invalid(at, &size.to_string(), "must be greater than zero");
        }
        Ok(_) => {}
    }
}

/// Checks the name of a class; none and the empty one are fine.
pub(super) fn check_class(class: Option<&str>, at: &str, findings: &mut Findings) {
    if let Some(class) = class.filter(|class| !class.is_empty())
        && let Err(why) = names::subdomain(class)
    {
        findings.invalid(at, class, why);
    }
}

/// Checks whether a volume is a file system or a device.
pub(super) fn check_volume_mode(mode: Option<&str>, at: &str, findings: &mut Findings) {
    findings.one_of(at, mode, VOLUME_MODES);
}

fn check_selector(selector: &LabelSelector, at: &str, findings: &mut Findings) {
    for (key, value) in selector.match_labels.iter().flatten() {
        if let Err(why) = names::qualified(key) {
            findings.invalid(format!("{at}.matchLabels"), key, why);
        }
        if let Err(why) = names::label_value(value) {
            findings.invalid(format!("{at}.matchLabels"), value, why);
        }
    }
    for (i, one) in selector.match_expressions.iter().flatten().enumerate() {
        let at = format!("{at}.matchExpressions[{i}]");
        if let Err(why) = names::qualified(&one.key) {
            findings.invalid(format!("{at}.key"), &one.key, why);
        }
        let has_values = one.values.as_ref().is_some_and(|all| !all.is_empty());
        match (one.operator.as_str(), has_values) {
            ("In" | "NotIn", false) => findings.required(
                format!("{at}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ),
            ("Exists" | "DoesNotExist", true) => findings.forbidden(
                format!("{at}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            (operator, _) => {
                findings.one_of(format!("{at}.operator"), Some(operator), OPERATORS);
            }
        }
        for value in one.values.iter().flatten() {
            if let Err(why) = names::label_value(value) {
                findings.invalid(format!("{at}.values"), value, why);
            }
        }
    }
}

/// Checks the claim that a pod has made for one of its volumes.
pub(super) fn check_ephemeral(source: &EphemeralVolumeSource, at: &str, findings: &mut Findings) {
    let at = format!("{at}.volumeClaimTemplate");
    let Some(PersistentVolumeClaimTemplate { metadata, spec }) = &source.volume_claim_template
    else {
        return findings.required(at, "");
    };
    if let Some(metadata) = metadata {
        let mut bare = metadata.clone();
        (bare.labels, bare.annotations) = (None, None);
        if bare != Default::default() {
            findings.forbidden(
                format!("{at}.metadata"),
                "only labels and annotations may be set",
            );
        }
    }
    check_spec(spec, &format!("{at}.spec"), findings);
}

/// What keeps the claim `old` from becoming `new`.
pub fn claim_update(old: &PersistentVolumeClaim, new: &PersistentVolumeClaim) -> Vec<FieldError> {
    let mut findings = Findings::default();
    let was = old.spec.clone().unwrap_or_default();
    let is = new.spec.clone().unwrap_or_default();
    let is_bound = old
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        == Some("Bound");
    let mut allowed = is.clone();
    if was.volume_name.is_none() {
        allowed.volume_name = None;
    }
    if was.storage_class_name.is_none() && !is_bound && beta_class(old).is_none() {
        allowed.storage_class_name = None;
    }
    if is_bound {
        allowed.resources.clone_from(&was.resources);
    }
    if allowed != was {
        findings.forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
    }
    if beta_class(old) != beta_class(new) {
        findings.forbidden(
            format!("metadata.annotations[{BETA_CLASS}]"),
            "field is immutable",
        );
    }
    if let (Some(before), Some(now)) = (requested(&was), requested(&is)) {
        let has = old
            .status
            .as_ref()
            .and_then(|status| status.capacity.as_ref());
        let has = has.and_then(|capacity| capacity.get("storage")?.0.parse::<Quantity>().ok());
        if now < before && has.is_none_or(|has| now <= has) {
            findings.forbidden(
                "spec.resources.requests.storage",
                "field can not be less than status.capacity",
            );
        }
    }
    findings.0.extend(claim(new));
    findings.0
}

fn requested(spec: &PersistentVolumeClaimSpec) -> Option<Quantity> {
    let requests = spec.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage")?.0.parse().ok()
}

fn beta_class(claim: &PersistentVolumeClaim) -> Option<&String> {
    claim.metadata.annotations.as_ref()?.get(BETA_CLASS)
}
