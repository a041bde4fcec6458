//! The image of a container or a volume: looked up, and pulled when its policy says so
//! (<https://kubernetes.io/docs/concepts/containers/images/#image-pull-policy>).
//!
//! An image that came from a file has no registry that could have a newer one:
//! it is taken as it is, whatever the policy, and nobody is asked. The same
//! holds for one that is named by its digest. Of an image that was pulled the
//! registry is asked when the policy is `Always`; when none answers within a
//! few seconds, the one on this machine runs, and an event says so.
//!
//! The pull itself is done by another process ([`crate::pod::puller`]).

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc::UnboundedSender;

use super::children::Children;
use super::start::StartError;
use super::{Event, Keeper};
use crate::image::store::ImageStore;
use crate::image::{Image, ImageError};
use crate::oci::signal::KILL;
use crate::pod::pull_secrets;
use crate::pod::puller::{Answer, Question};
use crate::storage::events::EventType;
use crate::storage::roots::Roots;
use crate::sys::pidfd;

/// The program that pulls; it lies beside this one.
const PROGRAM: &str = "orlop";

/// How much of what that program says is kept, in bytes: its last line.
const LONGEST_LINE: usize = 64 << 10;

/// A pull that is under way.
#[derive(Clone)]
pub(super) struct Pull {
    process: Rc<OwnedFd>,
    given_up: Rc<Cell<bool>>,
}

impl Pull {
    /// Ends it: nobody wants the image any more.
    pub(super) fn give_up(&self) {
        self.given_up.set(true);
        // One that has ended meanwhile needs no signal.
        let _ = pidfd::send_signal(&*self.process, KILL);
    }
}

/// What wants an image, by its place in the keeper's list.
#[derive(Clone, Copy)]
pub(super) enum Wanting {
    Container(usize),
    Volume(usize),
}

/// What it takes to get an image.
pub(super) struct Puller {
    pub(super) wanting: Wanting,
    /// The image's name, as the manifest has it.
    pub(super) image: String,
    /// When to pull it: `Always`, `IfNotPresent` or `Never`.
    pub(super) policy: Option<String>,
    pub(super) events: UnboundedSender<Event>,
    pub(super) children: Children,
    pub(super) roots: Roots,
    /// Decoded docker configurations of the pod's image pull secrets.
    pub(super) secrets: Vec<String>,
}

impl Puller {
    fn say(&self, kind: EventType, reason: &'static str, message: String) {
        let _ = self.events.send(Event::Image {
            wanting: self.wanting,
            kind,
            reason,
            message,
        });
    }

    /// Has the image pulled. The second value tells whether the pull was ended
    /// by [`Pull::give_up`].
    async fn ask(&self) -> (io::Result<Answer>, bool) {
        let given_up = Rc::new(Cell::new(false));
        let answer = self.execute(&given_up).await;
        let _ = self.events.send(Event::Pulling {
            wanting: self.wanting,
            pull: None,
        });
        (answer, given_up.get())
    }

    async fn execute(&self, given_up: &Rc<Cell<bool>>) -> io::Result<Answer> {
        let program = std::env::current_exe()?.with_file_name(PROGRAM);
        let (input, question) = io::pipe()?;
        let (answer, output) = io::pipe()?;
        let mut command = Command::new(&program);
        command
            .arg("--root")
            .arg(&self.roots.data)
            .arg("--run")
            .arg(&self.roots.run)
            .arg("--log-root")
            .arg(&self.roots.logs)
            .args(["image", "pull", "--for-pod", "--", &self.image])
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output.try_clone()?))
            .stderr(Stdio::from(output));
        let expected = self.children.expect();
        let spawned = command.spawn();
        // The other sides of the pipes must be the process's alone.
        drop(command);
        let spawned = spawned.map_err(|error| {
            let text = format!(
                "cannot execute {program:?}, which pulls images: {error}; install it beside \
                 containerd-shim-orlop-v2"
            );
            io::Error::new(error.kind(), text)
        })?;
        let process = expected.arrived(spawned.id().cast_signed())?;
        let _ = self.events.send(Event::Pulling {
            wanting: self.wanting,
            pull: Some(Pull {
                process: process.pidfd(),
                given_up: Rc::clone(given_up),
            }),
        });
        let question = pipe::Sender::from_owned_fd(question.into())?;
        let answer = pipe::Receiver::from_owned_fd(answer.into())?;
        let secrets = self.secrets.clone();
        let (_, line) = tokio::join!(tell(question, Question { secrets }), last_line(answer));
        let code = process.exit_code().await?;
        let line = line?;
        Ok(
            serde_json::from_str(&line).unwrap_or_else(|_| Answer::Failed {
                reason: match line.is_empty() {
                    true => format!("{program:?} ended with code {code} and said nothing"),
                    false => line,
                },
            }),
        )
    }
}

