//! Signals by name or number (signal(7)).

/// The polite request to end.
pub const TERM: i32 = 15;
/// The end.
pub const KILL: i32 = 9;

const NAMES: [(&str, i32); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];
/// The first and last real-time signal as programs count them.
const REAL_TIME: (i32, i32) = (34, 64);

/// The number of the signal that `text` means: `9`, `KILL`, `SIGKILL`, `kill`,
/// `RTMIN+1`, `RTMAX-1`.
#[must_use]
pub fn parse(text: &str) -> Option<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = match name.parse::<i32>() {
        Ok(number) => number,
        Err(_) => match NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, number)) => *number,
            None => real_time(name)?,
        },
    };
    (1..=64).contains(&number).then_some(number)
}

fn real_time(name: &str) -> Option<i32> {
    let (first, last) = REAL_TIME;
    let number = if let Some(offset) = name.strip_prefix("RTMIN") {
        first + offset_of(offset, '+')?
    } else {
        last - offset_of(name.strip_prefix("RTMAX")?, '-')?
    };
    (first..=last).contains(&number).then_some(number)
}

fn offset_of(text: &str, sign: char) -> Option<i32> {
    match text.strip_prefix(sign) {
        Some(digits) => digits.parse().ok().filter(|offset: &i32| *offset >= 0),
        None => text.is_empty().then_some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_known_by_every_spelling() {
        for text in ["9", "KILL", "SIGKILL", "sigkill", "kill"] {
            assert_eq!(parse(text), Some(9), "{text}");
        }
        assert_eq!(parse("RTMIN+3"), Some(37));
        assert_eq!(parse("SIGRTMAX-1"), Some(63));
        assert_eq!(parse("SIGRTMIN"), Some(34));
    }

    #[test]
    fn what_is_no_signal_is_not_guessed_at() {
        for text in [
            "", "0", "65", "-9", "SIG", "FOO", "RTMIN-1", "RTMIN+31", "RTMAX+1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
