//! Requests and limits.

use crate::kube::field::{Findings, entry};
use crate::kube::quantity::Quantity;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource;
use std::collections::BTreeMap;

type Amounts = BTreeMap<String, Quantity>;

/// Checks the resources at `at`, as in `spec.containers[0].resources`.
pub(super) fn check(resources: &ResourceRequirements, at: &str, findings: &mut Findings) {
    let limits = amounts(&resources.limits, &format!("{at}.limits"), findings);
    let requests_at = format!("{at}.requests");
    let requests = amounts(&resources.requests, &requests_at, findings);
    for (name, request) in &requests {
        if let Some(limit) = limits.get(name).filter(|limit| request > limit) {
            findings.invalid(
                entry(&requests_at, name),
                &request.to_string(),
                format!("must be less than or equal to {name} limit of {limit}"),
            );
        }
    }
}

/// The valid amounts of one list.
fn amounts(
    list: &Option<BTreeMap<String, resource::Quantity>>,
    at: &str,
    findings: &mut Findings,
) -> Amounts {
    let mut amounts = Amounts::new();
    for (name, written) in list.iter().flatten() {
        let in_bytes = match name.as_str() {
            "cpu" => false,
            "memory" | "ephemeral-storage" => true,
            _ => {
                let why =
                    "must be a standard resource for containers: cpu, memory or ephemeral-storage";
                findings.invalid(at, name, why);
                continue;
            }
        };
        let field = entry(at, name);
        match written.0.parse::<Quantity>() {
            Err(error) => findings.invalid(field, &written.0, error.to_string()),
            Ok(amount) if amount.is_negative() => {
                findings.invalid(field, &written.0, "must be greater than or equal to 0");
            }
            Ok(amount) if in_bytes && !amount.is_whole() => {
                findings.invalid(field, &written.0, fraction_of_a_byte(&written.0));
            }
            Ok(amount) => {
                amounts.insert(name.clone(), amount);
            }
        }
    }
    amounts
}

/// Nearly always `512m`, which is half a byte, for `512M`.
fn fraction_of_a_byte(written: &str) -> String {
    let hint = match written.strip_suffix('m') {
        Some(amount) => {
            format!(" (\"m\" means thousandths; did you mean \"{amount}M\" or \"{amount}Mi\"?)")
        }
        None => String::new(),
    };
    format!("must be a whole number of bytes{hint}")
}
