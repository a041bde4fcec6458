//! The kernel's NFS server, for one test: in namespaces of its own, with a network
//! cable to the test. Nothing of it can be seen or reached from anywhere else, and
//! it ends with the test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use orlop::sys::{namespace, network};
use orlop::volume::nfs::kernel;
use rustix::thread::UnshareFlags;

use super::{finish, skip};

/// The server's address.
pub const SERVER: &str = "10.99.0.1";
/// Its address of IPv6.
pub const SERVER_6: &str = "fd99::1";
/// The address of the test, and of the pods' machine.
const CLIENT: &str = "10.99.0.2";
const CLIENT_6: &str = "fd99::2";

/// What the server exports: everything to everybody, root to nobody, one directory
/// read-only, and one to somebody else.
const EXPORTS: &str = "\
/nfsdata *(rw,sync,no_subtree_check,no_root_squash,insecure)
/squash *(rw,sync,no_subtree_check,insecure)
/readonly *(ro,sync,no_subtree_check,no_root_squash,insecure)
/private 192.0.2.0/24(rw,sync,no_subtree_check,insecure)
";

/// Runs in the server's namespaces, with a directory for its own as argument.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs run /run
mount -t tmpfs state /var/lib/nfs
cd /var/lib/nfs
mkdir v4recovery rpc_pipefs sm sm.bak nfsdcld
touch etab rmtab state
mount -t rpc_pipefs rpc_pipefs rpc_pipefs
mkdir "$1/root"
mount -t tmpfs exports "$1/root"
mkdir "$1/root/nfsdata" "$1/root/squash" "$1/root/readonly" "$1/root/private"
printf '[exports]\nrootdir=%s\n' "$1/root" >"$1/nfs.conf"
mount --bind "$1/nfs.conf" /etc/nfs.conf
mount --bind "$1/exports" /etc/exports
mount -t nfsd nfsd /proc/fs/nfsd
ip link set lo up
rpcbind -w
nfsdcld
exportfs -ra
echo 10 >/proc/fs/nfsd/nfsv4leasetime
echo 10 >/proc/fs/nfsd/nfsv4gracetime
rpc.nfsd 4
rpc.mountd
echo ready
read -r _ || true
rpc.nfsd 0
"#;

/// A running server.
pub struct NfsServer {
    process: Child,
    directory: tempfile::TempDir,
    /// The server's first process as this namespace has it.
    init: String,
}

impl NfsServer {
    /// Starts a server, and moves the calling thread, with all that it starts from
    /// now on, into the network that leads there. `None`, with the reason on
    /// stderr, on a kernel that has no NFS.
    pub fn start() -> Option<Self> {
        if let Err(error) = kernel::probe() {
            skip(&format!("this kernel has no NFS client: {error}"));
            return None;
        }
        let directory = tempfile::Builder::new()
            .prefix("orlop-nfs.")
            .tempdir()
            .expect("tempdir");
        fs::write(directory.path().join("exports"), EXPORTS).expect("write");
        namespace::leave(UnshareFlags::NEWNET).expect("a network namespace");
        network::loopback_up().expect("lo");
        // Mounting below needs them; /etc/nfs.conf is Debian's, /etc/exports need not be.
        for file in ["/etc/nfs.conf", "/etc/exports"] {
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(file)
                .expect("a file to be covered");
        }
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--mount", "--pid", "--fork", "--mount-proc"])
            .args([
                "--kill-child",
                "--propagation",
                "private",
                "bash",
                "-c",
                SCRIPT,
                "nfs-server",
            ])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn().expect("unshare: install util-linux");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("stdout");
        BufReader::new(stdout).read_line(&mut line).expect("read");
        assert_eq!(line, "ready\n", "install nfs-kernel-server and rpcbind");
        let unshare = process.id();
        let children = format!("/proc/{unshare}/task/{unshare}/children");
        let children = fs::read_to_string(children).expect("children");
        let init = children
            .split_whitespace()
            .next()
            .expect("a child")
            .to_owned();
        let server = Self {
            process,
            directory,
            init,
        };
        server.connect();
        Some(server)
    }

    fn connect(&self) {
        let pid = self.init.as_str();
        ip(&[
            "link", "add", "client", "type", "veth", "peer", "name", "server", "netns", pid,
        ]);
        ip(&["addr", "add", &format!("{CLIENT}/24"), "dev", "client"]);
        ip(&["link", "set", "client", "up"]);
        self.ip(&["addr", "add", &format!("{SERVER}/24"), "dev", "server"]);
        self.ip(&["link", "set", "server", "up"]);
        ip(&[
            "addr",
            "add",
            &format!("{CLIENT_6}/64"),
            "dev",
            "client",
            "nodad",
        ]);
        self.ip(&[
            "addr",
            "add",
            &format!("{SERVER_6}/64"),
            "dev",
            "server",
            "nodad",
        ]);
    }

    /// A path of the server, as this process can reach it.
    pub fn path(&self, path: &str) -> PathBuf {
        let root = self
            .directory
            .path()
            .join("root")
            .join(path.trim_start_matches('/'));
        PathBuf::from(format!("/proc/{}/root{}", self.init, root.display()))
    }

    /// From now on the server hears, and nothing that it says arrives.
    pub fn freeze(&self) {
        self.ip(&["route", "add", "blackhole", &format!("{CLIENT}/32")]);
    }

    /// What the server says arrives again.
    pub fn thaw(&self) {
        self.ip(&["route", "del", "blackhole", &format!("{CLIENT}/32")]);
    }

    /// Exports what `exports` says (exports(5)) instead.
    pub fn export(&self, exports: &str) {
        fs::write(self.directory.path().join("exports"), exports).expect("write");
        let mut command = self.command();
        command.args(["exportfs", "-ra"]);
        finish(command).ok();
    }

    /// What the server's kernel tells of its clients of version 4.
    pub fn clients(&self) -> String {
        let mut command = self.command();
        command.args(["sh", "-c", "cat /proc/fs/nfsd/clients/*/info"]);
        finish(command).stdout
    }

    fn ip(&self, arguments: &[&str]) {
        let mut command = self.command();
        command.arg("ip").args(arguments);
        finish(command).ok();
    }

    /// A command in the server's namespaces.
    fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init, "--net", "--mount", "--pid", "--"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

impl Drop for NfsServer {
    fn drop(&mut self) {
        // Whatever still waits for it shall end, and a kernel be able to stop.
        let mut thaw = self.command();
        thaw.args(["ip", "route", "del", "blackhole", &format!("{CLIENT}/32")]);
        let _ = thaw.output();
        // It ends when its input does.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn ip(arguments: &[&str]) {
    let mut command = Command::new("ip");
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    finish(command).ok();
}
