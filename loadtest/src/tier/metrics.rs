//! What members measure themselves, from `/metrics` of their admin listeners.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// For one answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// Longest page, in bytes.
const PAGE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How long groups of entries took to be applied.
const PAUSES: &str = "shoal_index_apply_pause_seconds_bucket{le=\"";
/// The longest of them since the start.
const LONGEST: &str = "shoal_index_apply_pause_max_seconds ";

/// A super-node's own account of how long applying took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ApplyPauses {
    /// How many took at most so many microseconds; the last is without bound.
    at_most_us: BTreeMap<u64, u64>,
    longest_us: u64,
}

impl ApplyPauses {
    /// What the super-node with its admin listener at `url` says; none when it does not.
    pub async fn of(url: &str) -> Option<Self> {
        let address = url.strip_prefix("http://")?;
        let page = tokio::time::timeout(DEADLINE, page(address)).await.ok()?.ok()?;
        Self::read(&page)
    }

    fn read(page: &str) -> Option<Self> {
        let mut found = Self::default();
        for line in page.lines() {
            if let Some((bound, count)) =
                line.strip_prefix(PAUSES).and_then(|l| l.split_once("\"} "))
            {
                let bound = if bound == "+Inf" { u64::MAX } else { us(bound)? };
                found.at_most_us.insert(bound, count.trim().parse().ok()?);
            } else if let Some(longest) = line.strip_prefix(LONGEST) {
                found.longest_us = us(longest)?;
            }
        }
        (!found.at_most_us.is_empty()).then_some(found)
    }

    /// The longest since `before`, in microseconds: exactly when it is the longest of all, else the
    /// upper bound of its bucket.
    #[must_use]
    pub fn longest_since_us(&self, before: &Self) -> u64 {
        if self.longest_us > before.longest_us {
            return self.longest_us;
        }
        let mut longest = 0;
        let (mut counted, all) = (0, self.at_most_us.values().last().copied().unwrap_or_default());
        for (bound, count) in &self.at_most_us {
            let new = count - before.at_most_us.get(bound).copied().unwrap_or_default().min(*count);
            if new > counted {
                longest = *bound;
            }
            counted = new.max(counted);
        }
        if all == 0 { 0 } else { longest.min(self.longest_us) }
    }
}

/// The value of the sample that begins with `name`, labels included, on the page of the admin
/// listener at `authority`; none when it does not say.
pub async fn counter(authority: &str, name: &str) -> Option<u64> {
    let page = tokio::time::timeout(DEADLINE, page(authority)).await.ok()?.ok()?;
    read_counter(&page, name)
}

fn read_counter(page: &str, name: &str) -> Option<u64> {
    let sample = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    sample.trim().parse().ok()
}

fn us(seconds: &str) -> Option<u64> {
    let seconds: f64 = seconds.trim().parse().ok()?;
    Some((seconds * 1e6).round() as u64)
}

/// The page, asked for in a way that needs no decoding of the answer.
async fn page(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(PAGE_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(counts: [u64; 3], longest: &str) -> ApplyPauses {
        let [fast, slow, all] = counts;
        let page = format!(
            "HTTP/1.0 200 OK\r\n\r\n# TYPE shoal_index_apply_pause_seconds histogram\n\
             shoal_index_apply_pause_seconds_bucket{{le=\"0.001\"}} {fast}\n\
             shoal_index_apply_pause_seconds_bucket{{le=\"0.025\"}} {slow}\n\
             shoal_index_apply_pause_seconds_bucket{{le=\"+Inf\"}} {all}\n\
             shoal_index_apply_pause_seconds_count {all}\n\
             shoal_index_apply_pause_max_seconds {longest}\n"
        );
        ApplyPauses::read(&page).unwrap()
    }

    #[test]
    fn a_new_longest_is_known_exactly() {
        let (before, after) = (pauses([5, 6, 6], "0.0101"), pauses([7, 8, 9], "0.1234"));
        assert_eq!(after.longest_since_us(&before), 123_400);
    }

    #[test]
    fn else_its_bucket_is() {
        let before = pauses([5, 6, 7], "0.5");
        assert_eq!(pauses([9, 10, 11], "0.5").longest_since_us(&before), 1_000);
        assert_eq!(pauses([9, 11, 12], "0.5").longest_since_us(&before), 25_000);
        assert_eq!(pauses([9, 11, 13], "0.5").longest_since_us(&before), 500_000);
        assert_eq!(before.longest_since_us(&before), 0);
    }

    #[test]
    fn a_counter_is_found_by_its_whole_name() {
        let page = "# TYPE bytes counter\nbytes{to=\"a\"} 7\nbytes_total{to=\"a\"} 12\n";
        assert_eq!(read_counter(page, "bytes_total{to=\"a\"}"), Some(12));
        assert_eq!(read_counter(page, "bytes_total{to=\"b\"}"), None);
    }

    #[test]
    fn a_page_without_them_says_nothing() {
        assert_eq!(ApplyPauses::read("shoal_up 1\n"), None);
    }
}
