//! PURE. Sizes in bytes and durations, as people write and read them.

use std::time::Duration;

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

const DURATIONS_MS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// What a size may look like, for messages.
pub const SIZE_EXPECTED: &str = "a size such as 512MiB, 10GiB or 4096 (bytes)";
/// What a duration may look like, for messages.
pub const DURATION_EXPECTED: &str = "a duration such as 500ms, 2s or 1m";

/// Bytes, from "10GiB", "1.5 MB", "4096". Units are told apart by their letters alone, not by
/// their case; `None` when it is not a size or does not fit.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    if unit.is_empty() {
        return number.parse().ok();
    }
    let short = ["t", "g", "m", "k"].iter().position(|short| unit.eq_ignore_ascii_case(short));
    let factor = match short {
        Some(at) => SIZES[at].1,
        None => SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    scaled(number, factor)
}

/// A duration, from "500ms", "2s", "1.5m"; `None` when it has no unit or does not fit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let factor = DURATIONS_MS.iter().find(|(name, _)| *name == unit)?.1;
    scaled(number, factor).map(Duration::from_millis)
}

/// Bytes with a binary unit and at most one decimal: "0 B", "1.5 GiB".
pub fn format_size(bytes: u64) -> String {
    let unit = SIZES[..4].iter().find(|(_, factor)| bytes >= *factor);
    let Some((name, factor)) = unit else {
        return format!("{bytes} B");
    };
    let tenths = u128::from(bytes) * 10 / u128::from(*factor);
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {name}"),
        (whole, tenth) => format!("{whole}.{tenth} {name}"),
    }
}

fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    (!number.is_empty()).then_some((number, unit.trim()))
}

/// `number` (digits with at most three decimals) times `factor`, exactly, cut to a whole.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    if decimals.is_empty() || decimals.len() > 3 {
        return None;
    }
    let whole = whole.parse::<u128>().ok()?.checked_mul(u128::from(factor))?;
    let scale = 10u128.pow(u32::try_from(decimals.len()).ok()?);
    let part = decimals.parse::<u128>().ok()? * u128::from(factor) / scale;
    u64::try_from(whole.checked_add(part)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let right = [
            ("0", 0),
            ("4096", 4096),
            ("10GiB", 10 << 30),
            ("256 MiB", 256 << 20),
            ("1.5kib", 1536),
            ("2k", 2048),
            ("3MB", 3_000_000),
            ("7B", 7),
        ];
        for (text, bytes) in right {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for wrong in ["", "GiB", "10 gallons", "-1", "1.2345GiB", "1..5k", "99999999999TiB", "1."] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        for wrong in ["", "5", "5 days", "s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_for_people() {
        let shown = [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1600, "1.5 KiB")];
        for (bytes, text) in shown {
            assert_eq!(format_size(bytes), text);
        }
        assert_eq!(format_size(u64::MAX), "16777215.9 TiB");
    }
}
