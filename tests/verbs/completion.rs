//! What shells and man(1) are told.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::common::{Machine, entries, finish, path};
use crate::support::{idle, pod};

#[test]
fn scripts_for_shells_know_verbs_and_the_pods_that_are_there() {
    let machine = Machine::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = machine.orlop(["completion", shell]).ok();
        for word in ["attach", "--tail", "describe"] {
            assert!(
                script.contains(word.trim_start_matches('-')),
                "{shell}: {word}"
            );
        }
    }
    machine.run_pod(&pod(&json!({"containers": [idle("side")]})));
    let script = machine.path("completion.bash");
    std::fs::write(&script, machine.orlop(["completion", "bash"]).ok()).expect("write");
    let complete = |line: &str| {
        let orlop = machine.command(["version"]);
        let directory = std::path::Path::new(orlop.get_program())
            .parent()
            .expect("a directory")
            .to_owned();
        let words: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
        let ask = format!(
            "source '{}'; COMP_WORDS=({}); COMP_CWORD={}; COMP_LINE='{line}'; COMP_POINT={}; \
             _orlop_pods orlop \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[@]}}\"",
            path(&script),
            words.join(" "),
            words.len() - 1,
            line.len()
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &ask])
            .env("PATH", format!("{}:/usr/bin:/bin", path(&directory)))
            .envs(
                orlop
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        finish(bash).ok().trim_end().to_owned()
    };
    assert_eq!(complete("orlop desc"), "describe");
    assert_eq!(complete("orlop logs w"), "web");
    assert_eq!(complete("orlop delete pod "), "web");
    assert_eq!(complete("orlop exec web -c s"), "side");
    assert!(complete("orlop logs --ta").contains("--tail"));
}

#[test]
fn every_verb_has_a_man_page() {
    let machine = Machine::bare();
    let directory = machine.path("man");
    std::fs::create_dir(&directory).expect("mkdir");
    machine.orlop(["man", path(&directory)]).ok();
    let pages = entries(&directory);
    for verb in [
        "apply",
        "attach",
        "cp",
        "edit",
        "logs",
        "run",
        "wait",
        "image",
        "image-import",
    ] {
        assert!(
            pages.contains(&format!("orlop-{verb}.1")),
            "{verb}: {pages:?}"
        );
    }
    let page = std::fs::read_to_string(directory.join("orlop-logs.1")).expect("read");
    assert!(
        page.contains(".TH orlop-logs 1") && page.contains("rotated") || page.contains("tail"),
        "{page}"
    );
    let refused = machine.orlop(["man", "/no/such/directory"]).refused();
    assert!(refused.contains("cannot write"), "{refused}");
}
