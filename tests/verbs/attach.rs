//! Containers with standard input and terminals, and who is attached to them.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use orlop::sys::pidfd;
use serde_json::json;

use crate::common::Machine;
use crate::support::{container, is_over, pod, status, until, with};
use crate::terminal::Terminal;

const SHELL: &str = "stty -echo; echo on $(tty); trap 'echo interrupted' INT; \
                     while read line; do eval \"$line\"; done";

#[test]
fn a_container_with_a_terminal_is_attached_to_and_left_again() {
    let machine = Machine::new();
    let c = with(container("c", SHELL), &json!({"stdin": true, "tty": true}));
    machine.run_pod(&pod(
        &json!({"terminationGracePeriodSeconds": 1, "containers": [c]}),
    ));
    // What the terminal shows is logged as the runtime interface has it.
    until(&machine, &["logs", "web"], |text| {
        text.starts_with("on /dev/pts/0")
    });

    let mut user = Terminal::new(33, 111);
    let keys = ["attach", "-it", "web", "--detach-keys=ctrl-p,ctrl-q"];
    let mut child = user.start(&machine, &keys);
    user.expect("If you don't see a command prompt, try pressing enter.");
    user.type_in("echo size $(stty size) on $(tty)\n");
    user.expect("size 33 111 on /dev/pts/0");
    user.resize(44, 122);
    user.type_in("while [ \"$(stty size)\" != '44 122' ]; do sleep 0.1; done; echo re''sized\n");
    user.expect("resized");
    // Ctrl-C goes through the terminal to the container, not to orlop.
    user.type_in("sleep 1000; echo x\n");
    std::thread::sleep(Duration::from_millis(500));
    user.type_in("\x03");
    user.expect("interrupted");

    // A second user sees the same, and both can type.
    let mut second = Terminal::new(24, 80);
    let mut other = second.start(&machine, &["attach", "-it", "web"]);
    second.expect("try pressing enter.");
    second.type_in("echo hello from b''oth\n");
    second.expect("hello from both");
    user.expect("hello from both");
    // A user who is ended by a signal has the terminal as it was.
    assert!(!second.is_cooked());
    let process = pidfd::open(other.id().cast_signed()).expect("pidfd");
    pidfd::send_signal(&process, 15).expect("signal");
    assert_eq!(other.wait().expect("wait").code(), Some(128 + 15));
    assert!(second.is_cooked());

    user.type_in("\x10\x11");
    user.expect("Session ended, resume using 'orlop attach web -c c -i -t' command");
    assert!(child.wait().expect("wait").success());
    assert!(user.is_cooked());
    // The container did not notice, and its log has it all.
    assert_eq!(status(&machine.pod("web"), "c")["restartCount"], 0);
    let log = until(&machine, &["logs", "web"], |text| {
        text.contains("hello from both")
    });
    assert!(
        log.contains("resized\r\n") && log.contains("interrupted"),
        "{log}"
    );

    // The end of the container is the end of the session.
    let mut last = user.start(&machine, &["attach", "-it", "web", "-q"]);
    user.type_in("exit 3\n");
    assert!(last.wait().expect("wait").success());
    machine.wait_for("web", |pod| status(pod, "c")["restartCount"] == 1);
    assert!(user.is_cooked());
}

#[test]
fn a_user_that_is_not_root_owns_its_terminal() {
    let machine = Machine::new();
    let script = "id -u; stat -c %u $(tty); echo out >/dev/stdout; echo again >$(tty)";
    let c = with(
        container("c", script),
        &json!({"tty": true, "securityContext": {"runAsUser": 1000}}),
    );
    machine.run_pod(&pod(&json!({"restartPolicy": "Never", "containers": [c]})));
    machine.wait_for("web", is_over);
    assert_eq!(
        machine.orlop(["logs", "web"]).ok(),
        "1000\r\n1000\r\nout\r\nagain\r\n"
    );
}

