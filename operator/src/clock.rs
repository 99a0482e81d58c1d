//! The only reader of time and entropy. Plans take `now` as an argument; shells ask here.

#![expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Characters of drawn names: no vowels, so that no words come out, and none that look alike.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Drawn characters of a name.
const SUFFIX_LETTERS: usize = 5;

/// Wall-clock time: seconds since the Unix epoch; 0 for a clock set before it.
#[must_use]
pub fn unix_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Monotonic time, for waits and rates.
#[must_use]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// Monotonic time since `start`.
#[must_use]
pub fn since(start: Instant) -> Duration {
    Instant::now().saturating_duration_since(start)
}

/// Fills `bytes` with randomness from the operating system.
///
/// # Errors
/// When the operating system has none to give.
pub fn random(bytes: &mut [u8]) -> std::io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)?;
    }
    Ok(())
}

/// `bytes` random bytes in hexadecimal.
///
/// # Errors
/// When the operating system has no randomness to give.
pub fn random_hex(bytes: usize) -> std::io::Result<String> {
    let mut buffer = vec![0u8; bytes];
    random(&mut buffer)?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A few random letters for the name of something new.
///
/// # Errors
/// When the operating system has no randomness to give.
pub fn random_suffix() -> std::io::Result<String> {
    let mut buffer = [0u8; SUFFIX_LETTERS];
    random(&mut buffer)?;
    let letter = |byte: &u8| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]);
    Ok(buffer.iter().map(letter).collect())
}
