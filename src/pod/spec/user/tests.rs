use std::os::unix::fs::symlink;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::pod::spec::fixture::{Rootfs, first, pod, pod_of};

const PASSWD_FILE: &str = "\
root:x:0:0:root:/root:/bin/sh
# a comment
web:x:1000:1001:Web:/srv/web:/bin/sh
broken:x:zero:0::/:
daemon:x:2:2::/sbin
";
const GROUP_FILE: &str = "\
root:x:0:
wheel:x:10:root
web:x:1001:
staff:x:50:web,daemon
video:x:44:root,web
";

fn usual() -> Rootfs {
    Rootfs::new(&[("passwd", PASSWD_FILE), ("group", GROUP_FILE)])
}

fn resolved(pod: &Pod, image_user: &str, rootfs: &Rootfs) -> Result<Identity, SpecError> {
    resolve(pod, first(pod), image_user, rootfs.fd())
}

fn of_image(image_user: &str) -> Result<Identity, SpecError> {
    resolved(&pod_of(json!({})), image_user, &usual())
}

fn ids(identity: &Identity) -> (u32, u32, &[u32]) {
    (identity.uid, identity.gid, &identity.groups)
}

fn with_context(context: Value) -> Pod {
    pod_of(json!({"securityContext": context}))
}

fn with_pod_context(context: Value) -> Pod {
    pod(json!({"securityContext": context, "containers": [{"name": "c"}]}))
}

#[test]
fn an_image_without_user_runs_as_root_with_roots_groups() {
    let identity = of_image("").expect("root");
    assert_eq!(ids(&identity), (0, 0, &[0, 10, 44][..]));
    assert_eq!(identity.home, "/root");
}

#[test]
fn a_user_name_brings_its_group_groups_and_home() {
    let identity = of_image("web").expect("web");
    assert_eq!(ids(&identity), (1000, 1001, &[1001, 44, 50][..]));
    assert_eq!(identity.home, "/srv/web");
}

#[test]
fn a_number_with_an_entry_is_as_good_as_the_name() {
    assert_eq!(
        of_image("1000").expect("a number"),
        of_image("web").expect("a name")
    );
}

#[test]
fn a_number_without_an_entry_has_group_zero_and_no_home() {
    let identity = of_image("4711").expect("a number");
    assert_eq!(ids(&identity), (4711, 0, &[0][..]));
    assert_eq!(identity.home, "/");
}

#[test]
fn a_group_of_the_image_replaces_the_users_own() {
    for user in ["web:staff", "1000:50"] {
        let identity = of_image(user).expect(user);
        assert_eq!(ids(&identity), (1000, 50, &[50, 44][..]), "{user}");
    }
    assert_eq!(of_image("web:").expect("no group").gid, 1001);
}

#[test]
fn an_image_without_accounts_can_run_numbers_but_no_names() {
    let empty = Rootfs::new(&[]);
    let pod = pod_of(json!({}));
    let identity = resolved(&pod, "65532:65532", &empty).expect("numbers");
    assert_eq!(ids(&identity), (65532, 65532, &[65532][..]));
    let error = resolved(&pod, "nobody", &empty).expect_err("a name");
    assert_eq!(
        error.to_string(),
        "unable to find user nobody: no matching entries in passwd file"
    );
}

#[test]
fn an_unknown_group_is_an_error() {
    assert_eq!(
        of_image("web:nogroup").expect_err("a group").to_string(),
        "unable to find group nogroup: no matching entries in group file"
    );
}

#[test]
fn a_line_with_a_broken_number_is_no_entry() {
    assert!(matches!(of_image("broken"), Err(SpecError::UnknownUser(_))));
}

#[test]
fn a_user_of_three_parts_is_refused() {
    assert!(matches!(of_image("a:b:c"), Err(SpecError::ImageUser(_))));
    let pod = with_context(json!({"runAsUser": 5}));
    assert_eq!(resolved(&pod, "a:b:c", &usual()).expect("its own").uid, 5);
}

#[test]
fn the_containers_context_wins_over_the_pods_and_both_over_the_image() {
    let mut pod = with_pod_context(json!({"runAsUser": 2, "runAsGroup": 3000}));
    let identity = resolved(&pod, "web", &usual()).expect("the pod's");
    assert_eq!(ids(&identity), (2, 3000, &[3000, 50][..]));

    let own = json!({"runAsUser": 1000});
    pod.spec.as_mut().expect("a spec").containers[0].security_context =
        Some(serde_json::from_value(own).expect("a context"));
    let identity = resolved(&pod, "daemon", &usual()).expect("the container's");
    assert_eq!((identity.uid, identity.gid), (1000, 3000));
}

