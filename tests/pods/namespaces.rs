//! What the containers of a pod share with each other, and with the host.

use std::fs;

use serde_json::{Value, json};

use crate::common::Machine;
use crate::support::{container, idle, pod, row, status, until, with};

const ALL: &str = "for n in ipc mnt net pid uts; do readlink /proc/self/ns/$n; done";

fn namespaces(machine: &Machine, container: &str) -> Vec<String> {
    let printed = machine.sh("web", container, ALL);
    printed.lines().map(str::to_owned).collect()
}

/// The processes that a container sees whose command line begins like this.
fn processes(machine: &Machine, container: &str, command: &str) -> Vec<String> {
    let script = "for p in /proc/[0-9]*; do echo ${p#/proc/} $(tr '\\0' ' ' < $p/cmdline); done";
    let printed = machine.sh("web", container, script);
    let lines = printed.lines().filter_map(|line| line.split_once(' '));
    let found = lines.filter(|(_, line)| line.starts_with(command));
    found.map(|(pid, _)| pid.to_owned()).collect()
}

fn of_the_host() -> Vec<String> {
    let link = |name| fs::read_link(format!("/proc/self/ns/{name}")).expect("a link");
    ["ipc", "mnt", "net", "pid", "uts"]
        .map(|name| link(name).to_string_lossy().into_owned())
        .to_vec()
}

/// Which of two containers' (or a container's and the host's) are the same.
fn shared(one: &[String], other: &[String]) -> Vec<bool> {
    one.iter()
        .zip(other)
        .map(|(one, other)| one == other)
        .collect()
}

fn two(fields: &Value) -> String {
    let spec = json!({"containers": [idle("a"), idle("b")]});
    pod(&with(spec, fields))
}

#[test]
fn containers_share_network_ipc_and_host_name_and_nothing_with_the_host() {
    let machine = Machine::new();
    machine.run_pod(&two(&json!({})));
    let (a, b) = (namespaces(&machine, "a"), namespaces(&machine, "b"));
    assert_eq!(shared(&a, &b), [true, false, true, false, true]);
    assert_eq!(shared(&a, &of_the_host()), [false; 5]);
    machine.sh("web", "a", "echo text > /dev/shm/file");
    assert_eq!(machine.sh("web", "b", "cat /dev/shm/file"), "text\n");
    assert_eq!(machine.sh("web", "b", "stat -c %a /dev/shm"), "1777\n");
    let first = machine.sh("web", "a", "cat /proc/1/comm; ls -d /proc/[0-9]* | wc -l");
    let mut lines = first.lines();
    assert_eq!(lines.next(), Some("sh"), "its program is process 1");
    let count: u32 = lines
        .next()
        .and_then(|count| count.parse().ok())
        .expect("a count");
    assert!(count < 8, "only its own processes: {count}");
}

