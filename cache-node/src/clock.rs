//! The only reader of time and entropy. Cores take `now` as an argument; shells ask here.

#![expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall-clock time: milliseconds since the Unix epoch; 0 for a clock set before it.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Monotonic time, for waits and rates.
pub fn monotonic() -> Instant {
    Instant::now()
}

/// Monotonic time since `start`.
pub fn since(start: Instant) -> Duration {
    Instant::now().saturating_duration_since(start)
}

/// 64 random bits from the operating system, never 0.
///
/// # Errors
/// When the operating system has none to give.
pub fn random_u64() -> std::io::Result<u64> {
    loop {
        let mut bytes = [0u8; 8];
        random(&mut bytes)?;
        let number = u64::from_le_bytes(bytes);
        if number != 0 {
            return Ok(number);
        }
    }
}

/// Fills `bytes` with randomness from the operating system.
///
/// # Errors
/// When the operating system has none to give.
pub fn random(bytes: &mut [u8]) -> std::io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}
