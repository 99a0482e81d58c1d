//! Properties of the eviction core, against a plain map that knows what must be there.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::S3Fifo;

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, u64),
    Restore(u8, u64),
    Use(u8),
    Remove(u8),
    /// A victim, while all keys below the number are held.
    Victim(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), 0u64..2000).prop_map(|(key, bytes)| Step::Insert(key, bytes)),
        1 => (any::<u8>(), 0u64..2000).prop_map(|(key, bytes)| Step::Restore(key, bytes)),
        4 => any::<u8>().prop_map(Step::Use),
        1 => any::<u8>().prop_map(Step::Remove),
        3 => prop_oneof![Just(0), any::<u8>()].prop_map(Step::Victim),
    ]
}

fn take_step(cache: &mut S3Fifo<u8>, there: &mut HashMap<u8, u64>, step: Step) {
    match step {
        Step::Insert(key, bytes) => {
            cache.on_insert(key, bytes);
            there.insert(key, bytes);
        }
        Step::Restore(key, bytes) => {
            cache.on_restore(key, bytes);
            there.entry(key).or_insert(bytes);
        }
        Step::Use(key) => cache.on_use(&key),
        Step::Remove(key) => assert_eq!(cache.on_remove(&key), there.remove(&key).is_some()),
        Step::Victim(held_below) => match cache.victim(|key| *key < held_below) {
            Some(victim) => {
                assert!(victim >= held_below, "{victim} is held");
                assert!(there.remove(&victim).is_some(), "{victim} was not there");
            }
            None => assert!(there.keys().all(|key| *key < held_below), "somebody could go"),
        },
    }
}

proptest! {
    #[test]
    fn knows_what_is_there_and_finds_whoever_can_go(
        steps in prop::collection::vec(step(), 0..400),
    ) {
        let (mut cache, mut there) = (S3Fifo::new(20_000), HashMap::new());
        for step in steps {
            take_step(&mut cache, &mut there, step);
            prop_assert_eq!(cache.bytes(), there.values().sum::<u64>());
            prop_assert_eq!(cache.len(), there.len());
            prop_assert!(there.keys().all(|key| cache.contains(key)));
        }
        // Whatever came before, the victims empty it.
        let victims: HashSet<u8> = std::iter::from_fn(|| cache.victim(|_| false)).collect();
        prop_assert_eq!(victims, there.into_keys().collect::<HashSet<u8>>());
        prop_assert!(cache.is_empty());
        prop_assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn hot_objects_survive_a_scan(
        hot in prop::collection::vec(1u64..3000, 1..20),
        scan in prop::collection::vec(1u64..3000, 1000..2000),
    ) {
        const CAPACITY: u64 = 200_000;
        let mut cache = S3Fifo::new(CAPACITY);
        for (key, bytes) in hot.iter().enumerate() {
            cache.on_insert(key, *bytes);
            cache.on_use(&key);
            cache.on_use(&key);
        }
        for (key, bytes) in scan.iter().enumerate() {
            while cache.bytes() + bytes > CAPACITY {
                prop_assert!(cache.victim(|_| false).is_some());
            }
            cache.on_insert(1_000_000 + key, *bytes);
        }
        prop_assert!((0..hot.len()).all(|key| cache.contains(&key)));
    }
}

/// A stream of keys, skewed like web requests and mixed with keys asked for once: the same at
/// every run.
fn requests() -> impl Iterator<Item = u64> {
    let mut seed = 1u64;
    (0..200_000u64).map(move |turn| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let uniform = (seed >> 11) as f64 / (1u64 << 53) as f64;
        // Of every ten, three are asked for once; the others follow Zipf's law with exponent one.
        if turn % 10 < 3 { 1_000_000 + turn } else { (10_000f64.powf(uniform)) as u64 }
    })
}

