use std::collections::HashSet;
use std::fs::File;

use serde_json::{Value, json};

use super::*;

fn context(value: Value) -> SecurityContext {
    serde_json::from_value(value).expect("a security context")
}

fn set(value: Value, available: &Capabilities) -> Result<Capabilities, SpecError> {
    let capabilities = capabilities(Some(&context(value)), available)?;
    Ok(capabilities.bounding().clone().expect("a bounding set"))
}

fn all() -> Capabilities {
    defaults::all_capabilities()
}

#[test]
fn an_ordinary_container_gets_the_default_set_with_nothing_inheritable() {
    let given = capabilities(None, &all()).expect("capabilities");
    let expected = Some(defaults::capabilities());
    assert_eq!(given.bounding(), &expected);
    assert_eq!(given.permitted(), &expected);
    assert_eq!(given.effective(), &expected);
    assert_eq!(given.inheritable(), &Some(HashSet::new()));
    assert_eq!(given.ambient(), &Some(HashSet::new()));
}

#[test]
fn names_are_taken_in_any_case_with_or_without_prefix() {
    for name in ["SYS_TIME", "sys_time", "CAP_SYS_TIME", "cap_Sys_Time"] {
        let given = set(json!({"capabilities": {"add": [name]}}), &all()).expect(name);
        assert!(given.contains(&Capability::SysTime));
    }
}

#[test]
fn all_dropped_and_one_added_is_one() {
    let wish = json!({"capabilities": {"drop": ["all"], "add": ["NET_BIND_SERVICE"]}});
    let given = set(wish, &all()).expect("capabilities");
    assert_eq!(given, HashSet::from([Capability::NetBindService]));
}

#[test]
fn all_added_and_one_dropped_is_all_but_one() {
    let wish = json!({"capabilities": {"add": ["ALL"], "drop": ["SYS_ADMIN"]}});
    let given = set(wish, &all()).expect("capabilities");
    assert_eq!(given.len(), 40);
    assert!(!given.contains(&Capability::SysAdmin));
}

#[test]
fn what_is_missing_from_a_whole_set_is_left_out() {
    let mut available = all();
    available.remove(&Capability::SysResource);
    available.remove(&Capability::Mknod);
    for (wish, count) in [
        (json!({}), 13),
        (json!({"capabilities": {"add": ["ALL"]}}), 39),
        (json!({"privileged": true}), 39),
    ] {
        assert_eq!(set(wish, &available).expect("capabilities").len(), count);
    }
}

#[test]
fn what_is_missing_and_asked_for_by_name_is_an_error() {
    let mut available = all();
    available.remove(&Capability::SysResource);
    let wish = json!({"capabilities": {"add": ["SYS_RESOURCE"]}});
    assert_eq!(
        set(wish, &available).expect_err("missing").to_string(),
        "capability \"SYS_RESOURCE\" cannot be added: orlop itself does not have it (CapBnd in /proc/self/status)"
    );
}

#[test]
fn an_unknown_name_is_an_error_also_where_it_would_be_dropped() {
    for list in ["add", "drop"] {
        let wish = json!({"capabilities": {list: ["NET_AMDIN"]}});
        assert_eq!(
            set(wish, &all()).expect_err("unknown").to_string(),
            "unknown capability \"NET_AMDIN\""
        );
    }
}

#[test]
fn the_bounding_set_is_read_from_a_status_file() {
    let status = "Name:\torlop\nCapBnd:\t0000000000200401\nSeccomp:\t0\n";
    assert_eq!(
        bounding(status),
        Some(HashSet::from([
            Capability::Chown,
            Capability::NetBindService,
            Capability::SysAdmin
        ]))
    );
    assert_eq!(bounding("Name:\torlop\n"), None);
}

#[test]
fn this_process_has_a_bounding_set() {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    assert!(bounding(&status).is_some());
}

#[test]
fn the_machines_devices_are_found_without_terminals_and_links() {
    let dev = File::open("/dev").expect("/dev");
    let devices = host_devices(dev.as_fd()).expect("devices");
    let null = devices
        .iter()
        .find(|device| device.path() == Path::new("/dev/null"))
        .expect("/dev/null");
    assert_eq!(null.typ(), LinuxDeviceType::C);
    assert_eq!((null.major(), null.minor()), (1, 3));
    for device in &devices {
        for own in ["/dev/pts", "/dev/ptmx", "/dev/console", "/dev/shm"] {
            assert!(!device.path().starts_with(own), "{own}");
        }
    }
}

#[test]
fn files_and_links_are_no_devices_and_directories_are_searched() {
    let directory = tempfile::tempdir().expect("a directory");
    let below = directory.path().join("mapper");
    std::fs::create_dir(&below).expect("below");
    std::fs::write(directory.path().join("file"), "").expect("a file");
    std::os::unix::fs::symlink("/dev/null", directory.path().join("link")).expect("a link");
    std::os::unix::fs::symlink("/dev", directory.path().join("linked")).expect("a link");
    let number = rustix::fs::makedev(1, 3);
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        below.join("zero"),
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o640),
        number,
    );
    made.expect("a device node");
    let opened = File::open(directory.path()).expect("opened");
    let devices = host_devices(opened.as_fd()).expect("devices");
    let [device] = &devices[..] else {
        panic!("one device, not {devices:?}");
    };
    assert_eq!(device.path(), Path::new("/dev/mapper/zero"));
    assert_eq!(device.file_mode(), Some(0o640));
}
