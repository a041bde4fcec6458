//! What the client makes of servers, addresses and options, without a pod.

use std::fs;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use orlop::volume::nfs::kernel::KernelClient;
use orlop::volume::nfs::{Mounter, NfsError, NfsSource, what_root_may};
use rustix::fs::{Mode, OFlags, openat};

use crate::common::nfs_server::{NfsServer, SERVER, SERVER_6};

fn source(server: &str, path: &str, options: &[&str]) -> NfsSource {
    NfsSource {
        name: "data".to_owned(),
        server: server.to_owned(),
        path: path.to_owned(),
        read_only: false,
        mount_options: options.iter().map(|one| (*one).to_owned()).collect(),
    }
}

#[track_caller]
fn mount(source: &NfsSource) -> OwnedFd {
    match KernelClient.mount(source) {
        Ok(tree) => tree,
        Err(error) => panic!("{source:?}: {error}"),
    }
}

#[track_caller]
fn refusal(source: &NfsSource) -> String {
    let refused: Result<OwnedFd, NfsError> = KernelClient.mount(source);
    refused.expect_err("mounted").to_string()
}

fn write(tree: &OwnedFd, name: &str, text: &str) -> std::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(tree, name, flags, Mode::from_raw_mode(0o644))?;
    File::from(file).write_all(text.as_bytes())
}

fn read(tree: &OwnedFd, name: &str) -> String {
    let file = openat(tree, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("open");
    let mut text = String::new();
    File::from(file).read_to_string(&mut text).expect("read");
    text
}

#[test]
fn versions_addresses_and_options_are_those_that_are_asked_for() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    fs::create_dir(server.path("nfsdata/sub")).expect("mkdir");
    // Without a word about it, the best version; and a directory of the export.
    let tree = mount(&source(SERVER, "/nfsdata/sub", &[]));
    write(&tree, "four", "by version 4\n").expect("write");
    let written = fs::read_to_string(server.path("nfsdata/sub/four")).expect("read");
    assert_eq!(written, "by version 4\n");
    assert!(
        server.clients().contains("minor version: 2"),
        "{}",
        server.clients()
    );
    drop(tree);

    let tree = mount(&source(
        SERVER,
        "/nfsdata/sub",
        &["nfsvers=4.1,soft", "timeo=100"],
    ));
    assert_eq!(read(&tree, "four"), "by version 4\n");
    assert!(
        server.clients().contains("minor version: 1"),
        "{}",
        server.clients()
    );
    drop(tree);
    drop(mount(&source(SERVER, "/nfsdata/sub", &["vers=4.0"])));

    // Version 3 needs what stands beside the server, and locks.
    let why = refusal(&source(SERVER, "/nfsdata", &["nfsvers=3"]));
    assert!(
        why.contains("rpc.statd is not running but is required for remote locking"),
        "{why}"
    );
    let tree = mount(&source(SERVER, "/nfsdata", &["nfsvers=3", "nolock"]));
    assert_eq!(read(&tree, "sub/four"), "by version 4\n");
    write(&tree, "three", "by version 3\n").expect("write");
    assert!(server.path("nfsdata/three").exists());
    drop(tree);

    for name in [SERVER_6, &format!("[{SERVER_6}]")] {
        let tree = mount(&source(name, "/nfsdata", &[]));
        assert_eq!(read(&tree, "three"), "by version 3\n");
    }
    drop(mount(&source(SERVER_6, "/nfsdata", &["vers=3,nolock"])));

    // Read-only in three ways; the last is the server's.
    let mut asked = source(SERVER, "/nfsdata", &[]);
    asked.read_only = true;
    for (source, wanted) in [
        (asked, libc::EROFS),
        (source(SERVER, "/nfsdata", &["ro"]), libc::EROFS),
        (source(SERVER, "/readonly", &[]), libc::EROFS),
    ] {
        let error = write(&mount(&source), "no", "").expect_err("written");
        assert_eq!(error.raw_os_error(), Some(wanted), "{source:?}");
    }
}

#[test]
fn a_path_that_only_version_3_knows_is_found_with_that() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    fs::create_dir(server.path("nfsdata/sub")).expect("mkdir");
    // The root of version 4 is the directory itself: it has no `nfsdata`.
    server.export("/nfsdata *(rw,sync,no_subtree_check,no_root_squash,insecure,fsid=0)\n");
    write(&mount(&source(SERVER, "/sub", &["v4"])), "file", "text").expect("write");
    let tree = mount(&source(SERVER, "/nfsdata/sub", &["nolock"]));
    assert_eq!(read(&tree, "file"), "text");
    let why = refusal(&source(SERVER, "/nfsdata/sub", &["v4"]));
    assert!(why.ends_with("No such file or directory"), "{why}");
}

#[test]
fn a_refusal_says_whose_it_is_and_why() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    let mounting = format!("mount failed: mount.nfs: mounting {SERVER}:/nfsdata/pv1 failed");
    assert_eq!(
        refusal(&source(SERVER, "/nfsdata/pv1", &["vers=4"])),
        format!("{mounting}, reason given by server: No such file or directory")
    );
    assert_eq!(
        refusal(&source(SERVER, "/nfsdata/pv1", &[])),
        format!("{mounting}, reason given by server: No such file or directory")
    );
    let why = refusal(&source(SERVER, "/nfsdata/pv1", &["vers=3", "nolock"]));
    assert!(
        why.starts_with(&mounting) && why.ends_with("No such file or directory"),
        "{why}"
    );
    let why = refusal(&source(SERVER, "/private", &["vers=3", "nolock"]));
    assert_eq!(
        why,
        format!(
            "mount failed: mount.nfs: access denied by server while mounting {SERVER}:/private"
        )
    );
    let why = refusal(&source(SERVER, "/nfsdata", &["nosuchoption"]));
    assert!(
        why.contains("an incorrect mount option was specified: nosuchoption ("),
        "{why}"
    );
    let why = refusal(&source(SERVER, "/nfsdata", &["port=2050"]));
    assert!(
        why.contains("Connection refused") && why.ends_with("port 2050"),
        "{why}"
    );

    // Root is nobody there; where it may write nonetheless, too.
    for (path, mode) in [("/squash", 0o755), ("/squash", 0o777)] {
        use std::os::unix::fs::PermissionsExt;
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(server.path(path), permissions).expect("chmod");
        let source = source(SERVER, path, &[]);
        let said = what_root_may(mount(&source).as_fd(), &source).expect("squashed");
        assert!(said.contains("squashes root (root_squash)"), "{said}");
    }
    let source = source(SERVER, "/nfsdata", &[]);
    assert_eq!(what_root_may(mount(&source).as_fd(), &source), None);
}
