//! Amounts of cpu, memory and storage as manifests write them: `250m`,
//! `1.5Gi`, `1e3`.
//!
//! The grammar and the limits are those of the Kubernetes API (`Quantity` in
//! its reference): a signed decimal number and a decimal suffix (`n u m k M G
//! T P E`), a binary suffix (`Ki Mi Gi Ti Pi Ei`) or an exponent (`e3`, `E-2`).
//! Amounts beyond 2⁶³−1 are capped there, amounts finer than a billionth are
//! rounded away from zero. No floating point is involved.

use super::error::quote;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

const NANOS: i128 = 1_000_000_000;
const LARGEST: i128 = i64::MAX as i128;
/// More characters than this are a mistake, not an amount.
const LONGEST: usize = 64;
/// Decimal places that are taken in; those behind them only round up.
const PLACES: usize = 18;

const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];

/// An exact amount that remembers how it was written.
///
/// Two quantities are equal when their amounts are: `1Gi == 1024Mi`.
#[derive(Clone, Debug)]
pub struct Quantity {
    /// Billionths of the unit.
    nanos: i128,
    text: String,
}

/// A text that is no quantity; says what one looks like and, when it can be
/// guessed, which one was meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match a number followed by nothing, by one of the suffixes n, u, m, k, M, G, T, P, E, \
     Ki, Mi, Gi, Ti, Pi, Ei, or by an exponent such as e3{hint}"
)]
pub struct QuantityError {
    hint: String,
}

enum Scale {
    /// A power of ten.
    Ten(i32),
    /// A power of two.
    Two(u32),
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let nanos = parse(text).ok_or_else(|| QuantityError { hint: guess(text) })?;
        Ok(Self {
            nanos,
            text: text.to_owned(),
        })
    }
}

impl Quantity {
    /// The amount in whole units (bytes of memory or storage), rounded up.
    /// A negative amount, which no valid manifest has, gives 0.
    pub fn to_bytes(&self) -> u64 {
        self.in_units_of(NANOS)
    }

    /// The amount in thousandths (millicores of cpu), rounded up; `u64::MAX`
    /// when there are more. A negative amount gives 0.
    pub fn to_millis(&self) -> u64 {
        self.in_units_of(NANOS / 1000)
    }

    /// Whether the amount is below zero.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether the amount has no fraction of a unit.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANOS == 0
    }

    fn in_units_of(&self, nanos: i128) -> u64 {
        let units = self.nanos.max(0);
        u64::try_from((units + nanos - 1) / nanos).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Quantity {
    /// Writes the quantity as its manifest did.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The amount in billionths, or nothing when `text` is no quantity.
fn parse(text: &str) -> Option<i128> {
    if text.len() > LONGEST {
        return None;
    }
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, rest) = digits(unsigned);
    let (places, suffix) = rest.strip_prefix('.').map_or(("", rest), digits);
    if whole.is_empty() && places.is_empty() {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let places = places.trim_end_matches('0');
    let nanos = match scale(suffix)? {
        Scale::Ten(power) => decimal(whole, places, power),
        Scale::Two(power) => binary(whole, places, power),
    };
    Some(if negative { -nanos } else { nanos })
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

fn scale(suffix: &str) -> Option<Scale> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some(Scale::Ten(*power));
    }
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some(Scale::Two(*power));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    exponent.parse().ok().map(Scale::Ten)
}

/// `whole.places` × 10^`power`, in billionths, rounded up and capped.
fn decimal(whole: &str, places: &str, power: i32) -> i128 {
    let written = format!("{whole}{places}");
    let significant = written.trim_start_matches('0');
    if significant.is_empty() {
        return 0;
    }
    let places = i64::try_from(places.len()).unwrap_or(i64::MAX);
    let length = i64::try_from(significant.len()).unwrap_or(i64::MAX);
    // The amount is `significant` × 10^shift billionths.
    let shift = i64::from(power) - places + 9;
    let length_in_nanos = length + shift;
    if length_in_nanos > 28 {
        return LARGEST * NANOS;
    }
    if length_in_nanos <= 0 {
        return 1;
    }
    let kept = usize::try_from(length_in_nanos.min(length)).unwrap_or(0);
    let dropped = significant[kept..].bytes().any(|digit| digit != b'0');
    let zeros = u32::try_from(shift.max(0)).unwrap_or(0);
    let nanos = number(&significant[..kept]) * 10_i128.pow(zeros) + i128::from(dropped);
    nanos.min(LARGEST * NANOS)
}

/// `whole.places` × 2^`power`, in billionths, rounded up and capped.
fn binary(whole: &str, places: &str, power: u32) -> i128 {
    if whole.len() > 19 {
        return LARGEST * NANOS;
    }
    let (places, behind) = places.split_at(places.len().min(PLACES));
    let unit = 10_i128.pow(u32::try_from(places.len()).unwrap_or(0));
    let fraction = number(places) << power;
    let units = (number(whole) << power) + fraction / unit;
    if units >= LARGEST {
        return LARGEST * NANOS;
    }
    let rest = fraction % unit * NANOS;
    let nanos = (rest + unit - 1) / unit;
    units * NANOS + nanos + i128::from(!behind.is_empty())
}

/// At most 28 digits, already known to be digits; none are zero.
fn number(digits: &str) -> i128 {
    digits
        .bytes()
        .fold(0, |sum, digit| sum * 10 + i128::from(digit - b'0'))
}

/// ` (did you mean "12Mi"?)` for the usual slips: `12MB`, `12mi`, `12K`, `12 Gi`.
fn guess(text: &str) -> String {
    if text.len() > LONGEST {
        return format!(", and {} is too long for one", quote(text));
    }
    let trimmed = text.trim();
    let (amount, suffix) = trimmed.split_at(
        trimmed
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
            .unwrap_or(trimmed.len()),
    );
    let suffix = suffix.trim();
    let stripped = suffix.strip_suffix(['b', 'B']);
    let bare = stripped.unwrap_or(suffix);
    let candidates = || {
        let decimal = DECIMAL.iter().filter(|(name, power)| {
            // Nobody means thousandths of a byte, or 10¹⁸ by an `e`.
            *name != "E" && (stripped.is_none() || *power >= 0)
        });
        let decimal = decimal.map(|(name, _)| *name);
        decimal.chain(BINARY.iter().map(|(name, _)| *name))
    };
    candidates()
        .find(|name| *name == bare)
        .or_else(|| candidates().find(|name| name.eq_ignore_ascii_case(bare)))
        .map(|name| format!("{amount}{name}"))
        .filter(|meant| parse(meant).is_some())
        .map_or_else(String::new, |meant| format!(" (did you mean {meant:?}?)"))
}

#[cfg(test)]
mod tests;