#[test]
fn run_as_user_takes_its_group_from_passwd_and_not_from_the_images_user() {
    let pod = with_context(json!({"runAsUser": 1000}));
    assert_eq!(resolved(&pod, "0:50", &usual()).expect("web").gid, 1001);
}

#[test]
fn supplemental_groups_and_fs_group_join_the_images_groups() {
    let mut context = json!({"supplementalGroups": [7, 44], "fsGroup": 99});
    let pod = with_pod_context(context.clone());
    let identity = resolved(&pod, "web", &usual()).expect("merged");
    assert_eq!(identity.groups, [1001, 7, 44, 50, 99]);

    context["supplementalGroupsPolicy"] = json!("Strict");
    let pod = with_pod_context(context);
    let identity = resolved(&pod, "web", &usual()).expect("strict");
    assert_eq!(identity.groups, [1001, 7, 44, 99]);
}

#[test]
fn run_as_non_root_refuses_root_in_kubelets_words() {
    let pod = "web_shop(11111111-2222-3333-4444-555555555555)";
    for (context, image_user, message) in [
        (
            json!({"runAsNonRoot": true}),
            "",
            format!(
                "container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: c)"
            ),
        ),
        (
            json!({"runAsNonRoot": true, "runAsUser": 0}),
            "1000",
            format!("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: c)"),
        ),
        (
            json!({"runAsNonRoot": true}),
            "web:staff",
            format!(
                "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root (pod: \"{pod}\", container: c)"
            ),
        ),
    ] {
        let error = resolved(&with_context(context), image_user, &usual());
        assert_eq!(error.expect_err("root").to_string(), message);
    }
}

#[test]
fn run_as_non_root_lets_numbers_other_than_zero_through() {
    let pod = with_context(json!({"runAsNonRoot": true}));
    assert_eq!(
        resolved(&pod, "1000", &usual()).expect("a number").uid,
        1000
    );
    let pod = with_context(json!({"runAsNonRoot": true, "runAsUser": 5}));
    assert_eq!(resolved(&pod, "web", &usual()).expect("a number").uid, 5);
}

#[test]
fn an_id_beyond_the_range_is_refused() {
    let pod = with_context(json!({"runAsUser": 4_294_967_296_i64}));
    assert_eq!(
        resolved(&pod, "", &usual()).expect_err("an id").to_string(),
        "runAsUser: 4294967296 is not a valid id: must be between 0 and 2147483647"
    );
}

#[test]
fn a_link_in_the_image_ends_in_the_image_not_on_the_machine() {
    let rootfs = usual();
    let etc = rootfs.path().join("etc");
    std::fs::rename(etc.join("passwd"), rootfs.path().join("accounts")).expect("moved");
    symlink("/accounts", etc.join("passwd")).expect("a link");
    let pod = pod_of(json!({}));
    assert_eq!(resolved(&pod, "web", &rootfs).expect("inside").uid, 1000);

    std::fs::remove_file(etc.join("passwd")).expect("removed");
    symlink("../../../../../../etc/passwd", etc.join("passwd")).expect("a link");
    let error = resolved(&pod, "daemon", &rootfs).expect_err("outside");
    assert!(
        matches!(
            error,
            SpecError::AccountFile { .. } | SpecError::UnknownUser(_)
        ),
        "{error}"
    );
}

#[test]
fn a_named_pipe_in_place_of_a_file_is_refused_and_not_waited_for() {
    let rootfs = Rootfs::new(&[]);
    let pipe = rootfs.path().join("etc/passwd");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, mode, 0).expect("a pipe");
    assert_eq!(
        resolved(&pod_of(json!({})), "", &rootfs)
            .expect_err("a pipe")
            .to_string(),
        "cannot read /etc/passwd in the image: not a regular file"
    );
}

#[test]
fn a_passwd_file_of_more_than_a_mebibyte_is_refused() {
    let rootfs = usual();
    let file = File::create(rootfs.path().join("etc/passwd")).expect("a file");
    file.set_len(1 << 40).expect("a hole");
    assert_eq!(
        resolved(&pod_of(json!({})), "", &rootfs)
            .expect_err("a large file")
            .to_string(),
        "cannot read /etc/passwd in the image: larger than 1 MiB"
    );
}

#[test]
fn a_file_of_any_bytes_is_read_without_harm() {
    let rootfs = usual();
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
    std::fs::write(rootfs.path().join("etc/passwd"), bytes).expect("a file");
    let identity = resolved(&pod_of(json!({})), "77", &rootfs).expect("a number");
    assert_eq!(ids(&identity), (77, 0, &[0][..]));
}
