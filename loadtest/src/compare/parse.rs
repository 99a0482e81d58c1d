//! What wrk and h2load say (PURE).

/// What a client saw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// Requests answered whole.
    pub(super) requests: u64,
    /// Bytes received.
    pub(super) bytes: f64,
    /// How long it went on, in seconds.
    pub(super) elapsed_s: f64,
    /// Requests that went wrong in any way.
    pub(super) failed: u64,
    pub(super) p50_us: Option<u64>,
    pub(super) p99_us: Option<u64>,
}

/// The report of `wrk --latency`.
pub(super) fn wrk(text: &str) -> Option<Seen> {
    let mut seen = Seen::default();
    let mut found = false;
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["50%", time] => seen.p50_us = micros(time),
            ["99%", time] => seen.p99_us = micros(time),
            [requests, "requests", "in", time, bytes, "read"] => {
                found = true;
                seen.requests = requests.parse().ok()?;
                seen.elapsed_s = micros(time.trim_end_matches(','))? as f64 / 1e6;
                seen.bytes = scaled(bytes)?;
            }
            ["Socket", "errors:", ..] => {
                let counts = line.split([',', ':']).filter_map(|part| {
                    part.split_whitespace().last().and_then(|count| count.parse::<u64>().ok())
                });
                seen.failed += counts.sum::<u64>();
            }
            ["Non-2xx", .., count] => seen.failed += count.parse::<u64>().unwrap_or(1),
            _ => {}
        }
    }
    if seen.requests == 0 {
        (seen.p50_us, seen.p99_us) = (None, None);
    }
    found.then_some(seen)
}

/// The report of `h2load`, without latencies, which [`log`] has.
pub(super) fn h2load(text: &str) -> Option<Seen> {
    let mut seen = Seen::default();
    let mut found = false;
    for line in text.lines().map(str::trim) {
        let number_before = |word: &str| {
            let before = line.split(word).next()?.rsplit([' ', ',']).find(|part| !part.is_empty());
            before?.parse::<u64>().ok()
        };
        if let Some(rest) = line.strip_prefix("finished in ") {
            seen.elapsed_s = micros(rest.split(',').next()?)? as f64 / 1e6;
        } else if line.starts_with("requests:") {
            found = true;
            seen.requests = number_before(" succeeded")?;
            seen.failed = number_before(" failed")? + number_before(" errored")?;
            seen.failed += number_before(" timeout")?;
        } else if line.starts_with("traffic:") {
            let inside = line.split(['(', ')']).nth(1)?;
            seen.bytes = inside.parse().ok()?;
        }
    }
    found.then_some(seen)
}

/// Percentiles of the log of `h2load`: start, status and microseconds of each request.
pub(super) fn log(text: &str) -> Option<(u64, u64)> {
    let took = |line: &str| line.split('\t').nth(2)?.trim().parse::<u64>().ok();
    percentiles(text.lines().filter_map(took).collect())
}

/// The median and the 99th percentile.
pub(super) fn percentiles(mut times: Vec<u64>) -> Option<(u64, u64)> {
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1));
    if times.is_empty() { None } else { at(50).copied().zip(at(99).copied()) }
}

/// `402.00us`, `1.08ms`, `2.32s`, `1.50m`.
fn micros(text: &str) -> Option<u64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6)];
    let (unit, factor) = units.into_iter().find(|(unit, _)| {
        text.strip_suffix(unit).is_some_and(|number| number.parse::<f64>().is_ok())
    })?;
    Some((text.strip_suffix(unit)?.parse::<f64>().ok()? * factor) as u64)
}

/// `1.23GB`, as wrk writes it: in powers of 1024.
fn scaled(text: &str) -> Option<f64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let powers = ["B", "KB", "MB", "GB", "TB"];
    let power = powers.iter().position(|unit| *unit == &text[at..])?;
    Some(text[..at].parse::<f64>().ok()? * 1024_f64.powi(i32::try_from(power).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_understood() {
        let text = "Running 3s test @ http://127.0.0.1:1/1k\n  1 threads and 64 connections\n  \
                    Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency     0.95ms  \
                    500.00us   9.00ms   80.00%\n  Latency Distribution\n     50%  890.00us\n     \
                    75%    1.11ms\n     90%    1.50ms\n     99%    2.36ms\n  208902 requests in \
                    3.00s, 263.00MB read\n  Socket errors: connect 0, read 1, write 0, timeout 2\n  \
                    Non-2xx or 3xx responses: 4\nRequests/sec:  69634.00\n";
        let seen = wrk(text).unwrap();
        assert_eq!((seen.requests, seen.p50_us, seen.p99_us), (208_902, Some(890), Some(2_360)));
        assert_eq!((seen.failed, seen.elapsed_s), (7, 3.0));
        assert_eq!(seen.bytes, 263.0 * 1024.0 * 1024.0);
        assert_eq!(wrk("unable to connect"), None);
    }

    #[test]
    fn h2load_is_understood() {
        let text = "starting benchmark...\n\nfinished in 3.01s, 33333.33 req/s, 40.69MB/s\n\
                    requests: 100000 total, 100064 started, 100000 done, 99990 succeeded, 10 failed, \
                    1 errored, 2 timeout\nstatus codes: 99990 2xx, 0 3xx, 0 4xx, 10 5xx\n\
                    traffic: 122.07MB (128000000) total, 3.05MB (3200000) headers (space savings \
                    90.00%), 97.66MB (102400000) data\n";
        let seen = h2load(text).unwrap();
        assert_eq!((seen.requests, seen.failed, seen.bytes), (99_990, 13, 128_000_000.0));
        assert_eq!(seen.elapsed_s, 3.01);
        assert_eq!(h2load(""), None);
    }

    #[test]
    fn percentiles_come_from_every_request() {
        let log_text: String =
            (1..=200).map(|us| format!("1700000000000000\t200\t{us}\n")).collect();
        assert_eq!(log(&log_text), Some((101, 199)));
        assert_eq!(log("1\t200\t7\n"), Some((7, 7)));
        assert_eq!(log(""), None);
    }
}