/// A process that ends without having read this says why by itself.
async fn tell(mut to: pipe::Sender, question: Question) -> io::Result<()> {
    to.write_all(&serde_json::to_vec(&question)?).await
}

async fn last_line(mut from: pipe::Receiver) -> io::Result<String> {
    let mut text = Vec::new();
    while from.read_buf(&mut text).await? > 0 {
        let surplus = text.len().saturating_sub(LONGEST_LINE);
        text.drain(..surplus);
    }
    let text = String::from_utf8_lossy(&text);
    let line = text.trim_end().lines().next_back();
    Ok(line.unwrap_or_default().to_owned())
}

impl Puller {
    /// The image, once it is there.
    ///
    /// # Errors
    /// Why it is not, or that nobody wants it any more.
    pub(super) async fn image(&self) -> Result<Image, StartError> {
        let (name, policy) = (&self.image, self.policy.as_deref());
        let found = self.look_up()?;
        match found {
            Some(image) if policy != Some("Always") || !image.may_have_moved(name) => {
                let message = format!("Container image \"{name}\" already present on machine");
                self.say(EventType::Normal, "Pulled", message);
                Ok(image)
            }
            None if policy == Some("Never") => {
                let message =
                    format!("Container image \"{name}\" is not present with pull policy of Never");
                self.missing(
                    "ErrImageNeverPull",
                    "ErrImageNeverPull",
                    &message,
                    message.clone(),
                )
            }
            found => self.pull(found).await,
        }
    }

    async fn pull(&self, found: Option<Image>) -> Result<Image, StartError> {
        let name = &self.image;
        let message = format!("Pulling image \"{name}\"");
        self.say(EventType::Normal, "Pulling", message);
        let start = Instant::now();
        let (answer, given_up) = self.ask().await;
        if given_up {
            return Err(StartError::GivenUp);
        }
        let reason = match (answer, found) {
            (Ok(Answer::Pulled { size, waited }), _) => {
                let total = start.elapsed();
                let message = format!(
                    "Successfully pulled image \"{name}\" in {} ({} including waiting). Image \
                     size: {size} bytes.",
                    go_duration(total.saturating_sub(waited)),
                    go_duration(total),
                );
                self.say(EventType::Normal, "Pulled", message);
                match self.look_up()? {
                    Some(image) => return Ok(image),
                    None => "it was removed as soon as it was there".to_owned(),
                }
            }
            (Ok(Answer::Kept { reason }), Some(image)) => {
                let message =
                    format!("{reason}: running image \"{name}\" as it is present on this machine");
                self.say(EventType::Warning, "RegistryUnavailable", message);
                return Ok(image);
            }
            (Ok(Answer::Kept { reason } | Answer::Failed { reason }), _) => reason,
            (Err(error), _) => error.to_string(),
        };
        let message = format!("Failed to pull image \"{name}\": {reason}");
        self.missing("ErrImagePull", "Failed", &message, reason)
    }

