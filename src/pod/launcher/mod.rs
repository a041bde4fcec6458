//! The launcher: the process that lives in the pod's mount namespace.
//!
//! It is forked from the keeper before anything else, has one thread, and does
//! one order after the other. What may hang, or changes the process that does
//! it (libcontainer sets the OOM score, the dumpable flag and the working
//! directory of its caller), is done by a throwaway *worker*: a copy of the
//! launcher and a child of the keeper, so that the containers which it clones
//! as its siblings are the keeper's children too.
//!
//! The launcher ends when its socket closes, or when the keeper dies; with it
//! and the containers end the pod's namespaces, and every mount in them.

mod app_armor;
mod container;
mod exec;
mod group;
mod image_volume;
mod propagation;
mod rootfs;
mod sandbox;
mod server_volume;
mod termination;
mod users;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::Pid;

use self::propagation::Sharing;
use self::sandbox::{Sandbox, beneath};
use super::home::Home;
use super::protocol::{Answer, Failure, FailureKind, Order};
use crate::kube::huge_pages;
use crate::pod::fs_group;
use crate::sys::process::{self, Kind};
use crate::sys::{memory, network, socket};
use crate::volume::nfs::NfsSource;
use crate::volume::written::Written;
use crate::volume::{self, Place, host_path};

/// How long keeper and launcher wait for something to do before they give back
/// what memory they do not need for waiting.
pub(super) const QUIET: Duration = Duration::from_millis(250);

/// How long a worker may live: a little longer than the keeper waits for its answer.
const WORK_LIMIT: Duration = Duration::from_secs(65);

/// Forks the launcher of a pod and returns its process and the socket on which
/// it takes orders. The caller must have one thread.
///
/// # Errors
/// What socketpair(2) or clone(2) say.
pub fn spawn(home: &Home) -> io::Result<(Pid, OwnedFd)> {
    let (ours, theirs) = socket::pair()?;
    let home = home.clone();
    let pid = process::spawn(Kind::Child, || i32::from(serve(&home, &theirs).is_err()))?;
    Ok((pid, ours))
}

/// The launcher's state between orders.
struct Launcher {
    home: Home,
    sandbox: Option<Sandbox>,
    /// The layers of every container's and every volume's image, locked for as long
    /// as they are mounted.
    layers: HashMap<String, Vec<OwnedFd>>,
    /// The volumes that are, or are about to be, mounted from servers.
    servers: BTreeMap<String, NfsSource>,
}

fn serve(home: &Home, orders: &OwnedFd) -> io::Result<()> {
    // The keeper's own end of the socket came along: with that open, the launcher
    // would never see the keeper close.
    process::close_descriptors_except(orders.as_fd())?;
    process::forget_standard_output()?;
    let mut launcher = Launcher {
        home: home.clone(),
        sandbox: None,
        layers: HashMap::new(),
        servers: BTreeMap::new(),
    };
    while let Some((bytes, descriptors)) = socket::receive(orders.as_fd())? {
        launcher.obey(&bytes, descriptors)?;
        drop(bytes);
        if !socket::stirs_within(orders.as_fd(), QUIET)? {
            memory::release_unused()?;
        }
    }
    Ok(())
}

