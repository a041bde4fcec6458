//! Scopes: control groups that systemd makes, and knows of, for processes that it did
//! not start (systemd.scope(5), org.freedesktop.systemd1(5)).
//!
//! Asked is systemd's own socket, which root may use and which needs no message bus.

mod bus;

use std::io;
use std::path::Path;

use self::bus::{Body, Bus, CallError, Message, Method};

const SOCKET: &str = "/run/systemd/private";
/// There while systemd is what started the machine: sd_booted(3).
const BOOTED: &str = "/run/systemd/system";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
/// How the signal that ends a job says that all went well.
const DONE: &str = "done";

/// Why systemd did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// There is no systemd to ask.
    #[error("systemd does not run this machine ({BOOTED} is missing): use the cgroupfs driver")]
    NotBooted,
    /// It cannot be reached, or does not answer.
    #[error("cannot talk to systemd through {SOCKET}: {0}")]
    Talk(#[from] io::Error),
    /// There is such a unit already.
    #[error(
        "systemd has a unit {unit:?} already: stop it (systemctl stop {unit}) or use another name"
    )]
    Exists {
        /// The unit's name.
        unit: String,
    },
    /// It says no.
    #[error("systemd does not {verb} {unit:?}: {reason}")]
    Refused {
        /// What was asked for.
        verb: &'static str,
        /// The unit's name.
        unit: String,
        /// Its own words.
        reason: String,
    },
}

/// The value of a unit's property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A truth value.
    Flag(bool),
    /// An amount; `u64::MAX` for no limit.
    Number(u64),
    /// Process ids.
    Processes(Vec<u32>),
    /// A set of numbers, the lowest eight in the first byte.
    Bits(Vec<u8>),
}

/// Properties of a unit by their names, as org.freedesktop.systemd1(5) has them.
pub type Properties = Vec<(&'static str, Value)>;

/// A connection to systemd.
#[derive(Debug)]
pub struct Systemd {
    bus: Bus,
    /// Jobs that ended, each with the way it did.
    ended: Vec<(String, String)>,
}

impl Systemd {
    /// Connects.
    ///
    /// # Errors
    /// [`SystemdError::NotBooted`] where there is none, [`SystemdError::Talk`] for
    /// who is not root.
    pub fn connect() -> Result<Self, SystemdError> {
        if !Path::new(BOOTED).is_dir() {
            return Err(SystemdError::NotBooted);
        }
        Ok(Self {
            bus: Bus::connect(Path::new(SOCKET))?,
            ended: Vec::new(),
        })
    }

    /// Makes the scope `unit` for the process `pid`, and returns when the process is
    /// in its control group. The group below it is the caller's to divide.
    ///
    /// # Errors
    /// [`SystemdError::Exists`], and what systemd says.
    pub fn start_scope(
        &mut self,
        unit: &str,
        slice: &str,
        pid: u32,
        more: &[(&'static str, Value)],
    ) -> Result<(), SystemdError> {
        let mut properties = vec![
            ("Slice", Value::Text(slice.to_owned())),
            ("PIDs", Value::Processes(vec![pid])),
            ("Delegate", Value::Flag(true)),
            ("DefaultDependencies", Value::Flag(false)),
            // Also a scope that failed goes when its last process does.
            ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
        ];
        properties.extend_from_slice(more);
        let mut body = Body::default();
        body.string(unit);
        body.string("fail");
        body.array(8, |list| {
            for (name, value) in &properties {
                list.structure();
                list.string(name);
                put(list, value);
            }
        });
        // Units that come along: none.
        body.array(8, |_| {});
        self.job(
            "start",
            unit,
            "StartTransientUnit",
            "ssa(sv)a(sa(sv))",
            &body,
        )
    }

    /// Stops `unit` and returns when it is gone. A unit that is not there is no error.
    ///
    /// # Errors
    /// What systemd says.
    pub fn stop(&mut self, unit: &str) -> Result<(), SystemdError> {
        let mut body = Body::default();
        body.string(unit);
        body.string("replace");
        self.job("stop", unit, "StopUnit", "ss", &body)
    }

    fn job(
        &mut self,
        verb: &'static str,
        unit: &str,
        method: &str,
        signature: &str,
        body: &Body,
    ) -> Result<(), SystemdError> {
        let method = Method {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            name: method,
        };
        let ended = &mut self.ended;
        let answer = self
            .bus
            .call(&method, signature, body, |signal| note(ended, &signal));
        let answer = match answer {
            Ok(answer) => answer,
            Err(CallError::Io(error)) => return Err(error.into()),
            Err(CallError::Refused { name, .. }) if name == NO_SUCH_UNIT && verb == "stop" => {
                return Ok(());
            }
            Err(CallError::Refused { name, .. }) if name == UNIT_EXISTS => {
                let unit = unit.to_owned();
                return Err(SystemdError::Exists { unit });
            }
            Err(CallError::Refused { text: reason, .. }) => {
                return Err(SystemdError::Refused {
                    verb,
                    unit: unit.to_owned(),
                    reason,
                });
            }
        };
        let job = answer.strings("o").pop().unwrap_or_default();
        loop {
            if let Some((_, result)) = self.ended.iter().find(|(ended, _)| *ended == job) {
                if result == DONE {
                    return Ok(());
                }
                return Err(SystemdError::Refused {
                    verb,
                    unit: unit.to_owned(),
                    reason: format!("the job ended as {result:?}"),
                });
            }
            let signal = self.bus.next()?;
            note(&mut self.ended, &signal);
        }
    }
}

/// Keeps what a signal says of the end of a job.
fn note(ended: &mut Vec<(String, String)>, signal: &Message) {
    if signal.member == "JobRemoved"
        && let Ok([job, _unit, result]) = <[String; 3]>::try_from(signal.strings("uoss"))
    {
        ended.push((job, result));
    }
}

fn put(body: &mut Body, value: &Value) {
    match value {
        Value::Text(text) => {
            body.signature("s");
            body.string(text);
        }
        Value::Flag(flag) => {
            body.signature("b");
            body.u32(u32::from(*flag));
        }
        Value::Number(number) => {
            body.signature("t");
            body.u64(*number);
        }
        Value::Processes(pids) => {
            body.signature("au");
            body.array(4, |list| pids.iter().for_each(|pid| list.u32(*pid)));
        }
        Value::Bits(bytes) => {
            body.signature("ay");
            body.array(1, |list| bytes.iter().for_each(|byte| list.byte(*byte)));
        }
    }
}
