//! How long to wait before a thing that failed is tried again.
//!
//! The numbers are kubelet's (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy>):
//! a container is restarted at once the first time, then after 10 s, doubling to
//! five minutes, and from the start again once it ran for ten minutes. A missing
//! image waits the same times, but already the first; a volume 500 ms, doubling
//! to two minutes and two seconds.
//!
//! For tests only, the environment variable [`PACE`] makes all of it shorter.

use std::time::Duration;

/// The environment variable with a number by which the delays of restarts and of
/// missing images are multiplied, and the ten minutes after which a container
/// counts as recovered. It is there for tests, which cannot wait for minutes;
/// what a pod's status says of a delay is what Kubernetes would say.
pub(super) const PACE: &str = "ORLOP_TEST_BACKOFF_PACE";

/// The number in [`PACE`]; 1 when there is none.
pub(super) fn pace() -> f64 {
    let given = std::env::var(PACE).ok();
    let number = given.and_then(|text| text.parse().ok());
    number
        .filter(|pace| (0.0..=1.0).contains(pace))
        .unwrap_or(1.0)
}

/// A delay that doubles with every failure.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    /// The delay after the very first failure.
    start: Duration,
    first: Duration,
    longest: Duration,
    next: Duration,
    pace: f64,
    failed: bool,
}

/// One delay.
pub(super) struct Delay {
    /// As Kubernetes has it.
    pub(super) shown: Duration,
    /// How long to wait.
    pub(super) wait: Duration,
}

impl Backoff {
    fn new(start: Duration, first: Duration, longest: Duration, pace: f64) -> Self {
        Self {
            start,
            first,
            longest,
            next: start,
            pace,
            failed: false,
        }
    }

    /// For restarts of containers: the first one waits for nothing.
    pub(super) fn restarts(pace: f64) -> Self {
        let (first, longest) = (Duration::from_secs(10), Duration::from_secs(300));
        Self::new(Duration::ZERO, first, longest, pace)
    }

    /// For images that are not there.
    pub(super) fn images(pace: f64) -> Self {
        let (first, longest) = (Duration::from_secs(10), Duration::from_secs(300));
        Self::new(first, first, longest, pace)
    }

    /// For volumes that cannot be set up, and for sandboxes.
    pub(super) fn volumes() -> Self {
        let (first, longest) = (Duration::from_millis(500), Duration::from_secs(122));
        Self::new(first, first, longest, 1.0)
    }

    /// The delay after this failure; the next one will be longer.
    pub(super) fn next(&mut self) -> Delay {
        let delay = self.next;
        self.failed = true;
        self.next = if delay.is_zero() {
            self.first
        } else {
            (delay * 2).min(self.longest)
        };
        Delay {
            shown: delay,
            wait: delay.mul_f64(self.pace),
        }
    }

    /// Begins from the start.
    pub(super) fn reset(&mut self) {
        self.next = self.start;
        self.failed = false;
    }

    /// True until the first failure.
    pub(super) fn is_fresh(&self) -> bool {
        !self.failed
    }

    /// A container that ran for twice the longest delay has recovered.
    pub(super) fn recovered_after(&self, run: Duration) -> bool {
        run > (self.longest * 2).mul_f64(self.pace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(backoff: &mut Backoff, count: usize) -> Vec<u64> {
        (0..count).map(|_| backoff.next().shown.as_secs()).collect()
    }

    #[test]
    fn restarts_wait_as_with_kubelet() {
        let mut backoff = Backoff::restarts(1.0);
        assert_eq!(seconds(&mut backoff, 8), [0, 10, 20, 40, 80, 160, 300, 300]);
        assert!(!backoff.recovered_after(Duration::from_secs(600)));
        assert!(backoff.recovered_after(Duration::from_secs(601)));
        backoff.reset();
        assert_eq!(seconds(&mut backoff, 2), [0, 10]);
    }

    #[test]
    fn a_pace_shortens_the_wait_and_not_what_is_shown() {
        let mut backoff = Backoff::restarts(0.01);
        backoff.next();
        let delay = backoff.next();
        assert_eq!(
            (delay.shown, delay.wait),
            (Duration::from_secs(10), Duration::from_millis(100))
        );
        assert!(backoff.recovered_after(Duration::from_millis(6001)));
    }

    #[test]
    fn volumes_wait_from_half_a_second_to_two_minutes() {
        let mut backoff = Backoff::volumes();
        let delays: Vec<_> = (0..10).map(|_| backoff.next().wait.as_millis()).collect();
        assert_eq!(delays[..3], [500, 1000, 2000]);
        assert_eq!(delays[9], 122_000);
    }
}
