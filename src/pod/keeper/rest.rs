//! When it is the next container's turn to start.
//!
//! Containers of a pod start in list order, and manifests rely on more than the
//! order of the system calls: the classic one has a producer write a file and a
//! consumer read it at once. Under kubelet the tens of milliseconds that a start
//! takes hide this race. orlop is fast enough to lose it, so it has a rule:
//!
//! **A container's turn ends when its program has come to rest for the first
//! time**: when every one of its threads waits for something (time, input, a
//! child, a lock) or it has ended. What a program does before it first waits,
//! such as writing a file or opening a socket to listen on, is done when the
//! next one starts, however busy the machine is. A program that computes and
//! computes loses its turn once it has had [`CPU_LIMIT`] of processor time of its
//! own; and no turn is longer than [`WALL_LIMIT`].
//!
//! Threads that wait for a disk, or for a processor, are not at rest.

use std::time::{Duration, Instant};

use crate::sys::cgroup::Cgroups;

/// Processor time after which a turn ends, as a container's own.
const CPU_LIMIT: Duration = Duration::from_millis(100);

/// The longest turn.
const WALL_LIMIT: Duration = Duration::from_secs(10);

/// The kernel has no event for "all threads wait": it is looked for, at first
/// after a millisecond, then at growing distances.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// Looks in a row that must find everything at rest: a look is not one instant.
const LOOKS: u32 = 2;

/// Waits until the container in `group` has had its turn.
pub(super) async fn wait(cgroups: &Cgroups, group: &str) {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut quiet = 0;
    while start.elapsed() < WALL_LIMIT {
        let look = look(cgroups, group);
        if look.processor_time >= CPU_LIMIT {
            return;
        }
        quiet = if look.at_rest { quiet + 1 } else { 0 };
        if quiet >= LOOKS {
            return;
        }
        if quiet == 0 {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        } else {
            tokio::time::sleep(FIRST_PAUSE).await;
        }
    }
}

struct Look {
    at_rest: bool,
    processor_time: Duration,
}

fn look(cgroups: &Cgroups, group: &str) -> Look {
    let mut look = Look {
        at_rest: true,
        processor_time: Duration::ZERO,
    };
    // A group that cannot be read is one whose container has ended.
    for thread in cgroups.threads(group).unwrap_or_default() {
        // So is a thread without a file.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{thread}/stat")) else {
            continue;
        };
        let state = state(&stat);
        look.at_rest &= !matches!(state, Some('R' | 'D'));
        if let Ok(text) = std::fs::read_to_string(format!("/proc/{thread}/schedstat")) {
            let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
            look.processor_time += Duration::from_nanos(nanoseconds.unwrap_or(0));
        }
    }
    look
}

/// The state letter of proc_pid_stat(5): the field after the name, which may
/// itself contain spaces and brackets.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_found_behind_any_name() {
        assert_eq!(state("12 (sh) S 1 12"), Some('S'));
        assert_eq!(state("12 (a) R (b) D 1 12"), Some('D'));
        assert_eq!(state("nonsense"), None);
    }
}