    fn look_up(&self) -> Result<Option<Image>, StartError> {
        let name = &self.image;
        let store = ImageStore::open(&self.roots.images());
        match store.and_then(|store| store.resolve(name)) {
            Ok(found) => Ok(found),
            Err(ImageError::Reference(error)) => {
                let message = format!(
                    "Failed to apply default image tag \"{name}\": couldn't parse image name \
                     \"{name}\": {}",
                    error.reason
                );
                self.missing(
                    "InvalidImageName",
                    "InspectFailed",
                    &message,
                    message.clone(),
                )
            }
            Err(error) => {
                let message = format!("Failed to inspect image \"{name}\": {error}");
                self.missing(
                    "ImageInspectError",
                    "InspectFailed",
                    &message,
                    message.clone(),
                )
            }
        }
    }

    /// There is no image: `event` says so with a message, and the container
    /// waits for a reason.
    fn missing<T>(
        &self,
        reason: &'static str,
        event: &'static str,
        said: &str,
        message: String,
    ) -> Result<T, StartError> {
        self.say(EventType::Warning, event, said.to_owned());
        Err(StartError::Image { reason, message })
    }
}

impl Keeper {
    /// What gets an image for a container or a volume.
    pub(super) fn puller(
        &self,
        wanting: Wanting,
        image: Option<String>,
        policy: Option<String>,
    ) -> Puller {
        Puller {
            wanting,
            image: image.unwrap_or_default(),
            policy,
            events: self.events.clone(),
            children: self.children.clone(),
            roots: self.home.roots.clone(),
            secrets: self.pull_secrets(wanting),
        }
    }

    /// Takes in what there is to say about an image.
    pub(super) fn image_said(
        &self,
        wanting: Wanting,
        kind: EventType,
        reason: &str,
        message: String,
    ) {
        let path = match wanting {
            Wanting::Container(index) => self.containers[index].field_path(),
            Wanting::Volume(_) => String::new(),
        };
        self.happened(kind, &path, reason, message);
    }

    /// What the pod brings along for registries. A pull is tried without what is not
    /// there, as a registry may want nothing.
    fn pull_secrets(&self, wanting: Wanting) -> Vec<String> {
        let found = match pull_secrets::of(&self.pod, &self.store) {
            Ok(found) => found,
            Err(error) => {
                let message = format!("cannot read the image pull secrets: {error:#}");
                self.image_said(
                    wanting,
                    EventType::Warning,
                    "FailedToRetrieveImagePullSecret",
                    message,
                );
                return Vec::new();
            }
        };
        if !found.missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                found.missing.join(", ")
            );
            self.image_said(
                wanting,
                EventType::Warning,
                "FailedToRetrieveImagePullSecret",
                message,
            );
        }
        found.configurations
    }

    /// A pull has begun, or come to its end.
    pub(super) fn pulling(&mut self, wanting: Wanting, pull: Option<Pull>) {
        if let Some(pull) = &pull
            && self.stopping.is_some()
        {
            pull.give_up();
        }
        match wanting {
            Wanting::Container(index) => self.containers[index].pull = pull,
            Wanting::Volume(index) => self.volumes[index].1.pull = pull,
        }
    }

    /// Shows that a container whose image could not be pulled waits for the next
    /// try. Returns false when it is time for that.
    pub(super) fn backs_off(&mut self, index: usize) -> bool {
        if !self.containers[index].image_backs_off() {
            return false;
        }
        let image = &self.containers[index].image;
        let message = format!("Back-off pulling image \"{image}\"");
        self.image_said(
            Wanting::Container(index),
            EventType::Normal,
            "BackOff",
            message,
        );
        let message = "Error: ImagePullBackOff".to_owned();
        self.image_said(
            Wanting::Container(index),
            EventType::Warning,
            "Failed",
            message,
        );
        true
    }
}

/// A time in Go's way, to the millisecond: `843ms`, `1.2s`, `1m2.345s`.
fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return match millis {
            0 => "0s".to_owned(),
            millis => format!("{millis}ms"),
        };
    }
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let seconds = format!("{}.{:03}", millis / 1000 % 60, millis % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_does() {
        for (millis, text) in [
            (0, "0s"),
            (7, "7ms"),
            (1200, "1.2s"),
            (2000, "2s"),
            (10_010, "10.01s"),
            (62_345, "1m2.345s"),
            (120_000, "2m0s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }
}
