//! The deletion of what containers wrote, behind the keeper's back: it may be
//! much, and nothing waits for it but the keeper's own end, which would end it
//! half-way.

use std::thread::JoinHandle;

use anyhow::Result;

use crate::pod::cleanup;
use crate::storage::roots::Roots;

/// Threads that empty the trash.
#[derive(Default)]
pub(super) struct Sweepers {
    threads: Vec<JoinHandle<()>>,
}

impl Sweepers {
    /// Has everything deleted that is in the trash now.
    pub(super) fn start(&mut self, roots: &Roots) {
        self.threads.retain(|thread| !thread.is_finished());
        let roots = roots.clone();
        self.threads.push(std::thread::spawn(move || {
            // What is not deleted is still there for the next sweep, which says why.
            let _ = cleanup::sweep(&roots);
        }));
    }

    /// Waits for what goes on and deletes the rest.
    ///
    /// # Errors
    /// As [`cleanup::sweep`].
    pub(super) fn finish(self, roots: &Roots) -> Result<()> {
        for thread in self.threads {
            // One that panicked has left its work to the sweep below.
            let _ = thread.join();
        }
        cleanup::sweep(roots)
    }
}
