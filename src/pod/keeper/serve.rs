//! The keeper's socket: who connects, what is asked, and the processes that run
//! for clients.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::PodStatus;
use rustix::net::sockopt::socket_peercred;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};

use super::attach::{self, Hubs};
use super::children::Children;
use super::container::State;
use super::execute::execute;
use super::{Event, Keeper, orders};
use crate::pod::control::{Attach, Exec, Reply, Request};
use crate::pod::home::Home;
use crate::pod::protocol::{Answer, ExecOrder, Order};
use crate::sys::{readable, socket};

/// Makes the socket on which the keeper listens, for its own user only.
pub(super) fn listen(home: &Home) -> io::Result<UnixListener> {
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = socket::listen(&home.socket());
    rustix::process::umask(mask);
    let listener = listener?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// A connected client.
pub(super) struct Connection(OwnedFd);

impl Connection {
    fn reply(&self, reply: &Reply, descriptors: &[OwnedFd]) -> io::Result<()> {
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        socket::send(self.0.as_fd(), &serde_json::to_vec(reply)?, &descriptors)
    }

    /// Tells a client that the pod is gone. A client that did not wait is none
    /// of the keeper's business.
    pub(super) fn reply_gone(self, lost: &[String]) {
        let left = lost.to_vec();
        let _ = self.reply(&Reply::Gone { left }, &[]);
    }
}

/// What tasks that serve clients share with the keeper's loop.
#[derive(Default)]
pub(super) struct Watchers {
    status: Rc<watch::Sender<Option<PodStatus>>>,
    running: Rc<RefCell<Vec<Target>>>,
    hubs: Hubs,
}

/// A running container, as clients may choose it.
struct Target {
    name: String,
    id: Option<String>,
}

impl Watchers {
    /// The streams of the running containers.
    pub(super) fn hubs(&self) -> Hubs {
        Rc::clone(&self.hubs)
    }

    /// Tells everybody who watches that the status has changed.
    pub(super) fn tell(&self, status: &PodStatus) {
        self.status.send_replace(Some(status.clone()));
    }
}

impl Keeper {
    /// Lets a task take in connections.
    pub(super) fn serve(&self, listener: UnixListener) {
        let service = Rc::new(Service {
            launcher: Rc::clone(&self.launcher),
            events: self.events.clone(),
            status: Rc::clone(&self.watchers.status),
            children: self.children.clone(),
            running: Rc::clone(&self.watchers.running),
            hubs: self.watchers.hubs(),
        });
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = Rc::clone(&service);
                tokio::task::spawn_local(async move {
                    // A client that goes away in the middle has nobody to tell.
                    let _ = service.attend(stream).await;
                });
            }
        });
    }

    /// Lets clients see which containers run.
    pub(super) fn publish(&self) {
        let targets = self.containers.iter().map(|container| Target {
            name: container.name.clone(),
            id: match container.state {
                State::Running(_) => container.id.clone(),
                _ => None,
            },
        });
        *self.watchers.running.borrow_mut() = targets.collect();
    }
}

struct Service {
    launcher: Rc<OwnedFd>,
    events: mpsc::UnboundedSender<Event>,
    status: Rc<watch::Sender<Option<PodStatus>>>,
    children: Children,
    running: Rc<RefCell<Vec<Target>>>,
    hubs: Hubs,
}

impl Service {
    async fn attend(&self, stream: tokio::net::UnixStream) -> Result<()> {
        let peer = socket_peercred(&stream)?;
        if peer.uid != rustix::process::geteuid() {
            bail!(
                "user {} may not give orders to this pod's keeper",
                peer.uid.as_raw()
            );
        }
        let stream = OwnedFd::from(stream.into_std()?);
        let stream = readable::watch(stream)?;
        let Some((bytes, descriptors)) = orders::receive(&stream).await? else {
            return Ok(());
        };
        let request = serde_json::from_slice(&bytes)?;
        let stream = stream.into_inner();
        rustix::io::ioctl_fionbio(&stream, false)?;
        let connection = Connection(stream);
        match request {
            Request::Stop { grace, wait } => {
                let grace = Duration::from_secs(grace.into());
                let _ = self.events.send(Event::Stop {
                    grace,
                    done: wait.then_some(connection),
                });
                Ok(())
            }
            Request::Reload => {
                let _ = self.events.send(Event::Reload);
                Ok(())
            }
            Request::Watch => self.watch(&connection).await,
            Request::Usage => {
                let answer = orders::order(self.launcher.as_fd(), &Order::Usage, &[]).await;
                let reply = match answer {
                    Ok((Answer::Usage(usage), _)) => Reply::Usage(usage),
                    Ok(_) => Reply::Failed("the launcher told no usage".to_owned()),
                    Err(failure) => Reply::Failed(failure.message),
                };
                Ok(connection.reply(&reply, &[])?)
            }
            Request::Root(container) => {
                match attach::find(&self.hubs, &container).and_then(|hub| hub.root()) {
                    Ok((reply, root)) => connection.reply(&reply, &[root])?,
                    Err(error) => connection.reply(&Reply::Failed(format!("{error:#}")), &[])?,
                }
                Ok(())
            }
            Request::Attach(request) => self.attach(&connection, &request, descriptors).await,
            Request::Exec(exec) => match self.exec(&connection, exec, descriptors).await {
                Ok(code) => Ok(connection.reply(&Reply::Exited(code), &[])?),
                Err(error) => Ok(connection.reply(&Reply::Failed(format!("{error:#}")), &[])?),
            },
        }
    }

    async fn watch(&self, connection: &Connection) -> Result<()> {
        let mut status = self.status.subscribe();
        status.mark_changed();
        while status.changed().await.is_ok() {
            let status = status.borrow_and_update().clone();
            if let Some(status) = status {
                connection.reply(&Reply::Status(Box::new(status)), &[])?;
            }
        }
        Ok(())
    }

    async fn attach(
        &self,
        connection: &Connection,
        request: &Attach,
        pipes: Vec<OwnedFd>,
    ) -> Result<()> {
        let attached = match attach::find(&self.hubs, &request.container) {
            Ok(hub) => hub.attach(&connection.0, request, pipes).await,
            Err(error) => Err(error),
        };
        let reply = match attached {
            Ok(Some(code)) => Reply::Exited(code),
            Ok(None) => return Ok(()),
            Err(error) => Reply::Failed(format!("{error:#}")),
        };
        Ok(connection.reply(&reply, &[])?)
    }

    async fn exec(
        &self,
        connection: &Connection,
        exec: Exec,
        descriptors: Vec<OwnedFd>,
    ) -> Result<i32> {
        let id = {
            let running = self.running.borrow();
            let target = running.iter().find(|target| target.name == exec.container);
            let target =
                target.with_context(|| format!("container {} is not in pod", exec.container))?;
            let id = target.id.clone();
            id.with_context(|| format!("container {:?} is not running", exec.container))?
        };
        let order = ExecOrder {
            name: exec.container,
            id,
            command: exec.command,
            terminal: exec.terminal,
            term: exec.term,
        };
        let (process, terminal) =
            execute(&self.launcher, &self.children, order, descriptors).await?;
        // Whether the client still listens or not, the process must be reaped.
        let told = connection.reply(&Reply::Started, terminal.as_slice());
        drop(terminal);
        let code = process.exit_code().await?;
        told?;
        Ok(code)
    }
}