#[test]
fn a_shared_process_namespace_shows_each_container_the_others_processes() {
    let machine = Machine::new();
    let spec = json!({
        "shareProcessNamespace": true,
        "containers": [container("a", "exec sleep 4711"), idle("b")],
    });
    machine.run_pod(&pod(&spec));
    let (a, b) = (namespaces(&machine, "a"), namespaces(&machine, "b"));
    assert_eq!(shared(&a, &b), [true, false, true, true, true]);
    let first = machine.sh(
        "web",
        "b",
        "tr '\\0' ' ' < /proc/1/cmdline; cat /proc/1/comm",
    );
    assert!(
        !first.contains("sleep 4711"),
        "process 1 belongs to no container: {first}"
    );
    let seen = processes(&machine, "b", "sleep 4711");
    machine.sh("web", "b", &format!("kill -9 {}", seen[0]));
    machine.wait_for("web", |pod| {
        status(pod, "a")["restartCount"] == 1 && status(pod, "a")["ready"] == true
    });
    let web = machine.pod("web");
    assert_eq!(
        status(&web, "a")["lastState"]["terminated"]["exitCode"],
        137
    );
    assert_eq!(
        status(&web, "b")["restartCount"],
        0,
        "the other one goes on"
    );
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_process_left_behind_in_a_shared_namespace_ends_with_its_container() {
    let machine = Machine::new();
    let spec = json!({
        "shareProcessNamespace": true,
        "restartPolicy": "Never",
        "containers": [container("a", "sleep 4712 & sleep 4713 & sleep 5; exit 0"), idle("b")],
    });
    machine.run_pod(&pod(&spec));
    assert_eq!(processes(&machine, "b", "sleep 471").len(), 2);
    machine.wait_for("web", |pod| {
        !status(pod, "a")["state"]["terminated"].is_null()
    });
    let left = processes(&machine, "b", "sleep 471");
    assert_eq!(left, [""; 0]);
    let zombies = machine.sh(
        "web",
        "b",
        "grep -l '^State:.*zombie' /proc/[0-9]*/status | wc -l",
    );
    assert_eq!(zombies, "0\n");
}

#[test]
fn the_hosts_process_namespace_shows_the_hosts_processes() {
    let machine = Machine::new();
    machine.run_pod(&two(&json!({"hostPID": true})));
    let a = namespaces(&machine, "a");
    assert_eq!(
        shared(&a, &of_the_host()),
        [false, false, false, true, false]
    );
    let me = std::process::id();
    let name = fs::read_to_string("/proc/self/comm").expect("comm");
    assert_eq!(
        machine.sh("web", "a", &format!("cat /proc/{me}/comm")),
        name
    );
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn the_hosts_network_comes_with_the_hosts_name() {
    let machine = Machine::new();
    machine.run_pod(&two(&json!({"hostNetwork": true})));
    let a = namespaces(&machine, "a");
    assert_eq!(
        shared(&a, &of_the_host()),
        [false, false, true, false, true]
    );
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    assert_eq!(machine.sh("web", "a", "hostname"), format!("{name}\n"));
}

#[test]
fn the_hosts_ipc_namespace_comes_with_the_hosts_shared_memory() {
    let machine = Machine::new();
    machine.run_pod(&two(&json!({"hostIPC": true})));
    let a = namespaces(&machine, "a");
    assert_eq!(
        shared(&a, &of_the_host()),
        [true, false, false, false, false]
    );
    let id = |text: String| text.trim().to_owned();
    let there = id(machine.sh("web", "a", "stat -c %d:%i /dev/shm"));
    let stat = rustix::fs::stat("/dev/shm").expect("stat");
    assert_eq!(there, format!("{}:{}", stat.st_dev, stat.st_ino));
}

#[test]
fn containers_reach_each_other_over_loopback_and_nobody_else() {
    let machine = Machine::new();
    let server = "mkdir /www; echo page > /www/index.html; exec httpd -f -p 127.0.0.1:8080 -h /www";
    let spec = json!({"containers": [container("server", server), idle("client")]});
    machine.run_pod(&pod(&spec));
    // The server listens before the second container starts.
    let page = machine.sh("web", "client", "wget -q -O - http://127.0.0.1:8080/");
    assert_eq!(page, "page\n");
    let links = machine.sh("web", "client", "ip -o link | wc -l; ip -o link show lo");
    assert!(
        links.starts_with("1\n") && links.contains("LOOPBACK,UP"),
        "{links}"
    );
    assert!(std::net::TcpStream::connect("127.0.0.1:8080").is_err());
}

#[test]
fn host_name_hosts_and_resolver_are_what_the_manifest_says() {
    let machine = Machine::new();
    let spec = json!({
        "containers": [idle("c")],
        "hostname": "named",
        "subdomain": "sub",
        "hostAliases": [{"ip": "10.1.2.3", "hostnames": ["alias", "other"]}],
        "dnsPolicy": "None",
        "dnsConfig": {
            "nameservers": ["10.0.0.53"],
            "searches": ["a.example", "b.example"],
            "options": [{"name": "ndots", "value": "2"}],
        },
    });
    machine.run_pod(&pod(&spec));
    assert_eq!(
        machine.sh("web", "c", "hostname; cat /etc/hostname; echo $HOSTNAME"),
        "named\nnamed\nnamed\n"
    );
    let hosts = machine.sh("web", "c", "cat /etc/hosts");
    assert!(hosts.contains("127.0.0.1\tlocalhost\n"), "{hosts}");
    assert!(hosts.contains("10.1.2.3\talias\tother\n"), "{hosts}");
    assert_eq!(
        machine.sh("web", "c", "cat /etc/resolv.conf"),
        "search a.example b.example\nnameserver 10.0.0.53\noptions ndots:2\n"
    );
    assert_eq!(row(&machine)[1..3], ["1/1", "Running"]);
    until(&machine, &["describe", "pod", "web"], |page| {
        page.contains("Started container c")
    });
}
