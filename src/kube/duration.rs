//! Ages as kubectl's AGE column writes them: at most two units, the finer one
//! left out when it is zero or no longer of interest.
//!
//! | age | written as |
//! |---|---|
//! | under 2 minutes | `87s` |
//! | under 10 minutes | `7m58s` |
//! | under 3 hours | `32m` |
//! | under 8 hours | `5h30m` |
//! | under 2 days | `47h` |
//! | under 8 days | `3d4h` |
//! | under 2 years | `400d` |
//! | under 8 years | `2y30d` |
//! | longer | `9y` |

use jiff::Timestamp;
use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

/// Writes `age` in the form of the table above; fractions of a second are
/// dropped, a year has 365 days.
pub fn human(age: Duration) -> String {
    let seconds = age.as_secs();
    if seconds < 2 * MINUTE {
        format!("{seconds}s")
    } else if seconds < 10 * MINUTE {
        two_units(seconds, (MINUTE, "m"), (1, "s"))
    } else if seconds < 3 * HOUR {
        format!("{}m", seconds / MINUTE)
    } else if seconds < 8 * HOUR {
        two_units(seconds, (HOUR, "h"), (MINUTE, "m"))
    } else if seconds < 2 * DAY {
        format!("{}h", seconds / HOUR)
    } else if seconds < 8 * DAY {
        two_units(seconds, (DAY, "d"), (HOUR, "h"))
    } else if seconds < 2 * YEAR {
        format!("{}d", seconds / DAY)
    } else if seconds < 8 * YEAR {
        two_units(seconds, (YEAR, "y"), (DAY, "d"))
    } else {
        format!("{}y", seconds / YEAR)
    }
}

/// The time from `since` until `now`, as [`human`] writes it. A moment that
/// lies up to a second ahead (two clocks seldom agree) is `0s`; one further
/// ahead is `<invalid>`, as kubectl has it.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    let elapsed = now.duration_since(since);
    match Duration::try_from(elapsed) {
        Ok(age) => human(age),
        Err(_) if elapsed.as_secs() >= -1 => "0s".to_owned(),
        Err(_) => "<invalid>".to_owned(),
    }
}

fn two_units(seconds: u64, coarse: (u64, &str), fine: (u64, &str)) -> String {
    let whole = seconds / coarse.0;
    match seconds % coarse.0 / fine.0 {
        0 => format!("{whole}{}", coarse.1),
        rest => format!("{whole}{}{rest}{}", coarse.1, fine.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_in_kubectls_age_column() {
        for (seconds, text) in [
            (0, "0s"),
            (87, "87s"),
            (119, "119s"),
            (2 * MINUTE, "2m"),
            (7 * MINUTE + 58, "7m58s"),
            (10 * MINUTE - 1, "9m59s"),
            (10 * MINUTE, "10m"),
            (32 * MINUTE + 59, "32m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (5 * HOUR + 30 * MINUTE, "5h30m"),
            (8 * HOUR, "8h"),
            (47 * HOUR + 59 * MINUTE, "47h"),
            (2 * DAY, "2d"),
            (3 * DAY + 4 * HOUR, "3d4h"),
            (8 * DAY, "8d"),
            (400 * DAY, "400d"),
            (2 * YEAR, "2y"),
            (2 * YEAR + 30 * DAY, "2y30d"),
            (8 * YEAR + 200 * DAY, "8y"),
        ] {
            assert_eq!(human(Duration::from_secs(seconds)), text, "{seconds} s");
        }
        assert_eq!(human(Duration::from_millis(87_999)), "87s");
        assert!(human(Duration::MAX).ends_with('y'));
    }

    #[test]
    fn a_moment_ahead_of_the_clock_is_now_or_invalid() {
        let at = |second| Timestamp::from_second(second).expect("a second in range");
        assert_eq!(age(at(100), at(187)), "87s");
        assert_eq!(age(at(101), at(100)), "0s");
        assert_eq!(age(at(200), at(100)), "<invalid>");
    }
}