#[test]
fn standard_input_ends_with_its_first_client_or_stays_open() {
    let machine = Machine::new();
    let read = "while read line; do echo got $line; done; echo end";
    let once = with(
        container("once", read),
        &json!({"stdin": true, "stdinOnce": true}),
    );
    let open = with(container("open", read), &json!({"stdin": true}));
    machine.run_pod(&pod(&json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [once, open]})));
    let attached = machine.orlop_with(["attach", "-i", "web", "-c", "once"], "one\ntwo\n");
    assert_eq!(attached.ok(), "got one\ngot two\nend\n");
    assert_eq!(
        machine.orlop(["logs", "web", "-c", "once"]).ok(),
        "got one\ngot two\nend\n"
    );

    for text in ["three", "four"] {
        let mut command = machine.command(["attach", "-i", "web", "-c", "open"]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("spawn");
        let mut input = child.stdin.take().expect("stdin");
        writeln!(input, "{text}").expect("write");
        let wanted = format!("got {text}\n");
        let mut said = vec![0; wanted.len()];
        child
            .stdout
            .take()
            .expect("stdout")
            .read_exact(&mut said)
            .expect("read");
        assert_eq!(String::from_utf8_lossy(&said), wanted);
        child.kill().expect("kill");
        child.wait().expect("wait");
    }
    assert_eq!(
        machine.orlop(["logs", "web", "-c", "open"]).ok(),
        "got three\ngot four\n"
    );
    assert_eq!(status(&machine.pod("web"), "open")["ready"], true);
    let over = machine
        .orlop(["attach", "web", "-c", "once", "--pod-running-timeout=1s"])
        .refused();
    assert_eq!(over, "error: container \"once\" is not running\n");
}

#[test]
fn a_client_that_does_not_read_holds_nothing_up() {
    let machine = Machine::new();
    let script = "read go; seq 1 400000; echo done; read go";
    let c = with(container("c", script), &json!({"stdin": true}));
    machine.run_pod(&pod(
        &json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [c]}),
    ));
    // 2.7 MB for a client that reads nothing of it for now.
    let mut slow = machine.command(["attach", "-i", "web"]);
    let mut child = slow.stdin(Stdio::piped()).spawn().expect("spawn");
    let mut input = child.stdin.take().expect("stdin");
    input.write_all(b"go\n").expect("write");
    let start = Instant::now();
    until(&machine, &["logs", "web", "--tail=1"], |text| {
        text == "done\n"
    });
    assert!(start.elapsed() < Duration::from_secs(60));
    let log = machine.orlop(["logs", "web"]).ok();
    assert_eq!(log.lines().count(), 400_001);
    // What it reads afterwards says what is left out.
    input.write_all(b"end\n").expect("write");
    let mut seen = String::new();
    child
        .stdout
        .take()
        .expect("stdout")
        .read_to_string(&mut seen)
        .expect("read");
    assert!(seen.starts_with("1\n2\n3\n"), "{}", &seen[..40]);
    assert!(seen.len() < log.len(), "{} of {}", seen.len(), log.len());
    child.wait().expect("wait");
}

