//! Who pulls: passwords, tokens, and the programs that keep them.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::common::http::{Reply, Server};
use crate::common::registry::{Image, PASSWORD, Registry, USER, gzip, serve};
use crate::common::{Machine, finish, path};
use crate::support::{command, docker_config, file_layer, images, pull};

fn image() -> Image {
    Image::new(&[file_layer("a", "a")], gzip)
}

#[test]
fn a_registry_with_a_password_wants_the_right_one() {
    let machine = Machine::bare();
    let registry = Registry::with_password(&machine.path("registry"));
    let name = registry.push("tool:1", &image());
    let refused = pull(&machine, &[&name]).refused();
    let login = format!("log in with `docker login {}`", registry.host);
    assert!(
        refused.contains("denies access to image tool:1"),
        "{refused}"
    );
    assert!(refused.contains(&login), "{refused}");
    let host = registry.host.clone();
    docker_config(
        &machine,
        &json!({"auths": {(host.clone()): {"username": USER, "password": "wrong"}}}),
    );
    assert!(pull(&machine, &[&name]).refused().contains("denies access"));
    // The more specific entry is wrong; then the other one is tried.
    let auth = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"))
    };
    let auths = json!({"auths": {
        (format!("{host}/tool")): {"username": USER, "password": "wrong"},
        (format!("http://{host}/v1/")): {"auth": auth},
    }});
    docker_config(&machine, &auths);
    pull(&machine, &[&name]).ok();
    std::fs::write(machine.path("docker/config.json"), "{").expect("write");
    let refused = pull(&machine, &[&name, "--platform", "linux/s390x"]).refused();
    assert!(
        refused.contains(path(&machine.path("docker/config.json"))),
        "{refused}"
    );
}

#[test]
fn a_credential_helper_is_asked() {
    let machine = Machine::bare();
    let registry = Registry::with_password(&machine.path("registry"));
    let name = registry.push("tool:1", &image());
    let programs = machine.path("programs");
    std::fs::create_dir_all(&programs).expect("directory");
    let program = programs.join("docker-credential-test");
    let write = |script: &str| {
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("write");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("chmod");
    };
    let asked = machine.path("asked");
    let found = json!({"ServerURL": "", "Username": USER, "Secret": PASSWORD});
    let search = format!("{}:/usr/bin:/bin", path(&programs));
    let pull = || {
        let mut command = command(&machine, &[&name]);
        command.env("PATH", &search);
        finish(command)
    };
    docker_config(&machine, &json!({"credsStore": "test"}));
    write("echo 'credentials not found in native keychain'; exit 1");
    assert!(pull().refused().contains("denies access"));
    write("echo 'the vault is sealed'; exit 1");
    let refused = pull().refused();
    assert!(
        refused
            .contains("credential helper \"docker-credential-test\" failed: the vault is sealed"),
        "{refused}"
    );
    // Who needs no password is not held up by that.
    let open = Registry::start(&machine.path("open"));
    let public = open.push("tool:1", &image());
    let mut unlocked = command(&machine, &[&public]);
    unlocked.env("PATH", &search);
    finish(unlocked).ok();
    write(&format!(
        "echo $1 $(cat) > {}; echo '{found}'",
        path(&asked)
    ));
    docker_config(
        &machine,
        &json!({"credHelpers": {(registry.host.clone()): "test"}}),
    );
    pull().ok();
    let asked = std::fs::read_to_string(asked).expect("read");
    assert_eq!(asked, format!("get {}\n", registry.host));
}

#[test]
fn tokens_are_fetched_where_the_registry_says() {
    let machine = Machine::bare();
    // An identity token is exchanged; a password is presented; both lead to the
    // token that the registry takes.
    let tokens = Server::start(|request| {
        let identity = request.method == "POST"
            && request.body.contains("grant_type=refresh_token")
            && request.body.contains("refresh_token=who%26I+am")
            && request.body.contains("service=the+registry")
            && request.body.contains("scope=repository%3Atool%3Apull");
        let password = request.headers.get("authorization").map(String::as_str);
        match (identity, password) {
            (true, _) => Reply::new(200, r#"{"access_token": "opened"}"#),
            // u:p
            (_, Some("Basic dTpw")) => Reply::new(200, r#"{"token": "opened"}"#),
            _ => Reply::new(401, r#"{"errors":[{"message":"who are you?"}]}"#),
        }
    });
    let (image, realm) = (image(), tokens.host.clone());
    let registry = Server::start(move |request| {
        match request.headers.get("authorization").map(String::as_str) {
            Some("Bearer opened") => serve(&image, request),
            _ => Reply::new(401, "").header(
                "WWW-Authenticate",
                &format!("Bearer realm=\"http://{realm}/token\",service=\"the registry\""),
            ),
        }
    });
    let name = format!("{}/tool:1", registry.host);
    let refused = pull(&machine, &[&name]).refused();
    assert!(
        refused.contains("denies access to tool: who are you?"),
        "{refused}"
    );
    for entry in [
        json!({"username": "u", "password": "p"}),
        json!({"identitytoken": "who&I am"}),
        json!({"registrytoken": "opened"}),
    ] {
        docker_config(
            &machine,
            &json!({"auths": {(registry.host.clone()): entry}}),
        );
        pull(&machine, &[&name]).ok();
        assert_eq!(images(&machine).len(), 1);
        machine.orlop(["image", "rm", &name]).ok();
    }
    docker_config(
        &machine,
        &json!({"auths": {(registry.host.clone()): {"identitytoken": "no"}}}),
    );
    let refused = pull(&machine, &[&name]).refused();
    assert!(refused.contains("denies access"), "{refused}");
    assert!(!refused.contains("\"no\""), "{refused}");
}

#[test]
fn a_pods_secrets_come_through_a_pipe_and_execute_nothing() {
    let machine = Machine::bare();
    let registry = Registry::with_password(&machine.path("registry"));
    let name = registry.push("tool:1", &image());
    let ask = |secrets: &[String]| -> Value {
        let question = json!({"secrets": secrets}).to_string();
        let answer = machine.orlop_with(["image", "pull", "--for-pod", "--", &name], &question);
        let text = answer.ok();
        serde_json::from_str(text.lines().next_back().expect("a line")).expect("JSON")
    };
    let host = registry.host.clone();
    let helper = json!({"credHelpers": {(host.clone()): "test"}, "credsStore": "test"}).to_string();
    let refused = ask(std::slice::from_ref(&helper));
    assert_eq!(refused["outcome"], "failed");
    let reason = refused["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("denies access") && !reason.contains("helper"),
        "{reason}"
    );
    let broken = ask(&["{\"auths\": hush}".to_owned()]);
    let reason = broken["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("imagePullSecrets") && !reason.contains("hush"),
        "{reason}"
    );
    let login = json!({"auths": {host: {"username": USER, "password": PASSWORD}}}).to_string();
    let pulled = ask(&[helper, login.clone()]);
    assert_eq!(pulled["outcome"], "pulled");
    assert_eq!(pulled["size"], images(&machine)[0]["size"]);
    drop(registry);
    let kept = ask(&[login]);
    assert_eq!(kept["outcome"], "kept");
}
