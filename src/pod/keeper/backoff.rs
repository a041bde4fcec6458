//! How long to wait before a thing that failed is tried again.
//!
//! The numbers are kubelet's (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy>):
//! a container is restarted at once the first time, then after 10 s, doubling to
//! five minutes, and from the start again once it ran for ten minutes. A missing
//! image waits the same times, but already the first; a volume 500 ms, doubling
//! to two minutes and two seconds.
//!
//! For tests only, the environment variable [`PACE`] makes restarts faster.

use std::sync::OnceLock;
use std::time::Duration;

/// The environment variable with a number from 0 to 1 by which the delays of
/// restarts are multiplied, and the ten minutes after which a container counts as
/// recovered. It is there for tests, which cannot wait for minutes; what a pod's
/// status says of a delay is what Kubernetes would say.
const PACE: &str = "ORLOP_TEST_BACKOFF_PACE";

/// How long to wait in the place of a container's delay.
pub(super) fn paced(delay: Duration) -> Duration {
    static GIVEN: OnceLock<f64> = OnceLock::new();
    delay.mul_f64(*GIVEN.get_or_init(|| pace(std::env::var(PACE).ok().as_deref())))
}

fn pace(given: Option<&str>) -> f64 {
    let number = given.and_then(|text| text.parse().ok());
    number
        .filter(|pace| (0.0..=1.0).contains(pace))
        .unwrap_or(1.0)
}

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
        run > paced(self.longest * 2)
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
    fn only_a_number_from_zero_to_one_is_a_pace() {
        assert_eq!(pace(Some("0.02")), 0.02);
        for wrong in [
            None,
            Some(""),
            Some("-1"),
            Some("2"),
            Some("NaN"),
            Some("fast"),
        ] {
            assert_eq!(pace(wrong), 1.0, "{wrong:?}");
        }
    }

    #[test]
    fn volumes_wait_from_half_a_second_to_two_minutes() {
        let mut backoff = Backoff::volumes();
        let delays: Vec<_> = (0..10).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(delays[..3], [500, 1000, 2000]);
        assert_eq!(delays[9], 122_000);
    }
}
