//! How long to wait before a thing that failed is tried again.
//!
//! The numbers are kubelet's (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy>):
//! a container is restarted at once the first time, then after 10 s, doubling to
//! five minutes, and from the start again once it ran for ten minutes. A missing
//! image waits the same times, but already the first; a volume 500 ms, doubling
//! to two minutes and two seconds.

use std::time::Duration;

/// A delay that doubles with every failure.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// For restarts of containers: the first one waits for nothing.
    pub(super) fn restarts() -> Self {
        let first = Duration::from_secs(10);
        Self {
            first,
            longest: Duration::from_secs(300),
            next: Duration::ZERO,
        }
    }

    /// For images that are not there.
    pub(super) fn images() -> Self {
        let first = Duration::from_secs(10);
        Self {
            first,
            longest: Duration::from_secs(300),
            next: first,
        }
    }

    /// For volumes that cannot be set up, and for sandboxes.
    pub(super) fn volumes() -> Self {
        let first = Duration::from_millis(500);
        Self {
            first,
            longest: Duration::from_secs(122),
            next: first,
        }
    }

    /// The delay after this failure; the next one will be longer.
    pub(super) fn next(&mut self) -> Duration {
        let delay = self.next;
        self.next = if delay.is_zero() {
            self.first
        } else {
            (delay * 2).min(self.longest)
        };
        delay
    }

    /// A container that ran for twice the longest delay has recovered.
    pub(super) fn recovered_after(&self, run: Duration) -> bool {
        run > self.longest * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(backoff: &mut Backoff, count: usize) -> Vec<u64> {
        (0..count).map(|_| backoff.next().as_secs()).collect()
    }

    #[test]
    fn restarts_wait_as_with_kubelet() {
        let mut backoff = Backoff::restarts();
        assert_eq!(seconds(&mut backoff, 8), [0, 10, 20, 40, 80, 160, 300, 300]);
        assert!(!backoff.recovered_after(Duration::from_secs(600)));
        assert!(backoff.recovered_after(Duration::from_secs(601)));
    }

    #[test]
    fn volumes_wait_from_half_a_second_to_two_minutes() {
        let mut backoff = Backoff::volumes();
        let delays: Vec<_> = (0..10).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(delays[..3], [500, 1000, 2000]);
        assert_eq!(delays[9], 122_000);
    }
}
