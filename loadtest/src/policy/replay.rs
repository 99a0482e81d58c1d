//! A cache before a trace (PURE). A request for an object that is in counts as a use, whatever size
//! the trace gives it now; another one is a miss, makes room by asking the policy for victims, and
//! is let in. What is larger than the whole cache passes by.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use shoal_node::store::eviction::S3Fifo;

use super::trace::Request;

/// What a trace is like.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Shape {
    /// Requests.
    pub requests: u64,
    /// Different objects.
    pub objects: u64,
    /// Bytes of all requests.
    pub bytes: u64,
    /// Bytes of all objects, each once with its last size.
    pub unique_bytes: u64,
    /// Objects asked for once.
    pub one_hit_objects: u64,
    /// Misses of a cache without an end, in percent of the requests: nobody misses less.
    pub cold_miss_pct: f64,
    /// The same for bytes.
    pub cold_byte_miss_pct: f64,
}

/// What a capacity comes to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Misses {
    /// The cache's size.
    pub capacity_bytes: u64,
    /// The same as a share of the trace's unique bytes.
    pub capacity_pct: f64,
    /// Requests that were not in.
    pub misses: u64,
    /// Their bytes.
    pub missed_bytes: u64,
    /// Misses in percent of the requests.
    pub object_miss_pct: f64,
    /// Missed bytes in percent of the bytes.
    pub byte_miss_pct: f64,
    /// Objects that were sent away.
    pub evicted: u64,
    /// Requests for objects larger than the cache.
    pub too_large: u64,
}

/// Looks at a trace.
pub fn shape(trace: &[Request]) -> Shape {
    let mut sizes = HashMap::new();
    let mut again = HashSet::new();
    for request in trace {
        if sizes.insert(request.object, request.bytes).is_some() {
            again.insert(request.object);
        }
    }
    let bytes = trace.iter().map(|request| request.bytes).fold(0, u64::saturating_add);
    let unique_bytes = sizes.values().copied().fold(0, u64::saturating_add);
    let (requests, objects) = (trace.len() as u64, sizes.len() as u64);
    Shape {
        requests,
        objects,
        bytes,
        unique_bytes,
        one_hit_objects: objects - again.len() as u64,
        cold_miss_pct: share_pct(objects, requests),
        cold_byte_miss_pct: share_pct(unique_bytes, bytes),
    }
}

/// Replays a trace before a cache of `capacity_bytes`.
pub fn replay(trace: &[Request], shape: &Shape, capacity_bytes: u64) -> Misses {
    let mut cache = S3Fifo::new(capacity_bytes);
    let (mut misses, mut missed_bytes, mut evicted, mut too_large) = (0, 0_u64, 0, 0);
    for &Request { object, bytes } in trace {
        if cache.contains(&object) {
            cache.on_use(&object);
            continue;
        }
        misses += 1;
        missed_bytes = missed_bytes.saturating_add(bytes);
        if bytes > capacity_bytes {
            too_large += 1;
            continue;
        }
        while cache.bytes() > capacity_bytes - bytes && cache.victim(|_| false).is_some() {
            evicted += 1;
        }
        cache.on_insert(object, bytes);
    }
    Misses {
        capacity_bytes,
        capacity_pct: share_pct(capacity_bytes, shape.unique_bytes),
        misses,
        missed_bytes,
        object_miss_pct: share_pct(misses, shape.requests),
        byte_miss_pct: share_pct(missed_bytes, shape.bytes),
        evicted,
        too_large,
    }
}

/// `part` of `whole` in percent; of nothing, nothing.
fn share_pct(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(requests: &[(u32, u64)]) -> Vec<Request> {
        requests.iter().map(|&(object, bytes)| Request { object, bytes }).collect()
    }

    #[test]
    fn a_trace_is_looked_at() {
        let trace = trace(&[(0, 10), (1, 30), (0, 10), (2, 50)]);
        let shape = shape(&trace);
        assert_eq!((shape.requests, shape.objects, shape.one_hit_objects), (4, 3, 2));
        assert_eq!((shape.bytes, shape.unique_bytes), (100, 90));
        assert!((shape.cold_miss_pct - 75.0).abs() < 1e-9);
    }

    #[test]
    fn a_cache_with_room_for_all_misses_each_once() {
        let trace = trace(&[(0, 10), (1, 30), (0, 10), (1, 30), (0, 10)]);
        let found = replay(&trace, &shape(&trace), 40);
        assert_eq!((found.misses, found.missed_bytes, found.evicted), (2, 40, 0));
    }

    #[test]
    fn what_is_larger_than_the_cache_passes_by() {
        let trace = trace(&[(0, 10), (1, 50), (1, 50), (0, 10)]);
        let found = replay(&trace, &shape(&trace), 20);
        assert_eq!((found.misses, found.too_large, found.evicted), (3, 2, 0));
        assert!((found.byte_miss_pct - 100.0 * 110.0 / 120.0).abs() < 1e-9);
    }

    #[test]
    fn a_scan_sends_what_came_before_away() {
        let scan: Vec<_> = (0..100).map(|object| (object, 1)).chain([(0, 1)]).collect();
        let trace = trace(&scan);
        let found = replay(&trace, &shape(&trace), 10);
        assert_eq!((found.misses, found.evicted), (101, 91));
    }
}
