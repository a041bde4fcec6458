use serde_json::{Value, json};

use super::*;
use crate::pod::spec::fixture::pod;

fn named(spec: Value) -> Result<Names, SpecError> {
    names(&pod(spec), "node-1")
}

fn resolver(spec: Value, node: &str) -> String {
    resolv_conf(pod(spec).spec.as_ref().expect("a spec"), node)
}

#[test]
fn a_pod_is_called_by_its_name_or_hostname() {
    let names = named(json!({"containers": []})).expect("names");
    assert_eq!((names.host.as_str(), names.kernel.as_str()), ("web", "web"));
    assert_eq!(names.domain, None);
    let names = named(json!({"containers": [], "hostname": "front"})).expect("names");
    assert_eq!(names.kernel, "front");
}

#[test]
fn a_long_name_is_cut_to_a_label_and_loses_what_it_cannot_end_in() {
    let mut pod = pod(json!({"containers": []}));
    pod.metadata.name = Some(format!("{}.-{}", "a".repeat(61), "b".repeat(40)));
    let names = names(&pod, "node-1").expect("names");
    assert_eq!(names.host, "a".repeat(61));
}

#[test]
fn a_subdomain_makes_a_full_name_for_the_kernel_if_asked_for() {
    let spec = json!({"containers": [], "subdomain": "db"});
    let names = named(spec.clone()).expect("names");
    assert_eq!(names.domain.as_deref(), Some("db.shop.svc.cluster.local"));
    assert_eq!(names.kernel, "web");

    let mut full = spec;
    full["setHostnameAsFQDN"] = json!(true);
    let names = named(full.clone()).expect("names");
    assert_eq!(names.kernel, "web.db.shop.svc.cluster.local");

    full["subdomain"] = json!("d".repeat(63));
    let error = named(full).expect_err("too long");
    assert!(
        error
            .to_string()
            .ends_with("is too long (64 characters is the max, 90 characters requested)"),
        "{error}"
    );
}

#[test]
fn a_pod_on_the_nodes_network_is_called_like_the_node() {
    let names = named(json!({"containers": [], "hostNetwork": true})).expect("names");
    assert_eq!(
        (names.host.as_str(), names.kernel.as_str()),
        ("web", "node-1")
    );
}

#[test]
fn the_hosts_file_has_kubelets_form() {
    let pod = pod(json!({
        "containers": [],
        "hostAliases": [
            {"ip": "192.0.2.1", "hostnames": ["foo.local", "bar.local"]},
            {"ip": "192.0.2.2", "hostnames": ["baz.local"]},
        ],
    }));
    let names = names(&pod, "node-1").expect("names");
    assert_eq!(
        hosts(&pod, &names, "unused"),
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n\
         10.1.2.3\tweb\n\
         \n\
         # Entries added by HostAliases.\n\
         192.0.2.1\tfoo.local\tbar.local\n\
         192.0.2.2\tbaz.local\n"
    );
}

#[test]
fn a_pod_with_a_domain_is_found_under_both_names() {
    let pod = pod(json!({"containers": [], "subdomain": "db"}));
    let names = names(&pod, "node-1").expect("names");
    let text = hosts(&pod, &names, "");
    assert!(
        text.ends_with("10.1.2.3\tweb.db.shop.svc.cluster.local\tweb\n"),
        "{text}"
    );
}

#[test]
fn the_hosts_file_on_the_nodes_network_is_the_nodes() {
    let pod = pod(json!({"containers": [], "hostNetwork": true}));
    let names = names(&pod, "node-1").expect("names");
    assert_eq!(
        hosts(&pod, &names, "127.0.0.1 localhost\n"),
        "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n"
    );
}

const NODE: &str = "\
# made by hand
nameserver 192.0.2.53
search old.example
search corp.example example
options ndots:1 edns0
";

#[test]
fn the_resolver_is_the_nodes_as_it_stands() {
    for policy in ["Default", "ClusterFirst", "ClusterFirstWithHostNet"] {
        assert_eq!(
            resolver(json!({"containers": [], "dnsPolicy": policy}), NODE),
            NODE
        );
    }
}

#[test]
fn a_dns_config_is_added_to_the_nodes() {
    let config = json!({
        "nameservers": ["1.1.1.1", "192.0.2.53"],
        "searches": ["my.dns", "example"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}],
    });
    assert_eq!(
        resolver(json!({"containers": [], "dnsConfig": config}), NODE),
        "search corp.example example my.dns\n\
         nameserver 192.0.2.53\n\
         nameserver 1.1.1.1\n\
         options ndots:2 edns0 rotate\n"
    );
}

#[test]
fn without_a_policy_only_the_dns_config_counts() {
    let config = json!({"nameservers": ["192.0.2.1"], "searches": ["ns1.svc"]});
    let spec = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": config});
    assert_eq!(
        resolver(spec, NODE),
        "search ns1.svc\nnameserver 192.0.2.1\n"
    );
}

#[test]
fn a_resolver_is_given_three_name_servers_at_most() {
    let servers = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
    let spec = json!({"containers": [], "dnsConfig": {"nameservers": servers}});
    let text = resolver(spec, NODE);
    assert_eq!(text.matches("nameserver").count(), 3);
    assert!(!text.contains("192.0.2.3\n"));
}