#[test]
fn misses_less_than_first_in_first_out() {
    const CAPACITY: u64 = 500;
    let (mut cache, mut misses) = (S3Fifo::new(CAPACITY), 0);
    let (mut fifo, mut fifo_keys, mut fifo_misses) = (Vec::new(), HashSet::new(), 0);
    for key in requests() {
        if cache.contains(&key) {
            cache.on_use(&key);
        } else {
            misses += 1;
            if cache.bytes() == CAPACITY {
                cache.victim(|_| false).unwrap();
            }
            cache.on_insert(key, 1);
        }
        if fifo_keys.insert(key) {
            fifo_misses += 1;
            fifo.push(key);
            if fifo_keys.len() as u64 > CAPACITY {
                fifo_keys.remove(&fifo[fifo.len() - 1 - CAPACITY as usize]);
            }
        }
    }
    assert!(misses * 10 < fifo_misses * 9, "{misses} misses, first in first out {fifo_misses}");
}

#[test]
fn what_comes_back_soon_outlives_what_is_new() {
    let mut cache = S3Fifo::new(100);
    (0..10).for_each(|key| cache.on_insert(key, 10));
    // Until it was full, all but the first went to main: emptied, it leaves small to be judged.
    while cache.victim(|_| false).is_some() {}
    cache.on_insert(20, 10);
    cache.on_insert(21, 10);
    assert_eq!(cache.victim(|_| false), Some(20), "out of small, and remembered");
    cache.on_insert(20, 10);
    cache.on_insert(22, 10);
    let order: Vec<i32> = std::iter::from_fn(|| cache.victim(|_| false)).collect();
    assert_eq!(order, [21, 20, 22], "small gives way down to its part, then main is older");
    assert!(cache.is_empty());
}

#[test]
fn what_came_before_the_cache_was_full_is_judged_by_its_uses() {
    let mut cache = S3Fifo::new(100);
    (0..10).for_each(|key| cache.on_insert(key, 10));
    [2, 4, 6, 8].iter().for_each(|key| cache.on_use(key));
    let first: Vec<i32> = std::iter::from_fn(|| cache.victim(|_| false)).take(5).collect();
    assert_eq!(first, [1, 3, 5, 7, 9], "not first in, first out");
}

#[test]
fn the_last_entry_goes_however_much_it_was_used() {
    let mut cache = S3Fifo::new(1000);
    cache.on_insert(1, 10);
    (0..5).for_each(|_| cache.on_use(&1));
    assert_eq!(cache.victim(|_| false), Some(1));
    assert!(cache.is_empty());
}

#[test]
fn whoever_is_spared_stays_while_others_can_go() {
    let mut cache = S3Fifo::new(1000);
    (0..10).for_each(|key| cache.on_insert(key, 100));
    let order: Vec<i32> =
        std::iter::from_fn(|| cache.victim_sparing(|_| false, |key| key % 2 == 0))
            .take(5)
            .collect();
    assert!(order.iter().all(|key| key % 2 == 1), "{order:?}");
    assert_eq!(cache.victim_sparing(|_| false, |_| true).map(|key| key % 2), Some(0));
}

#[test]
fn no_more_are_spared_in_one_search_than_its_bound() {
    let mut cache = S3Fifo::new(100_000);
    (0..1000).for_each(|key| cache.on_insert(key, 100));
    let mut asked = 0;
    let victim = cache.victim_sparing(
        |_| false,
        |_| {
            asked += 1;
            true
        },
    );
    assert!(victim.is_some());
    assert_eq!(asked, 64);
    assert_eq!(cache.len(), 999);
}

#[test]
fn who_is_next_to_go_is_known_before() {
    let mut cache = S3Fifo::new(1000);
    (0..10).for_each(|key| cache.on_insert(key, 100));
    let next: HashSet<i32> = cache.next_to_go(3).collect();
    let victims: Vec<i32> = std::iter::from_fn(|| cache.victim(|_| false)).take(3).collect();
    assert!(victims.iter().all(|victim| next.contains(victim)), "{victims:?} of {next:?}");
}