#[test]
fn an_image_is_run_and_its_exit_code_is_the_commands() {
    let machine = Machine::new();
    let run = |options: &[&str], input: &str| {
        machine.orlop_with(
            [&["run", "job", "--image=busybox"], options].concat(),
            input,
        )
    };
    let rm = ["--rm", "-i", "--restart=Never", "-q", "--"];
    assert_eq!(
        run(&[&rm[..], &["cat"]].concat(), "one\ntwo\n").ok(),
        "one\ntwo\n"
    );
    let failed = run(
        &[
            "--rm",
            "-i",
            "--restart=Never",
            "--env=A=b",
            "--",
            "sh",
            "-c",
            "echo $A; echo oops >&2; exit 7",
        ],
        "",
    );
    assert_eq!(failed.status.code(), Some(7));
    assert_eq!(
        failed.stdout,
        "b\npod \"job\" deleted from default namespace\n"
    );
    assert!(
        failed.stderr.contains("oops\n")
            && failed
                .stderr
                .ends_with("pod default/job terminated (Error)\n"),
        "{failed:?}"
    );
    // So quick that there is nothing to be attached to any more, twenty times.
    for round in 0..20 {
        let text = format!("round {round}");
        assert_eq!(
            run(&[&rm[..], &["echo", &text]].concat(), "").ok(),
            format!("{text}\n")
        );
    }
    machine.assert_nothing_is_left();

    let said = run(
        &[
            "--labels=a=b,c=d",
            "--port=80",
            "--command",
            "--",
            "sleep",
            "1000",
        ],
        "",
    )
    .ok();
    assert_eq!(said, "pod/job created\n");
    let made = machine.pod("job");
    assert_eq!(made["metadata"]["labels"], json!({"a": "b", "c": "d"}));
    assert_eq!(made["spec"]["restartPolicy"], "Always");
    assert_eq!(
        made["spec"]["containers"][0]["command"],
        json!(["sleep", "1000"])
    );
    assert_eq!(
        run(&["--", "true"], "").refused(),
        "Error from server (AlreadyExists): pods \"job\" already exists\n"
    );
    machine.orlop(["delete", "pod", "job", "--now"]).ok();

    let dry = run(
        &[
            "--dry-run=client",
            "-o",
            "yaml",
            "--restart=OnFailure",
            "--",
            "ls",
            "/",
        ],
        "",
    )
    .ok();
    assert!(
        dry.contains("  labels:\n    run: job\n") && dry.contains("restartPolicy: OnFailure"),
        "{dry}"
    );
    machine
        .orlop_with(["create", "-f", "-", "--dry-run=client"], &dry)
        .ok();
    for (options, why) in [
        (
            ["-t"].as_slice(),
            "error: -i/--stdin is required for containers with -t/--tty=true\n",
        ),
        (
            &["--rm"],
            "error: --rm should only be used for attached containers\n",
        ),
        (
            &["--env=A"],
            "error: invalid env: \"A\" is not of the form NAME=VALUE\n",
        ),
        (&["--overrides={"], "error: --overrides is no JSON"),
    ] {
        let refused = run(options, "").refused();
        assert!(refused.starts_with(why), "{refused}");
    }
    assert_eq!(machine.orlop(["get", "pods", "-o", "name"]).ok(), "");
    let late = run(
        &[
            "--rm",
            "-i",
            "--restart=Never",
            "--image-pull-policy=Never",
            "--pod-running-timeout=1s",
            "--overrides={\"spec\":{\"containers\":[{\"name\":\"job\",\"image\":\"none\",\"imagePullPolicy\":\"Never\"}]}}",
        ],
        "",
    );
    assert_eq!(late.status.code(), Some(1));
    assert!(
        late.stderr
            .contains("timed out waiting for container \"job\" to run: ErrImageNeverPull"),
        "{late:?}"
    );
    assert_eq!(machine.orlop(["get", "pods", "-o", "name"]).ok(), "");
}

#[test]
fn a_shell_is_run_in_the_users_terminal_and_removed_afterwards() {
    let machine = Machine::new();
    let mut user = Terminal::new(30, 100);
    let words = [
        "run",
        "sh",
        "--overrides={\"spec\":{\"terminationGracePeriodSeconds\":1}}",
        "--rm",
        "-it",
        "--image=busybox",
        "--restart=Never",
        "--",
        "sh",
    ];
    let mut child = user.start(&machine, &words);
    user.expect("If you don't see a command prompt, try pressing enter.");
    // The prompt was written before anybody was attached, and shows all the same.
    user.expect("/ # ");
    user.type_in("echo $((40 + 2)) $(stty size)\n");
    user.expect("42 30 100");
    user.type_in("exit 9\n");
    user.expect("pod \"sh\" deleted from default namespace");
    assert_eq!(child.wait().expect("wait").code(), Some(9));
    assert!(user.is_cooked());
    machine.assert_nothing_is_left();

    // A closed window ends the session, and the pod with --rm.
    let mut child = user.start(&machine, &words);
    user.expect("/ # ");
    let process = pidfd::open(child.id().cast_signed()).expect("pidfd");
    pidfd::send_signal(&process, 1).expect("signal");
    assert_eq!(child.wait().expect("wait").code(), Some(128 + 1));
    machine.assert_nothing_is_left();
}

#[test]
fn a_terminal_of_exec_gets_its_mode_back_after_a_signal() {
    let machine = Machine::new();
    machine.run_pod(&pod(&json!({"containers": [crate::support::idle("c")]})));
    let mut user = Terminal::new(24, 80);
    let mut child = user.start(&machine, &["exec", "-it", "web", "--", "sh"]);
    user.expect("/ # ");
    assert!(!user.is_cooked());
    let process = pidfd::open(child.id().cast_signed()).expect("pidfd");
    pidfd::send_signal(&process, 15).expect("signal");
    assert_eq!(child.wait().expect("wait").code(), Some(128 + 15));
    assert!(user.is_cooked());
    // Its shell has gone with the terminal.
    let count = "ps | grep -c '[0-9] sh$'";
    let start = Instant::now();
    while machine.sh("web", "c", &format!("{count}; true")).trim() != "0" {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "the shell goes on"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
