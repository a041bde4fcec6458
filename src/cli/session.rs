//! A user's side of a process in a container: what is typed goes in, what it
//! writes comes out, the terminal follows the window, and is given its former
//! mode back however the session ends.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::pod::control::{Client, END_OF_INPUT, Reply};
use crate::sys::terminal::{self, RawMode, Signal, Signals};

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The process ended with this code.
    Exited(i32),
    /// The user left it.
    Detached,
    /// This program got the signal of that number.
    Signal(i32),
}

/// A session that is about to begin.
pub(super) struct Session {
    /// Where what is typed goes, if anything is.
    pub(super) input: Option<OwnedFd>,
    /// Where the output comes from, and whether it is the error stream.
    pub(super) outputs: Vec<(OwnedFd, bool)>,
    /// The terminal of the process, when the user has one, too.
    pub(super) terminal: Option<OwnedFd>,
    /// The keys that leave the session.
    pub(super) detach: Vec<u8>,
    /// Whether the keeper is to be told that there is no more input.
    pub(super) tell_end: bool,
}

/// Descriptor of the signals that a session is interested in. To be made before
/// there are threads.
///
/// # Errors
/// What signalfd(2) says.
pub(super) fn signals() -> Result<Signals> {
    Ok(Signals::new()?)
}

impl Session {
    /// Runs the session to its end.
    ///
    /// # Errors
    /// That the terminal cannot be used, or that the keeper has gone.
    pub(super) fn run(self, keeper: &Client, signals: Option<&Signals>) -> Result<End> {
        let stdin = io::stdin();
        let raw = match &self.terminal {
            Some(terminal) => {
                terminal::copy_size(&stdin, terminal)?;
                Some(RawMode::enter(stdin.as_fd())?)
            }
            None => None,
        };
        let (detached, has_detached) = io::pipe()?;
        if let Some(input) = self.input {
            let detach = self.detach;
            let keeper = self
                .tell_end
                .then(|| keeper.as_fd().try_clone_to_owned())
                .transpose()?;
            // Ends with this program: nobody waits for input that never comes.
            std::thread::spawn(move || {
                let left = feed(io::stdin(), &input, &detach);
                drop(input);
                if let Some(keeper) = keeper {
                    // It may be gone already, and then wants to hear nothing.
                    let _ = rustix::io::write(&keeper, &[END_OF_INPUT]);
                }
                if matches!(left, Ok(Left::Detached)) {
                    let mut has_detached = has_detached;
                    let _ = has_detached.write_all(b"d");
                } else {
                    std::mem::forget(has_detached);
                }
            });
        } else {
            std::mem::forget(has_detached);
        }
        let readers: Vec<JoinHandle<io::Result<()>>> = self
            .outputs
            .into_iter()
            .map(|(from, is_error)| {
                std::thread::spawn(move || match is_error {
                    true => copy(File::from(from), io::stderr()),
                    false => copy(File::from(from), io::stdout()),
                })
            })
            .collect();
        let end = attend(keeper, signals, self.terminal.as_ref(), &detached.into());
        if matches!(end, Ok(End::Exited(_)) | Err(_)) {
            for reader in readers {
                // A reader of ours that has gone away is no concern of the
                // process; a terminal reports EIO at its end.
                let _ = reader.join();
            }
        }
        drop(raw);
        end
    }
}

