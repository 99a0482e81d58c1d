//! Durations and sizes as people write and read them (PURE).
//!
//! Parse errors say what was read and what would have been right; the command line puts the name
//! of the flag before them.

use std::time::Duration;

use thiserror::Error;

const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Why a duration or a size was not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    /// No digits at the front.
    #[error("`{0}` does not start with a whole number; write {1}")]
    Number(String, &'static str),
    /// The letters after the number name no unit.
    #[error("`{0}` has no unit that is known here; write {1}")]
    Unit(String, &'static str),
    /// The value does not fit into 64 bits.
    #[error("`{0}` is larger than 64 bits can hold; write a smaller value")]
    TooLarge(String),
}

const DURATION_FORM: &str = "for example 500ms, 30s, 2m or 1h";
const SIZE_FORM: &str = "bytes as a plain number, or for example 64KiB, 8MiB, 1GiB or 10MB";

/// Reads `500ms`, `30s`, `2m`, `1h`.
///
/// # Errors
/// A missing or unknown unit, no number, or a number beyond 64 bits of milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text, DURATION_FORM)?;
    let factor = find(&DURATION_UNITS, unit)
        .ok_or_else(|| UnitError::Unit(text.to_owned(), DURATION_FORM))?;
    scale(text, number, factor).map(Duration::from_millis)
}

/// Reads a number of bytes: `4096`, `4KiB`, `10MB`. Units are not case-sensitive.
///
/// # Errors
/// An unknown unit, no number, or a number beyond 64 bits of bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text, SIZE_FORM)?;
    let unit = if unit.is_empty() { "B" } else { unit };
    let factor =
        find(&SIZE_UNITS, unit).ok_or_else(|| UnitError::Unit(text.to_owned(), SIZE_FORM))?;
    scale(text, number, factor)
}

fn split<'a>(text: &'a str, form: &'static str) -> Result<(&'a str, &'a str), UnitError> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return Err(UnitError::Number(text.to_owned(), form));
    }
    let (number, unit) = text.split_at(digits);
    Ok((number, unit.trim_start()))
}

fn find(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|&(_, factor)| factor)
}

fn scale(text: &str, number: &str, factor: u64) -> Result<u64, UnitError> {
    let too_large = || UnitError::TooLarge(text.to_owned());
    let number: u64 = number.parse().map_err(|_| too_large())?;
    number.checked_mul(factor).ok_or_else(too_large)
}

/// Bytes for people: three significant digits, binary units.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{} {unit}", digits(value)) }
}

/// Microseconds for people: `870 µs`, `12.4 ms`, `3.02 s`.
#[must_use]
pub fn show_us(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{} ms", digits(us as f64 / 1e3)),
        _ => format!("{} s", digits(us as f64 / 1e6)),
    }
}

/// A duration for people, in the form that [`parse_duration`] reads where that is exact.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let exact = DURATION_UNITS.iter().rev().find(|(_, factor)| ms > 0 && ms % factor == 0);
    match exact {
        Some((unit, factor)) => format!("{}{unit}", ms / factor),
        None => "0s".to_owned(),
    }
}

fn digits(value: f64) -> String {
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration(" 2 m "), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        let refused = parse_duration("30").unwrap_err().to_string();
        assert_eq!(
            refused,
            "`30` has no unit that is known here; write for example 500ms, 30s, 2m or 1h"
        );
        assert!(matches!(parse_duration("s"), Err(UnitError::Number(..))));
        assert!(matches!(parse_duration("-1s"), Err(UnitError::Number(..))));
        assert!(matches!(parse_duration("1.5s"), Err(UnitError::Unit(..))));
        assert!(matches!(parse_duration("99999999999999999h"), Err(UnitError::TooLarge(_))));
    }

    #[test]
    fn sizes_take_binary_and_decimal_units() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("4KiB"), Ok(4096));
        assert_eq!(parse_size("4kib"), Ok(4096));
        assert_eq!(parse_size("10MB"), Ok(10_000_000));
        assert_eq!(parse_size("1TiB"), Ok(1 << 40));
        assert_eq!(parse_size("0"), Ok(0));
        assert!(matches!(parse_size("4XB"), Err(UnitError::Unit(..))));
        assert!(matches!(parse_size("KiB"), Err(UnitError::Number(..))));
        assert!(matches!(parse_size("99999999TiB"), Err(UnitError::TooLarge(_))));
    }

    #[test]
    fn values_read_well() {
        assert_eq!(show_bytes(0), "0 B");
        assert_eq!(show_bytes(1023), "1023 B");
        assert_eq!(show_bytes(1536), "1.50 KiB");
        assert_eq!(show_bytes(300 << 20), "300 MiB");
        assert_eq!(show_us(870), "870 µs");
        assert_eq!(show_us(12_400), "12.4 ms");
        assert_eq!(show_us(3_020_000), "3.02 s");
        assert_eq!(show_duration(Duration::from_secs(120)), "2m");
        assert_eq!(show_duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(show_duration(Duration::ZERO), "0s");
    }
}
