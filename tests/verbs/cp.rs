//! Copying into containers and out of them, also where a container lies in wait.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::common::{Machine, entries, path};
use crate::support::{idle, pod, with};

fn machine() -> Machine {
    let machine = Machine::new();
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let user = json!({"securityContext": {"runAsUser": 1000, "runAsGroup": 2000}, "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    machine.run_pod(&pod(&json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [with(idle("c"), &mount), with(idle("d"), &user)],
        "volumes": [{"name": "v", "emptyDir": {}}],
    })));
    machine
}

/// A tree with a file, a program, a link and a directory, last changed at 10^9 s.
fn tree(at: &Path) {
    fs::create_dir_all(at.join("sub/empty")).expect("mkdir");
    fs::write(at.join("file"), "text\n").expect("write");
    fs::write(at.join("sub/run"), vec![7; 300_000]).expect("write");
    fs::set_permissions(at.join("sub/run"), fs::Permissions::from_mode(0o751)).expect("chmod");
    fs::set_permissions(at.join("sub"), fs::Permissions::from_mode(0o750)).expect("chmod");
    symlink("../file", at.join("sub/link")).expect("symlink");
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for name in ["file", "sub/run", "sub"] {
        fs::File::open(at.join(name))
            .expect("open")
            .set_modified(then)
            .expect("utimes");
    }
}

#[test]
fn trees_go_in_and_out_with_their_modes_and_times() {
    let machine = machine();
    let local = machine.path("local");
    tree(&local);
    let cp = |from: &str, to: &str| machine.orlop(["cp", from, to, "-c", "c"]);
    // To a name that is new, and into a directory that is there.
    assert_eq!(cp(path(&local), "web:/v/new").ok(), "");
    assert_eq!(cp(path(&local), "default/web:/v/").ok(), "");
    for at in ["/v/new", "/v/local"] {
        let script = format!(
            "cd {at} && cat file && stat -c '%n %a %Y %u' file sub sub/run && readlink sub/link && wc -c <sub/run && ls sub"
        );
        let said = machine.sh("web", "c", &script);
        assert_eq!(
            said,
            "text\nfile 644 1000000000 0\nsub 750 1000000000 0\nsub/run 751 1000000000 0\n../file\n300000\nempty\nlink\nrun\n"
        );
    }
    // One file, over one that is there, through a directory that is a link.
    machine.sh(
        "web",
        "c",
        "mkdir /real && ln -s real /linked && echo old >/real/file",
    );
    cp(path(&local.join("file")), "web:/linked/file").ok();
    assert_eq!(machine.sh("web", "c", "cat /real/file"), "text\n");
    // A file that something is mounted on is written in its place.
    cp(path(&local.join("file")), "web:/etc/hosts").ok();
    assert_eq!(machine.sh("web", "c", "cat /etc/hosts"), "text\n");
    // What is copied belongs to the container's user.
    machine
        .orlop(["cp", path(&local.join("file")), "web:/tmp/mine", "-c", "d"])
        .ok();
    assert_eq!(
        machine.sh(
            "web",
            "d",
            "stat -c '%u %g' /tmp/mine; echo more >>/tmp/mine && cat /tmp/mine"
        ),
        "1000 2000\ntext\nmore\n"
    );

    // And out again: links are left out, and told.
    let out = machine.path("out");
    let outcome = cp("web:/v/new", path(&out));
    assert_eq!(
        outcome.stderr,
        "warning: skipping symlink: \"/v/new/sub/link\" -> \"../file\"\n"
    );
    outcome.ok();
    assert_eq!(
        fs::read_to_string(out.join("file")).expect("read"),
        "text\n"
    );
    let run = out.join("sub/run").metadata().expect("metadata");
    assert_eq!(
        (run.mode() & 0o7777, run.mtime(), run.len()),
        (0o751, 1_000_000_000, 300_000)
    );
    assert_eq!(
        out.join("sub").metadata().expect("metadata").mtime(),
        1_000_000_000
    );
    let mut names = entries(&out.join("sub"));
    names.sort();
    assert_eq!(names, ["empty", "run"]);
    // A file into a directory, and under another name; a link that is named is followed.
    machine.sh(
        "web",
        "c",
        "ln -s new/file /v/pointer; chmod 4755 /v/new/sub/run",
    );
    cp("web:/v/pointer", path(&out.join("sub"))).ok();
    assert_eq!(
        fs::read_to_string(out.join("sub/pointer")).expect("read"),
        "text\n"
    );
    cp("web:v/new/sub/run", path(&out.join("named"))).ok();
    let mode = out.join("named").metadata().expect("metadata").mode() & 0o7777;
    assert_eq!(
        mode, 0o755,
        "no program of a container becomes set-user-ID on the host"
    );
}