/// Waits for the end of the process, and hands changes of the window's size on.
fn attend(
    keeper: &Client,
    signals: Option<&Signals>,
    terminal: Option<&OwnedFd>,
    detached: &OwnedFd,
) -> Result<End> {
    loop {
        let keeper_fd = keeper.as_fd();
        let mut interest = vec![
            PollFd::from_borrowed_fd(keeper_fd, PollFlags::IN),
            PollFd::new(detached, PollFlags::IN),
        ];
        if let Some(signals) = signals {
            interest.push(PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN));
        }
        rustix::io::retry_on_intr(|| poll(&mut interest, None))?;
        let ready: Vec<bool> = interest.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[0] {
            return match keeper.receive()? {
                Some((Reply::Exited(code), _)) => Ok(End::Exited(code)),
                Some((Reply::Failed(reason), _)) => bail!("{reason}"),
                _ => bail!("the pod was stopped while the command ran"),
            };
        }
        if ready[1] {
            return Ok(End::Detached);
        }
        if let Some(signals) = signals
            && ready[2]
        {
            match signals.next()? {
                Signal::Resized => {
                    if let Some(terminal) = terminal {
                        terminal::copy_size(io::stdin(), terminal)?;
                    }
                }
                Signal::End(number) => return Ok(End::Signal(number)),
            }
        }
    }
}

/// Why no more is typed.
enum Left {
    End,
    Detached,
}

/// Passes on what is typed until its end, or until the keys that detach.
fn feed(mut from: impl Read, to: &OwnedFd, detach: &[u8]) -> io::Result<Left> {
    let mut buffer = [0; 16 << 10];
    let mut matched = 0;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(Left::End);
        }
        let mut passed = Vec::with_capacity(count);
        for byte in &buffer[..count] {
            if !detach.is_empty() && *byte == detach[matched] {
                matched += 1;
                if matched == detach.len() {
                    write_all(to, &passed)?;
                    return Ok(Left::Detached);
                }
                continue;
            }
            // They were typed for the process after all.
            passed.extend_from_slice(&detach[..matched]);
            matched = usize::from(!detach.is_empty() && *byte == detach[0]);
            if matched == 0 {
                passed.push(*byte);
            }
        }
        write_all(to, &passed)?;
    }
}

/// Writes everything, also where the descriptor is one that does not block.
fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut interest = [PollFd::new(to, PollFlags::OUT)];
                rustix::io::retry_on_intr(|| poll(&mut interest, None))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Copies until the end, or until nobody takes it any more.
fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => {
                to.write_all(&buffer[..count])?;
                to.flush()?;
            }
        }
    }
}

/// The keys of `--detach-keys`: letters, and `ctrl-` with a letter or one of
/// `@ [ \ ] ^ _`, with commas in between.
///
/// # Errors
/// One sentence that names what is no key.
pub(super) fn detach_keys(text: &str) -> Result<Vec<u8>, String> {
    let key = |word: &str| match word.as_bytes() {
        [one] => Ok(*one),
        [
            b'c',
            b't',
            b'r',
            b'l',
            b'-',
            one @ (b'a'..=b'z' | b'@' | b'['..=b'_'),
        ] => Ok(one & 0x1f),
        _ => Err(format!(
            "{word:?} is no key: write one such as ctrl-p, or a letter"
        )),
    };
    text.split(',')
        .filter(|word| !word.is_empty())
        .map(key)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(typed: &[u8], keys: &str) -> (Vec<u8>, bool) {
        let (mut read, write) = io::pipe().expect("pipe");
        let keys = detach_keys(keys).expect("keys");
        let write = OwnedFd::from(write);
        let left = feed(typed, &write, &keys).expect("feed");
        drop(write);
        let mut passed = Vec::new();
        read.read_to_end(&mut passed).expect("read");
        (passed, matches!(left, Left::Detached))
    }

    #[test]
    fn keys_detach_only_in_a_row() {
        assert_eq!(
            fed(b"ab\x10c\x10\x11d", "ctrl-p,ctrl-q"),
            (b"ab\x10c".to_vec(), true)
        );
        assert_eq!(
            fed(b"\x10\x10x\x11", "ctrl-p,ctrl-q"),
            (b"\x10\x10x\x11".to_vec(), false)
        );
        assert_eq!(fed(b"ab\x10", ""), (b"ab\x10".to_vec(), false));
        assert_eq!(detach_keys("ctrl-[,q"), Ok(vec![0x1b, b'q']));
        assert!(detach_keys("ctrl-,").is_err() && detach_keys("f1").is_err());
    }
}
