//! The tasks of the walk, and the stack on which they wait.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::sync::Arc;

use super::{Dir, WORTH_A_THREAD};

/// What one thread does in one go.
pub(super) enum Task {
    /// Look into the directory.
    Look(Arc<Dir>),
    /// Remove an entry that is a directory, as far as is known.
    Name {
        parent: Arc<Dir>,
        name: CString,
        /// What has been spent on looking through it.
        spent: u64,
    },
    /// Remove entries that are no directories, as far as is known.
    Batch { parent: Arc<Dir>, names: Names },
    /// Let go of the raft, when nothing more can come to it.
    Release(Arc<Dir>),
}

/// Names, one after the other in one piece of memory.
#[derive(Default)]
pub(super) struct Names {
    text: Vec<u8>,
    /// The inode, and where the name begins.
    entries: Vec<(u64, usize)>,
}

impl Names {
    pub(super) fn push(&mut self, inode: u64, name: &CStr) {
        self.entries.push((inode, self.text.len()));
        self.text.extend_from_slice(name.to_bytes_with_nul());
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The memory they take, in bytes.
    pub(super) fn size(&self) -> usize {
        self.text.len() + size_of_val(&*self.entries)
    }

    /// The names in the order in which the files lie on disk.
    pub(super) fn in_order(&mut self) -> impl Iterator<Item = &CStr> {
        self.entries.sort_unstable();
        let name =
            |&(_, start): &(u64, usize)| CStr::from_bytes_until_nul(&self.text[start..]).ok();
        self.entries.iter().filter_map(name)
    }

    /// Takes the last name.
    fn pop(&mut self) -> Option<CString> {
        let (_, start) = self.entries.pop()?;
        CString::from_vec_with_nul(self.text.split_off(start)).ok()
    }
}

/// Last in, first out; but for what was put beneath.
#[derive(Default)]
pub(super) struct Queue {
    stack: VecDeque<Waiting>,
    /// How much waits, counted in directories.
    weight: usize,
    /// Threads at work on a task; the walk ends when there are neither.
    pub(super) busy: usize,
    /// Threads that wait for a task.
    pub(super) idle: usize,
    /// Threads besides the caller's.
    pub(super) helpers: usize,
}

enum Waiting {
    Task(Task),
    /// Directories in one: a task each, in less memory.
    Brood(Arc<Dir>, Names),
}

impl Queue {
    pub(super) fn push(&mut self, task: Task) {
        self.weight += weight(&task);
        self.stack.push_back(Waiting::Task(task));
    }

    /// Puts a task beneath all others: its turn comes when they are done.
    pub(super) fn push_beneath(&mut self, task: Task) {
        self.weight += weight(&task);
        self.stack.push_front(Waiting::Task(task));
    }

    /// Notes the directories `names` in `parent`.
    pub(super) fn push_all(&mut self, parent: Arc<Dir>, names: Names) {
        self.weight += names.len();
        self.stack.push_back(Waiting::Brood(parent, names));
    }

    pub(super) fn pop(&mut self) -> Option<Task> {
        loop {
            let task = match self.stack.pop_back()? {
                Waiting::Task(task) => task,
                Waiting::Brood(parent, mut names) => {
                    let Some(name) = names.pop() else {
                        continue;
                    };
                    // A brood of none would hold its directory open.
                    if names.len() > 0 {
                        self.stack.push_back(Waiting::Brood(parent.clone(), names));
                    }
                    Task::Name {
                        parent,
                        name,
                        spent: 0,
                    }
                }
            };
            self.weight -= weight(&task);
            return Some(task);
        }
    }

    /// How much waits, counted in directories.
    pub(super) fn waiting(&self) -> usize {
        self.weight
    }
}

fn weight(task: &Task) -> usize {
    match task {
        Task::Batch { .. } => WORTH_A_THREAD,
        Task::Look(_) | Task::Name { .. } | Task::Release(_) => 1,
    }
}
