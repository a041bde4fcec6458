//! Defaults of probes and hooks.

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};

use super::fill;

/// Fills in the probes and hooks of `container`.
pub(super) fn defaults(container: &mut Container) {
    let probes = [
        &mut container.startup_probe,
        &mut container.liveness_probe,
        &mut container.readiness_probe,
    ];
    probes.into_iter().flatten().for_each(probe);
    let Some(lifecycle) = &mut container.lifecycle else {
        return;
    };
    let hooks = [&mut lifecycle.post_start, &mut lifecycle.pre_stop];
    let gets = hooks.into_iter().flatten();
    gets.filter_map(|hook| hook.http_get.as_mut())
        .for_each(http_get);
}

fn probe(probe: &mut Probe) {
    // A zero is what the API takes a missing number for.
    for (field, value) in [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ] {
        if field.unwrap_or(0) == 0 {
            *field = Some(value);
        }
    }
    if let Some(get) = &mut probe.http_get {
        http_get(get);
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn http_get(get: &mut HTTPGetAction) {
    fill(&mut get.path, "/");
    fill(&mut get.scheme, "HTTP");
}
