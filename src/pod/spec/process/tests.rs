use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::pod::spec::fixture::{image, pod_of, sandbox, spec_in};

fn process_of(fields: Value, image: &ImageDefaults) -> Result<Process, SpecError> {
    let spec = spec_in(&pod_of(fields), image, &sandbox())?;
    Ok(spec.process().clone().expect("a process"))
}

fn args_of(fields: Value) -> Vec<String> {
    let process = process_of(fields, &image()).expect("a process");
    process.args().clone().expect("arguments")
}

#[test]
fn without_a_command_the_image_decides() {
    assert_eq!(args_of(json!({})), ["/bin/server", "--listen"]);
}

#[test]
fn a_command_replaces_entrypoint_and_arguments_of_the_image() {
    assert_eq!(args_of(json!({"command": ["sleep"]})), ["sleep"]);
    assert_eq!(
        args_of(json!({"command": ["sleep"], "args": ["5"]})),
        ["sleep", "5"]
    );
}

#[test]
fn arguments_alone_go_to_the_images_entrypoint() {
    assert_eq!(args_of(json!({"args": ["-v"]})), ["/bin/server", "-v"]);
}

#[test]
fn nothing_to_run_is_an_error() {
    let error = process_of(json!({}), &ImageDefaults::default());
    assert_eq!(
        error.expect_err("nothing").to_string(),
        "no command specified"
    );
}

#[test]
fn references_in_the_manifests_command_are_replaced_and_in_the_images_not() {
    let env = json!([{"name": "WHO", "value": "world"}]);
    assert_eq!(
        args_of(json!({"env": env, "command": ["echo", "$(WHO)"], "args": ["$$(WHO)", "$(NO)"]})),
        ["echo", "world", "$(WHO)", "$(NO)"]
    );
    let mut image = image();
    image.cmd = vec!["$(WHO)".into()];
    let process = process_of(json!({"env": env}), &image).expect("a process");
    assert_eq!(process.args().clone().expect("args")[1], "$(WHO)");
}

#[test]
fn an_argument_with_a_zero_byte_is_refused() {
    let error = process_of(json!({"args": ["a\u{0}"]}), &image());
    assert!(matches!(error, Err(SpecError::Nul { field: "command" })));
}

#[test]
fn the_working_directory_is_the_manifests_the_images_or_the_root() {
    let directory = |fields: Value, image: &ImageDefaults| {
        let process = process_of(fields, image).expect("a process");
        process.cwd().clone()
    };
    let mut image = image();
    assert_eq!(directory(json!({}), &image), Path::new("/"));
    image.working_dir = "app".into();
    assert_eq!(directory(json!({}), &image), Path::new("/app"));
    let fields = json!({"workingDir": "/srv"});
    assert_eq!(directory(fields, &image), Path::new("/srv"));
}

#[test]
fn privileges_can_be_gained_unless_the_manifest_forbids_it() {
    for (context, expected) in [
        (json!({}), false),
        (json!({"allowPrivilegeEscalation": true}), false),
        (json!({"allowPrivilegeEscalation": false}), true),
    ] {
        let process = process_of(json!({"securityContext": context}), &image());
        assert_eq!(
            process.expect("a process").no_new_privileges(),
            Some(expected)
        );
    }
}

#[test]
fn limits_of_the_process_are_left_as_they_are() {
    let process = process_of(json!({}), &image()).expect("a process");
    assert_eq!(process.rlimits(), &None);
    assert_eq!(process.apparmor_profile(), &None);
}

#[test]
fn the_groups_are_always_set() {
    let process = process_of(json!({}), &image()).expect("a process");
    assert_eq!(process.user().additional_gids(), &Some(vec![0]));
}

#[test]
fn an_oom_score_below_the_launchers_needs_a_capability() {
    let pod = pod_of(json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}));
    let score = |sandbox: &Sandbox| {
        let spec = spec_in(&pod, &image(), sandbox).expect("a specification");
        let process = spec.process().as_ref().expect("a process");
        process.oom_score_adj()
    };
    assert_eq!(score(&sandbox()), Some(-997));

    let mut without = sandbox().capabilities.clone();
    without.remove(&Capability::SysResource);
    let mut poor = sandbox();
    poor.capabilities = &without;
    poor.oom_score_adj = -5;
    assert_eq!(score(&poor), Some(-5));
}
