//! What is said of a kernel that has, or has not, a client.

use orlop::volume::nfs::kernel;

use crate::common::Machine;
use crate::support::{IDLE, apply, described, on_server, row};

#[test]
fn a_kernel_without_a_client_is_told_beforehand_and_in_the_event() {
    let machine = Machine::new();
    let doctor = machine.orlop(["doctor"]).stdout;
    let line = doctor.lines().find(|line| line.contains("NFS client"));
    let line = line.expect("a line for the NFS client");
    if kernel::probe().is_ok() {
        assert!(line.starts_with("ok"), "{line}");
        return;
    }
    assert!(
        line.starts_with("lacks") && line.contains("modprobe nfsv4"),
        "{line}"
    );
    apply(&machine, &on_server("web", "192.0.2.1", "/nfsdata", IDLE));
    let page = described(&machine, "web", "FailedMount");
    let message =
        "MountVolume.SetUp failed for volume \"data\" : this kernel has no NFS client: load it";
    assert!(page.contains(message), "{page}");
    assert_eq!(
        row(&machine, "web")[1..4],
        ["0/1", "ContainerCreating", "0"]
    );
    machine.orlop(["delete", "pod", "web"]).ok();
    machine.assert_nothing_is_left();
}
