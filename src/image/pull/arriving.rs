//! A file that grows while it is read: one thread downloads to it, another one
//! unpacks from it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// How far a download is.
#[derive(Default)]
struct State {
    /// Bytes of the file that are there.
    there: u64,
    /// Set when no more will come.
    end: Option<End>,
}

#[derive(Clone, Copy)]
enum End {
    Complete,
    Broken,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The side that downloads. Dropped, it tells the other side that no more comes.
pub(super) struct Sender(Arc<Shared>);

/// The side that reads, from the beginning.
pub(super) struct Arriving {
    file: File,
    at: u64,
    shared: Arc<Shared>,
}

/// Connects the two sides. `file` has its first `there` bytes.
pub(super) fn arriving(file: File, there: u64) -> (Sender, Arriving) {
    let shared = Arc::new(Shared::default());
    let sender = Sender(Arc::clone(&shared));
    sender.came(there);
    (
        sender,
        Arriving {
            file,
            at: 0,
            shared,
        },
    )
}

impl Sender {
    /// The file has this many bytes now.
    pub fn came(&self, there: u64) {
        self.change(|state| state.there = there);
    }

    /// The file is complete.
    pub fn complete(self) {
        self.change(|state| state.end = Some(End::Complete));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        // Nothing that is done under the lock can leave it half done.
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.0.changed.notify_all();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.change(|state| {
            state.end.get_or_insert(End::Broken);
        });
    }
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.shared.state.lock();
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        while state.there <= self.at {
            match state.end {
                Some(End::Complete) => return Ok(0),
                Some(End::Broken) => return Err(io::ErrorKind::ConnectionAborted.into()),
                None => {
                    let woken = self.shared.changed.wait(state);
                    state = woken.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        let there = usize::try_from(state.there - self.at).unwrap_or(usize::MAX);
        drop(state);
        let wanted = buffer.len().min(there);
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if read == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_waits_for_what_has_not_come_yet() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"first", 0).unwrap();
        let (sender, mut reader) = arriving(file.try_clone().unwrap(), 5);
        let all = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        file.write_all_at(b" second", 5).unwrap();
        sender.came(12);
        sender.complete();
        assert_eq!(all.join().unwrap().unwrap(), "first second");
    }

    #[test]
    fn a_download_that_was_given_up_is_no_end_of_file() {
        let (sender, mut reader) = arriving(tempfile::tempfile().unwrap(), 0);
        drop(sender);
        let error = reader.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