impl Launcher {
    fn obey(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let mut descriptors = descriptors.into_iter();
        let Some(reply) = descriptors.next() else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let order = serde_json::from_slice(bytes)?;
        let descriptors: Vec<OwnedFd> = descriptors.collect();
        let done = match order {
            Order::Sandbox(order) => match Sandbox::build(&self.home, *order) {
                Ok((sandbox, lacks)) => {
                    self.sandbox = Some(sandbox);
                    return answer(&reply, &Answer::Sandbox(lacks), &[]);
                }
                Err(error) => Err(Refusal::from(error)),
            },
            Order::Volume(name) => {
                self.note_server(&name);
                match self.mount_volume(&reply, &name) {
                    Ok(Some(root)) => return answer(&reply, &Answer::Done, &[root.as_fd()]),
                    mounted => mounted.map(drop),
                }
            }
            Order::Metadata {
                labels,
                annotations,
            } => {
                if let Some(sandbox) = &mut self.sandbox {
                    sandbox.pod.metadata.labels = labels;
                    sandbox.pod.metadata.annotations = annotations;
                }
                Ok(())
            }
            Order::Discard(name) => self.discard(&name),
            Order::Socket { ipv6 } => match network::tcp_socket(ipv6) {
                Ok(socket) => return answer(&reply, &Answer::Done, &[socket.as_fd()]),
                Err(error) => Err(Refusal::from(anyhow::Error::from(error))),
            },
            Order::Container(order) => self.prepare(&order).and_then(|rootfs| {
                let sandbox = self.sandbox()?;
                work(&reply, || {
                    container::start(&self.home, sandbox, &order, &rootfs, descriptors)
                })
            }),
            // A server that does not answer holds up nobody but the worker.
            Order::Usage => self.sandbox().and_then(|sandbox| {
                let usage = || server_volume::usage(sandbox).map(Answer::Usage);
                delegate(&reply, || (told(usage()), Vec::new()))
            }),
            Order::GiveServersUp => self
                .sandbox()
                .and_then(|sandbox| self.give_servers_up(&reply, sandbox)),
            Order::Exec(order) => self
                .sandbox()
                .and_then(|_| work(&reply, || exec::start(&self.home, &order, descriptors))),
        };
        match done {
            Ok(()) => answer(&reply, &Answer::Done, &[]),
            Err(Refusal::Delegated) => Ok(()),
            Err(Refusal::Failed(failure)) => answer(&reply, &Answer::Failed(failure), &[]),
        }
    }

    fn sandbox(&self) -> Result<&Sandbox, Refusal> {
        let missing = || anyhow!("the pod's sandbox has not been made");
        Ok(self.sandbox.as_ref().ok_or_else(missing)?)
    }

    /// Notes from which server a volume comes, if from any.
    fn note_server(&mut self, name: &str) {
        let Some(sandbox) = &self.sandbox else {
            return;
        };
        let spec = sandbox.pod.spec.iter();
        let mut volumes = spec.flat_map(|spec| spec.volumes.iter().flatten());
        let source = volumes
            .find(|volume| volume.name == name)
            .and_then(|volume| NfsSource::of(volume, sandbox.persistent.get(name)));
        if let Some(source) = source {
            self.servers.insert(name.to_owned(), source);
        }
    }

    /// Returns the root of a volume whose files the keeper writes.
    fn mount_volume(&mut self, reply: &OwnedFd, name: &str) -> Result<Option<OwnedFd>, Refusal> {
        let sandbox = self.sandbox()?;
        let spec = sandbox.pod.spec.as_ref().context("the pod has no spec")?;
        let volume = spec
            .volumes
            .iter()
            .flatten()
            .find(|volume| volume.name == name);
        let volume = volume.with_context(|| format!("the pod has no volume {name:?}"))?;
        if let Some(source) = &volume.image {
            let layers = image_volume::mount(&self.home, sandbox, name, source)?;
            // No container's name has a slash in it.
            self.layers.insert(format!("volumes/{name}"), layers);
            return Ok(None);
        }
        if let Some(source) = self.servers.get(name) {
            let sharing = Sharing::of(spec, name);
            let mount = || server_volume::mount(sandbox, volume, source, sharing);
            return delegate(reply, || (mount(), Vec::new())).map(|()| None);
        }
        let memory =
            super::spec::resources::memory_volume_size(spec, volume, sandbox.memory_capacity);
        let place = Place {
            directory: sandbox.volumes_on_disk.as_fd(),
            memory,
            huge_pages: &huge_pages::requested(spec),
            persistent: sandbox.persistent.get(name),
        };
        let sharing = Sharing::of(spec, name);
        let users = sandbox.users.as_ref();
        let given = users.filter(|_| users::are_given(volume));
        let set_up = || -> Result<OwnedFd> {
            let tree = sandbox.host.set_up(volume, sharing, || {
                Ok(volume::of(volume).and_then(|kind| kind.set_up(place))?)
            })?;
            sharing
                .apply(volume, tree.as_fd())
                .with_context(|| format!("cannot set what volume {name:?} shares"))?;
            let ownership = match given {
                Some(users) => Some(fs_group::of_users(spec, volume, users.root())),
                None => fs_group::of(spec, volume, place.persistent),
            };
            if let Some(ownership) = ownership {
                let root = beneath(tree.as_fd(), ".").map_err(std::io::Error::from);
                root.and_then(|root| ownership.give(root.as_fd()))
                    .with_context(|| format!("cannot give volume {name:?} to its owner"))?;
            }
            Ok(tree)
        };
        if volume.host_path.as_ref().is_some_and(host_path::may_wait) {
            let attach = || {
                let tree = set_up()?;
                match users {
                    Some(users) if given.is_none() => sandbox.attach_shown(name, tree, users),
                    _ => sandbox.attach_anew(name, tree),
                }
            };
            let answer = || server_volume::set_host_path_up(volume, attach);
            return delegate(reply, || (answer(), Vec::new())).map(|()| None);
        }
        let tree = set_up()?;
        let root = Written::of(volume)
            .map(|_| beneath(tree.as_fd(), "."))
            .transpose()
            .with_context(|| format!("cannot open the root of volume {name:?}"))?;
        match users {
            Some(users) if given.is_none() => sandbox.attach_shown(name, tree, users)?,
            _ => sandbox.attach_volume(name, tree)?,
        }
        Ok(root)
    }