#[test]
fn what_cannot_be_copied_is_named() {
    let machine = machine();
    let cp = |from: &str, to: &str| machine.orlop(["cp", from, to, "-c", "c"]).refused();
    let nowhere = path(&machine.path("nowhere")).to_owned();
    for (from, to, why) in [
        (
            "a",
            "b",
            "one of src or dest must be a remote file specification",
        ),
        (
            "web:/a",
            "web:/b",
            "one of src or dest must be a local file specification",
        ),
        (&nowhere, "web:/tmp", "doesn't exist in local filesystem"),
        (
            "web:/nothing",
            "/tmp/x",
            "cannot find \"/nothing\" in the container",
        ),
        (
            "/etc/passwd",
            "web:/no/such/place",
            "cannot find the directory \"/no/such\" in the container",
        ),
        ("/etc/passwd", "web:/proc/sys/kernel", "cannot copy"),
        ("/etc/passwd", "nobody:/tmp", "pods \"nobody\" not found"),
        ("web:", "/tmp/x", "filepath can not be empty"),
    ] {
        let refused = cp(from, to);
        assert!(refused.contains(why), "{from} {to}: {refused}");
    }
    let unknown = machine
        .orlop(["cp", "/etc/passwd", "web:/tmp", "-c", "z"])
        .refused();
    assert_eq!(unknown, "error: container z is not valid for pod web\n");
    // Pipes and devices are left out, and hold nothing up.
    machine.sh("web", "c", "mkdir /t && mkfifo /t/pipe && echo x >/t/file");
    let out = machine.path("out");
    let outcome = machine.orlop(["cp", "web:/t", path(&out), "-c", "c"]);
    assert!(
        outcome.stderr.contains("skipping \"/t/pipe\""),
        "{outcome:?}"
    );
    outcome.ok();
    assert_eq!(entries(&out), ["file"]);
}

#[test]
fn links_of_a_container_lead_nowhere_on_the_host() {
    let machine = machine();
    let secret = machine.path("secret");
    fs::create_dir(&secret).expect("mkdir");
    fs::write(secret.join("key"), "the host's").expect("write");
    let secret = path(&secret);
    let payload = machine.path("payload");
    fs::write(&payload, "payload").expect("write");
    // Links to the host's directory, in all the ways that have been tried.
    machine.sh("web", "c", &format!(
        "mkdir /t && ln -s {secret} /t/abs && ln -s ../../../../../../../../..{secret} /t/rel && \
         ln -s /proc/1/root{secret} /t/magic && ln -s {secret}/key /t/key"
    ));
    for (from, to) in [
        (path(&payload), "web:/t/abs/new"),
        (path(&payload), "web:/t/rel/new"),
        (path(&payload), "web:/t/magic/new"),
        (path(&payload), &format!("web:/../../../../..{secret}/new")),
        (path(&payload), &format!("web:/proc/1/root{secret}/new")),
    ] {
        let refused = machine.orlop(["cp", from, to, "-c", "c"]).refused();
        assert!(refused.contains("in the container"), "{to}: {refused}");
    }
    for from in [
        "web:/t/abs/key",
        "web:/t/rel/key",
        "web:/t/magic/key",
        "web:/t/key",
    ] {
        let out = machine.path("stolen");
        machine.orlop(["cp", from, path(&out), "-c", "c"]).refused();
        assert!(!out.exists(), "{from}");
    }
    // A link in the place of the target is replaced, not followed.
    machine
        .orlop(["cp", path(&payload), "web:/t/key", "-c", "c"])
        .ok();
    assert_eq!(
        fs::read_to_string(Path::new(secret).join("key")).expect("read"),
        "the host's"
    );
    assert_eq!(machine.sh("web", "c", "cat /t/key"), "payload");

    // On the host nothing is written through links that are there already.
    let out = machine.path("out");
    fs::create_dir(&out).expect("mkdir");
    symlink(secret, out.join("sub")).expect("symlink");
    symlink(Path::new(secret).join("key"), out.join("key")).expect("symlink");
    machine.sh("web", "c", "mkdir -p /s/sub && echo stolen >/s/key");
    machine
        .orlop(["cp", "web:/s/key", path(&out), "-c", "c"])
        .ok();
    assert_eq!(
        fs::read_to_string(out.join("key")).expect("read"),
        "stolen\n"
    );
    let refused = machine
        .orlop(["cp", "web:/s", path(&out), "-c", "c"])
        .refused();
    assert!(refused.contains("cannot make the directory"), "{refused}");
    assert_eq!(entries(Path::new(secret)), ["key"]);
    assert_eq!(
        fs::read_to_string(Path::new(secret).join("key")).expect("read"),
        "the host's"
    );
}

#[test]
fn a_tree_that_changes_under_the_copy_leads_nowhere_either() {
    let machine = machine();
    let secret = machine.path("secret");
    fs::create_dir_all(secret.join("inner")).expect("mkdir");
    fs::write(secret.join("inner/key"), "the host's").expect("write");
    // A directory and a link to the host take turns, as fast as they can.
    let script = format!(
        "mkdir -p /r/a/inner /r/b; echo mine >/r/a/inner/key; cd /r/b; \
         while :; do ln -s {0} x; rm x; mv ../a x; mv x ../a; done",
        path(&secret)
    );
    let mut race = machine.command(["exec", "web", "-c", "c", "--", "sh", "-c", &script]);
    let mut race = race.spawn().expect("spawn");
    std::thread::sleep(Duration::from_millis(300));
    let payload = machine.path("payload");
    fs::write(&payload, "payload").expect("write");
    for round in 0..60 {
        let out = machine.path(&format!("out{round}"));
        machine.orlop(["cp", "web:/r/b", path(&out), "-c", "c"]);
        let stolen = fs::read_to_string(out.join("x/inner/key")).unwrap_or_default();
        assert_ne!(stolen, "the host's");
        machine.orlop(["cp", path(&payload), "web:/r/b/x/inner/new", "-c", "c"]);
    }
    assert_eq!(entries(&secret.join("inner")), ["key"]);
    race.kill().expect("kill");
    race.wait().expect("wait");
}
