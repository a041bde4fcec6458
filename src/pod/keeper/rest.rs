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

use std::io;
use std::time::{Duration, Instant};

use crate::sys::cgroup::Cgroups;
use crate::sys::timer::Timer;

/// Processor time after which a turn ends, as a container's own.
const CPU_LIMIT: Duration = Duration::from_millis(100);

/// In how many looks, too, it must have been running: these take as long as
/// [`CPU_LIMIT`]. A virtual machine that its host stops for a while charges that
/// while to whatever was running.
const CPU_LOOKS: u32 = 12;

/// The longest turn.
const WALL_LIMIT: Duration = Duration::from_secs(10);

/// The kernel has no event for "all threads wait": it is looked for, at once, then
/// after a quarter of a millisecond, then at growing distances.
const FIRST_PAUSE: Duration = Duration::from_micros(250);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// Waits until the container in `group` has had its turn.
///
/// # Errors
/// What timerfd_create(2) says.
pub(super) async fn wait(cgroups: &Cgroups, group: &str) -> io::Result<()> {
    let start = Instant::now();
    let mut timer = Timer::new()?;
    let mut pause = FIRST_PAUSE;
    let mut looks = 0;
    while start.elapsed() < WALL_LIMIT {
        let before = look(cgroups, group);
        if before.processor_time >= CPU_LIMIT && looks >= CPU_LOOKS {
            break;
        }
        looks += 1;
        // A look is not one instant. Threads that were at rest in two of them and
        // have not run in between were so at the same time.
        if before.at_rest && before == look(cgroups, group) {
            break;
        }
        timer.sleep(pause).await?;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

/// What the threads of a container were seen to do.
#[derive(PartialEq, Eq)]
struct Look {
    at_rest: bool,
    processor_time: Duration,
    /// Each thread, and how often it has been given a processor.
    runs: Vec<(i32, u64)>,
}

fn look(cgroups: &Cgroups, group: &str) -> Look {
    let mut look = Look {
        at_rest: true,
        processor_time: Duration::ZERO,
        runs: Vec::new(),
    };
    // A group that cannot be read is one whose container has ended.
    for thread in cgroups.threads(group).unwrap_or_default() {
        // How often it has run is read before whether it does: so a thread at rest
        // has been so since then, for as long as that number stays.
        let times = std::fs::read_to_string(format!("/proc/{thread}/schedstat"));
        // A thread without files has ended, too.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{thread}/stat")) else {
            continue;
        };
        look.at_rest &= !matches!(state(&stat), Some('R' | 'D'));
        let (on_processor, runs) = schedstat(&times.unwrap_or_default());
        look.processor_time += on_processor;
        look.runs.push((thread, runs));
    }
    look
}

/// Of `/proc/PID/schedstat` (the kernel's sched-stats.rst): time on a processor, and
/// how often one was given.
fn schedstat(text: &str) -> (Duration, u64) {
    let mut numbers = text
        .split_whitespace()
        .map(|number| number.parse().unwrap_or(0));
    let nanoseconds = numbers.next().unwrap_or(0);
    (
        Duration::from_nanos(nanoseconds),
        numbers.nth(1).unwrap_or(0),
    )
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

    #[test]
    fn processor_time_and_runs_are_the_first_and_third_number() {
        assert_eq!(
            schedstat("60000000 40000000 5\n"),
            (Duration::from_millis(60), 5)
        );
        assert_eq!(schedstat(""), (Duration::ZERO, 0));
    }
}
