//! One check of a container's health, as probes do it: a command, an HTTP
//! request, a connection, or a gRPC health check.
//!
//! Connections are made from inside the pod's network namespace. A check never
//! blocks; whoever runs it limits its time.

pub(super) mod command;
pub(super) mod connect;
mod grpc;
pub(super) mod http;
mod tls;

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Keeper;
use super::children::Children;

/// How checks and hooks reach a container.
#[derive(Clone)]
pub(super) struct Reach {
    launcher: Rc<OwnedFd>,
    children: Children,
    /// The container's name, and the id of its present start.
    name: String,
    id: String,
    /// Where the pod's servers are, when the manifest names no host.
    host: String,
}

impl Keeper {
    /// How to reach a container's present start.
    pub(super) fn reach(&self, index: usize) -> Reach {
        let container = &self.containers[index];
        let spec = self.pod.spec.as_ref();
        let host_network = spec.is_some_and(|spec| spec.host_network == Some(true));
        let address = self.host_ip.clone().filter(|_| host_network);
        Reach {
            launcher: Rc::clone(&self.launcher),
            children: self.children.clone(),
            name: container.name.clone(),
            id: container.id.clone().unwrap_or_default(),
            host: address.unwrap_or_else(|| "127.0.0.1".to_owned()),
        }
    }
}

/// What a probe does.
pub(super) enum Action {
    Exec(Vec<String>),
    Get(http::Request),
    Connect { host: Option<String>, port: u16 },
    Grpc { port: u16, service: String },
}

/// What a check has found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Healthy,
    /// Healthy, with something to tell.
    Warning(String),
    Unhealthy(String),
    /// The check itself did not work.
    Broken(String),
}

impl Action {
    /// What `probe` of `container` asks for.
    ///
    /// # Errors
    /// A port name that the container does not have.
    pub(super) fn of(probe: &Probe, container: &Container) -> Result<Self, String> {
        if let Some(exec) = &probe.exec {
            return Ok(Self::Exec(exec.command.clone().unwrap_or_default()));
        }
        if let Some(get) = &probe.http_get {
            return Ok(Self::Get(http::Request::of(get, container)?));
        }
        if let Some(tcp) = &probe.tcp_socket {
            return Ok(Self::Connect {
                host: tcp.host.clone().filter(|host| !host.is_empty()),
                port: port(&tcp.port, container)?,
            });
        }
        let grpc = probe.grpc.as_ref().ok_or("the probe has no action")?;
        Ok(Self::Grpc {
            port: port(&IntOrString::Int(grpc.port), container)?,
            service: grpc.service.clone().unwrap_or_default(),
        })
    }

    /// Does it, for `limit` at most.
    pub(super) async fn run(&self, reach: &Reach, limit: Duration) -> Finding {
        match self {
            Self::Exec(words) => exec(reach, words, limit).await,
            Self::Get(request) => {
                match tokio::time::timeout(limit, http::get(reach, request)).await {
                    Ok(Ok(answer)) => answer.finding(),
                    Ok(Err(message)) => Finding::Unhealthy(message),
                    Err(_) => Finding::Unhealthy(format!(
                        "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while \
                         awaiting headers)",
                        request.url(reach)
                    )),
                }
            }
            Self::Connect { host, port } => {
                let host = host.as_deref().unwrap_or(&reach.host);
                let connected = connect::connect(reach, host, *port);
                match tokio::time::timeout(limit, connected).await {
                    Ok(Ok(_)) => Finding::Healthy,
                    Ok(Err(message)) => Finding::Unhealthy(message),
                    Err(_) => Finding::Unhealthy(format!(
                        "dial tcp {}: i/o timeout",
                        connect::authority(host, *port)
                    )),
                }
            }
            Self::Grpc { port, service } => grpc::check(reach, *port, service, limit).await,
        }
    }
}

async fn exec(reach: &Reach, words: &[String], limit: Duration) -> Finding {
    match command::run(reach.clone(), words.to_vec(), Some(limit)).await {
        Ok(ended) if ended.code == 0 => Finding::Healthy,
        Ok(ended) => Finding::Unhealthy(ended.output),
        Err(command::Trouble::TimedOut) => Finding::Unhealthy(format!(
            "command timed out: \"{}\" timed out after {}s",
            words.join(" "),
            limit.as_secs()
        )),
        Err(command::Trouble::Failed(message)) => Finding::Broken(message),
    }
}

/// The number of a port that is given as such, or as the name of one of the
/// container's ports.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_ref() == Some(name));
            named
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok())
        }
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| match port {
            IntOrString::Int(number) => format!("{number} is no port"),
            IntOrString::String(name) => {
                format!("container {} has no port named {name:?}", container.name)
            }
        })
}
