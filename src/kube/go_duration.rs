//! Spans of time as kubectl's flags take them: `90s`, `1h30m`, `1.5h`, `300ms`.

use std::time::Duration;

const UNITS: &[(&str, f64)] = &[
    // The longer name first where one begins like another.
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("h", 3600.0),
    ("m", 60.0),
    ("s", 1.0),
];

/// The span that `text` means, for use as a parser of arguments. `0` needs no unit;
/// other numbers do.
///
/// # Errors
/// One sentence, in the words of kubectl's own parser.
pub fn parse(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let invalid = || format!("time: invalid duration {text:?}");
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(|| format!("time: missing unit in duration {text:?}"))?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        let named = UNITS
            .iter()
            .find(|(name, _)| rest[digits..].starts_with(name));
        let (name, unit) =
            named.ok_or_else(|| format!("time: unknown unit in duration {text:?}"))?;
        seconds += number * unit;
        rest = &rest[digits + name.len()..];
    }
    if text.is_empty() {
        return Err(invalid());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_numbers_with_units() {
        for (text, milliseconds) in [
            ("0", 0),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("300ms", 300),
            ("2m3s", 123_000),
        ] {
            assert_eq!(
                parse(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in ["", "5", "s", "-1s", "1x", "1..2s", "1h-3m"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