    /// Lets a worker tell which servers do not answer, and then end what waits for
    /// them: whoever gave the order hears of the end from those who waited.
    fn give_servers_up(&self, reply: &OwnedFd, sandbox: &Sandbox) -> Result<(), Refusal> {
        let worker = || {
            let away = match server_volume::away(sandbox, &self.servers) {
                Ok(away) => away,
                Err(error) => return i32::from(answer(reply, &told(Err(error)), &[]).is_err()),
            };
            let named = away.iter();
            let named = named.map(|(name, source)| format!("{name:?} ({})", source.export()));
            let said = answer(reply, &Answer::GivenUp(named.collect()), &[]);
            i32::from(said.is_err() || server_volume::give_up(&self.home, &away).is_err())
        };
        process::spawn(Kind::Sibling, worker).context("cannot fork a worker")?;
        Err(Refusal::Delegated)
    }

    fn prepare(&mut self, order: &super::protocol::ContainerOrder) -> Result<OwnedFd, Refusal> {
        let sandbox = self.sandbox()?;
        let (layers, rootfs) = rootfs::mount(&self.home, sandbox, order)
            .map_err(|error| Refusal::Failed(Failure::new(FailureKind::Create, &error)))?;
        self.layers.insert(order.name.clone(), layers);
        Ok(rootfs)
    }

    fn discard(&mut self, name: &str) -> Result<(), Refusal> {
        rootfs::unmount(self.sandbox()?, name)?;
        self.layers.remove(name);
        Ok(())
    }
}

/// Why an order is not answered with a plain `Done`.
enum Refusal {
    /// A worker answers in the launcher's place.
    Delegated,
    Failed(Failure),
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(Failure::new(FailureKind::Other, &error))
    }
}

/// What a worker answers.
fn told(result: Result<Answer>) -> Answer {
    result.unwrap_or_else(|error| Answer::Failed(Failure::new(FailureKind::Other, &error)))
}

/// What a worker hands to the keeper: the started process, and the descriptors
/// that go with it.
type Started = (i32, Vec<OwnedFd>);

/// Lets a worker do `job`, which starts a process, and answer for it.
fn work(reply: &OwnedFd, job: impl FnOnce() -> Result<Started, Failure>) -> Result<(), Refusal> {
    delegate(reply, || match job() {
        Ok((pid, descriptors)) => (Answer::Started { pid }, descriptors),
        Err(failure) => (Answer::Failed(failure), Vec::new()),
    })
}

/// Lets a worker answer in the launcher's place.
fn delegate(reply: &OwnedFd, job: impl FnOnce() -> (Answer, Vec<OwnedFd>)) -> Result<(), Refusal> {
    let worker = || {
        process::end_after(WORK_LIMIT);
        let (said, descriptors) = job();
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        i32::from(answer(reply, &said, &descriptors).is_err())
    };
    process::spawn(Kind::Sibling, worker).context("cannot fork a worker")?;
    Err(Refusal::Delegated)
}

fn answer(
    reply: &OwnedFd,
    answer: &Answer,
    descriptors: &[std::os::fd::BorrowedFd],
) -> io::Result<()> {
    match socket::send(reply.as_fd(), &serde_json::to_vec(answer)?, descriptors) {
        // The keeper has given the order up; there is nobody to tell.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
