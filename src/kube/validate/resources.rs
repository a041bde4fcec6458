//! Requests and limits.

use crate::kube::field::{Findings, entry};
use crate::kube::huge_pages;
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
    check_huge_pages(&limits, &requests, at, findings);
    let overcommits = |(name, _): &(&String, &Quantity)| huge_pages::page_size(name).is_none();
    for (name, request) in requests.iter().filter(overcommits) {
        if let Some(limit) = limits.get(name).filter(|limit| request > limit) {
            findings.invalid(
                entry(&requests_at, name),
                &request.to_string(),
                format!("must be less than or equal to {name} limit of {limit}"),
            );
        }
    }
}

/// Huge pages are set aside, not promised: nobody requests less than the limit.
fn check_huge_pages(limits: &Amounts, requests: &Amounts, at: &str, findings: &mut Findings) {
    let names = || limits.keys().chain(requests.keys());
    let is_pages = |name: &String| huge_pages::page_size(name).is_some();
    for (name, request) in requests.iter().filter(|(name, _)| is_pages(name)) {
        match limits.get(name) {
            None => findings.required(
                entry(&format!("{at}.limits"), name),
                "Limit must be set for non overcommitable resources",
            ),
            Some(limit) if limit != request => findings.invalid(
                entry(&format!("{at}.requests"), name),
                &request.to_string(),
                format!("must be equal to {name} limit of {limit}"),
            ),
            Some(_) => {}
        }
    }
    let mut computes = names().filter(|name| matches!(name.as_str(), "cpu" | "memory"));
    if names().any(is_pages) && computes.next().is_none() {
        findings.forbidden(at, "HugePages require cpu or memory");
    }
}

/// The valid amounts of one list.
pub(super) fn amounts(
    list: &Option<BTreeMap<String, resource::Quantity>>,
    at: &str,
    findings: &mut Findings,
) -> Amounts {
    let mut amounts = Amounts::new();
    for (name, written) in list.iter().flatten() {
        let in_bytes = match name.as_str() {
            "cpu" => false,
            "memory" | "ephemeral-storage" => true,
            name if huge_pages::page_size(name).is_some() => true,
            _ => {
                let why = "must be a standard resource for containers: cpu, memory, ephemeral-storage or hugepages-<size>";
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
            Ok(amount)
                if huge_pages::page_size(name)
                    .is_some_and(|size| amount.to_bytes() % size != 0) =>
            {
                let size = name.trim_start_matches(huge_pages::PREFIX);
                let why = format!("{} is not positive integer multiple of {size}", written.0);
                findings.invalid(field, &written.0, why);
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
