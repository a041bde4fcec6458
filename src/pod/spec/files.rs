//! Host name, `/etc/hosts` and `/etc/resolv.conf` of a pod: what they contain.
//! Writing them, and reading the node's, is for the caller.
//!
//! The forms are kubelet's, so that what parses its files parses these.
//! <https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>,
//! <https://kubernetes.io/docs/tasks/network/customize-hosts-file-for-pods/>

use std::fmt::Write;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig, PodSpec};

use super::{SpecError, pod_spec};

/// The domain under which pods and services have their names.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// The longest host name of a pod: a DNS label.
const LONGEST_LABEL: usize = 63;

/// The longest name that the kernel takes (sethostname(2)).
const LONGEST_KERNEL_NAME: usize = 64;

/// How many name servers a resolver looks at (resolv.conf(5)).
const NAMESERVERS: usize = 3;

const LOCAL_HOSTS: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    fe00::0\tip6-mcastprefix\n\
    fe00::1\tip6-allnodes\n\
    fe00::2\tip6-allrouters\n";

/// What a pod is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The short name.
    pub host: String,
    /// The domain, when the pod has a `subdomain`.
    pub domain: Option<String>,
    /// The name in the pod's UTS namespace and in `/etc/hostname`.
    pub kernel: String,
}

/// What `pod` is called, on a node whose own host name is `node`.
///
/// With `hostNetwork` that is the node's name; else `hostnameOverride`,
/// `hostname` or the pod's name, cut to 63 characters.
///
/// # Errors
/// A name of which nothing is left, or with `setHostnameAsFQDN` a full name
/// that is longer than the kernel allows.
pub fn names(pod: &Pod, node: &str) -> Result<Names, SpecError> {
    let spec = pod_spec(pod)?;
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let pod_name = || pod.metadata.name.clone().unwrap_or_default();

    if let Some(name) = given(&spec.hostname_override) {
        return Ok(Names {
            host: name.clone(),
            domain: None,
            kernel: name,
        });
    }
    let mut host = given(&spec.hostname).unwrap_or_else(pod_name);
    shorten(&mut host);
    if host.is_empty() {
        return Err(SpecError::Hostname(pod_name()));
    }
    let domain = given(&spec.subdomain).map(|subdomain| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        format!("{subdomain}.{namespace}.svc.{CLUSTER_DOMAIN}")
    });
    let kernel = match &domain {
        _ if spec.host_network == Some(true) => node.to_owned(),
        Some(domain) if spec.set_hostname_as_fqdn == Some(true) => {
            let fqdn = format!("{host}.{domain}");
            if fqdn.len() > LONGEST_KERNEL_NAME {
                return Err(SpecError::Fqdn { fqdn });
            }
            fqdn
        }
        _ => host.clone(),
    };
    Ok(Names {
        host,
        domain,
        kernel,
    })
}

fn shorten(host: &mut String) {
    if host.len() <= LONGEST_LABEL {
        return;
    }
    let end = (0..=LONGEST_LABEL)
        .rev()
        .find(|&end| host.is_char_boundary(end));
    host.truncate(end.unwrap_or(0));
    host.truncate(host.trim_end_matches(['-', '.']).len());
}

/// The content of `/etc/hosts` for a pod called `names`. `node` is the content
/// of the node's file, which a pod with `hostNetwork` gets.
pub fn hosts(pod: &Pod, names: &Names, node: &str) -> String {
    let spec = pod.spec.as_ref();
    let mut text = if spec.is_some_and(|spec| spec.host_network == Some(true)) {
        format!("# Kubernetes-managed hosts file (host network).\n{node}")
    } else {
        let mut text = format!("# Kubernetes-managed hosts file.\n{LOCAL_HOSTS}");
        for address in pod_addresses(pod) {
            let host = &names.host;
            text += &match &names.domain {
                Some(domain) => format!("{address}\t{host}.{domain}\t{host}\n"),
                None => format!("{address}\t{host}\n"),
            };
        }
        text
    };
    let aliases = spec.and_then(|spec| spec.host_aliases.as_deref());
    if let Some(aliases) = aliases.filter(|aliases| !aliases.is_empty()) {
        text += "\n# Entries added by HostAliases.\n";
        for alias in aliases {
            let hostnames = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            text += &format!("{}\t{hostnames}\n", alias.ip);
        }
    }
    text
}

/// The pod's own addresses, as far as its status has them.
pub(super) fn pod_addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    match status.pod_ips.as_deref() {
        Some(all) if !all.is_empty() => all.iter().map(|address| address.ip.as_str()).collect(),
        _ => status.pod_ip.as_deref().into_iter().collect(),
    }
}

/// The content of `/etc/resolv.conf` for a pod. `node` is the content of the
/// node's file, on which every `dnsPolicy` but `None` builds: there is no DNS
/// server for a cluster here, so that `ClusterFirst` means `Default`, as it
/// does under a kubelet that knows of none.
pub fn resolv_conf(spec: &PodSpec, node: &str) -> String {
    let base = if spec.dns_policy.as_deref() == Some("None") {
        ""
    } else {
        node
    };
    match &spec.dns_config {
        None => base.to_owned(),
        Some(config) => Resolver::parse(base).merged(config).to_string(),
    }
}

/// A resolv.conf(5): name servers, search domains and options with values.
#[derive(Default)]
struct Resolver<'a> {
    nameservers: Vec<&'a str>,
    searches: Vec<&'a str>,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Resolver<'a> {
    /// Name servers add up; of several `search` or `options` lines the last
    /// one counts.
    fn parse(text: &'a str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver.nameservers.extend(words.next()),
                Some("search" | "domain") => resolver.searches = words.collect(),
                Some("options") => {
                    let pair = |word: &'a str| word.split_once(':').unwrap_or((word, ""));
                    resolver.options = words.map(pair).collect();
                }
                _ => {}
            }
        }
        resolver
    }

    fn merged(mut self, config: &'a PodDNSConfig) -> Self {
        for server in config.nameservers.iter().flatten() {
            add(&mut self.nameservers, server);
        }
        self.nameservers.truncate(NAMESERVERS);
        for domain in config.searches.iter().flatten() {
            add(&mut self.searches, domain);
        }
        for option in config.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            let value = option.value.as_deref().unwrap_or_default();
            match self.options.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => known.1 = value,
                None => self.options.push((name, value)),
            }
        }
        self
    }
}

fn add<'a>(list: &mut Vec<&'a str>, item: &'a str) {
    if !list.contains(&item) {
        list.push(item);
    }
}

impl std::fmt::Display for Resolver<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.searches.is_empty() {
            writeln!(f, "search {}", self.searches.join(" "))?;
        }
        for server in &self.nameservers {
            writeln!(f, "nameserver {server}")?;
        }
        if !self.options.is_empty() {
            f.write_str("options")?;
            for (name, value) in &self.options {
                f.write_char(' ')?;
                f.write_str(name)?;
                if !value.is_empty() {
                    write!(f, ":{value}")?;
                }
            }
            f.write_char('\n')?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
