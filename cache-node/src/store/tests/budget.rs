//! The budget holds at every moment, and what must go for it is what nobody holds.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn eviction_makes_room_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 4 * cost(CHUNK), 0).await;
    let mut losses = store.evictions();
    for number in 1..=4 {
        put(&store, number, CHUNK).await;
    }
    assert!(losses.try_recv().is_err(), "nobody goes while there is room");
    put(&store, 5, CHUNK).await;
    let (gone, _) = losses.try_recv().unwrap();
    assert!(store.get(&gone).await.is_none());
    assert_eq!((store.usage().objects, store.usage().bytes), (4, 4 * cost(CHUNK) as u64));
    assert_eq!(files(dir.path()).len(), 4, "its space came back at once");
    assert_eq!(store.shared.metrics.evictions.get(), 1);
    assert_eq!(store.shared.metrics.evicted_bytes.get(), cost(CHUNK) as u64);
    assert_eq!(store.shared.metrics.objects.get(), 4);
    assert_eq!(store.shared.metrics.bytes.get(), 4 * cost(CHUNK) as i64);
}

#[tokio::test]
async fn no_room_for_what_is_larger_than_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 4 * cost(CHUNK), 0).await;
    put(&store, 1, CHUNK).await;
    let error = store.begin(head(2, Some(4 * CHUNK + 1))).await.unwrap_err();
    assert!(matches!(error, StoreError::NoRoom { cause: Full::Budget { .. }, .. }), "{error}");
    assert_stored(&store, 1, CHUNK).await;
    drop(store.begin(head(2, Some(4 * CHUNK))).await.unwrap());
    assert_eq!(store.usage().objects, 0, "all had to go for it");
}

#[tokio::test]
async fn what_is_held_does_not_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 4 * cost(CHUNK), 0).await;
    for number in 1..=4 {
        put(&store, number, CHUNK).await;
    }
    let reader = store.get(&key(1)).await.unwrap();
    let filling = store.begin(head(5, Some(CHUNK))).await.unwrap();
    let error = store.begin(head(6, Some(3 * CHUNK))).await.unwrap_err();
    assert!(matches!(error, StoreError::NoRoom { cause: Full::InUse { .. }, .. }), "{error}");
    assert_eq!(store.usage().objects, 3, "nobody went for what cannot fit");
    drop(store.begin(head(6, Some(2 * CHUNK))).await.unwrap());
    assert_eq!(read(&reader).await.unwrap(), body(1, CHUNK));
    assert_stored(&store, 1, CHUNK).await;
    drop((reader, filling));
    store.begin(head(6, Some(4 * CHUNK))).await.unwrap();
}

#[tokio::test]
async fn what_is_removed_and_read_is_counted_until_its_reader_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), cost(2 * CHUNK), 0).await;
    let reader = put(&store, 1, 2 * CHUNK).await;
    store.remove(&key(1)).await.unwrap();
    let error = store.begin(head(2, Some(1))).await.unwrap_err();
    assert!(matches!(error, StoreError::NoRoom { .. }), "{error}");
    assert_eq!(read(&reader).await.unwrap(), body(1, 2 * CHUNK));
    drop(reader);
    put(&store, 2, 2 * CHUNK).await;
    assert_stored(&store, 2, 2 * CHUNK).await;
}

#[tokio::test]
async fn a_growing_object_stops_at_the_budget_and_gives_back_its_space() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), cost(4 * CHUNK), 0).await;
    put(&store, 1, 3 * CHUNK).await;
    let endless = store.begin(head(2, None)).await.unwrap();
    for index in 0..4 {
        write(&endless, index, body(u64::from(index), CHUNK)).await.unwrap();
        assert!(store.usage().bytes <= cost(4 * CHUNK) as u64);
    }
    assert!(store.get(&key(1)).await.is_none(), "it grew over the other one");
    let error = write(&endless, 4, body(4, CHUNK)).await.unwrap_err();
    assert!(matches!(error, StoreError::NoRoom { .. }), "{error}");
    assert_eq!(endless.read_chunk(3).await.unwrap(), body(3, CHUNK), "still readable");
    drop(endless);
    store.shared.disk.reclaim_waiting();
    assert_eq!((store.usage().bytes, files(dir.path()).len()), (0, 0));
}

#[tokio::test]
async fn objects_without_bytes_are_bounded_in_number() {
    let dir = tempfile::tempdir().unwrap();
    let (dir_path, budget_bytes) = (dir.path().to_owned(), 64 * MIB as u64);
    let config = StoreConfig {
        dir: dir_path,
        budget_bytes,
        memory_bytes: 0,
        objects_max: OBJECTS_MIN,
        cut_from_bytes: CUT_FROM_BYTES,
    };
    let store = open_as(config).await.unwrap();
    for number in 0..OBJECTS_MIN as u64 + 10 {
        put(&store, number, 0).await;
        assert!(store.usage().objects <= OBJECTS_MIN);
    }
    assert_eq!(store.usage().objects, OBJECTS_MIN);
    assert_eq!(store.shared.metrics.evictions.get(), 10);
}

#[tokio::test]
async fn objects_being_filled_are_bounded_in_number() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 4 * MIB, 0).await;
    let mut partials = Vec::new();
    for number in 0..shared::PARTIALS_MAX as u64 {
        partials.push(store.begin(head(number, None)).await.unwrap());
    }
    let error = store.begin(head(0, None)).await.unwrap_err();
    assert!(matches!(error, StoreError::NoRoom { cause: Full::Partials { .. }, .. }), "{error}");
    partials.pop();
    store.begin(head(0, None)).await.unwrap();
}

#[tokio::test]
async fn hot_objects_outlive_a_scan() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), MIB, 0).await;
    for number in 0..5 {
        put(&store, number, 32 * KIB).await;
    }
    for number in 0..100 {
        for hot in 0..5 {
            store.get(&key(hot)).await.unwrap();
        }
        put(&store, 1000 + number, 32 * KIB).await;
    }
    for hot in 0..5 {
        assert_stored(&store, hot, 32 * KIB).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_budget_holds_while_many_fill_read_and_remove() {
    let dir = tempfile::tempdir().unwrap();
    let budget_bytes = 3 * MIB;
    let store = open(dir.path(), budget_bytes, MIB).await;
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut looks = 0u64;
            while !stop.load(Ordering::Acquire) {
                let usage = store.usage();
                assert!(usage.bytes <= budget_bytes as u64, "{usage:?}");
                assert!(usage.memory_bytes <= MIB as u64, "{usage:?}");
                looks += 1;
            }
            looks
        })
    };
    let worker = |worker: u64| {
        let store = Arc::clone(&store);
        async move {
            let mut stored = 0;
            for turn in 0..40u64 {
                let number = (worker * 7 + turn * 5) % 23;
                let length = [200, 90 * KIB, CHUNK + 7, 700 * KIB][(number % 4) as usize];
                let known = (turn % 2 == 0).then_some(length);
                match try_put(&store, head(number, known), &body(number, length)).await {
                    Ok(object) => {
                        stored += 1;
                        assert_eq!(read(&object).await.unwrap(), body(number, length));
                    }
                    Err(error) => assert!(matches!(error, StoreError::NoRoom { .. }), "{error}"),
                }
                if turn % 9 == 0 {
                    store.remove(&key(number)).await.unwrap();
                }
            }
            stored
        }
    };
    let stored: Vec<u64> = futures::future::join_all((0..8).map(worker)).await;
    assert!(stored.iter().sum::<u64>() > 100, "{stored:?}");
    stop.store(true, Ordering::Release);
    assert!(watcher.join().unwrap() > 0);

    // What the ledger says is what is there.
    store.shared.disk.reclaim_waiting();
    let usage = store.usage();
    let on_disk: u64 = files(dir.path()).iter().map(|(_, length)| length).sum();
    let (mut small_bytes, mut charged_bytes) = (0, 0);
    for (key, _) in store.list(None, LIST_MAX) {
        let object = store.get(&key).await.unwrap();
        let length = object.manifest().length();
        small_bytes += if length <= 64 * KIB as u64 { length } else { 0 };
        charged_bytes += crate::store::read(&store.shared.table).get(&key).unwrap().bytes();
    }
    assert_eq!(usage.bytes, charged_bytes);
    assert!(usage.bytes > on_disk + small_bytes, "manifests count, too");
    assert_eq!(store.shared.metrics.bytes.get() as u64, usage.bytes);
    assert_eq!(store.shared.metrics.objects.get() as usize, usage.objects);
}

#[derive(Clone, Debug)]
enum Step {
    Put(u64, usize),
    Begin(u64, usize),
    Grow(u64),
    Abandon,
    Hold(u64),
    Release,
    Remove(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let length = || prop_oneof![0..64 * KIB, 65 * KIB..CHUNK, CHUNK..3 * CHUNK];
    prop_oneof![
        4 => (0u64..8, length()).prop_map(|(number, length)| Step::Put(number, length)),
        2 => (0u64..8, length()).prop_map(|(number, length)| Step::Begin(number, length)),
        2 => (0u64..8).prop_map(Step::Grow),
        1 => Just(Step::Abandon),
        2 => (0u64..8).prop_map(Step::Hold),
        1 => Just(Step::Release),
        1 => (0u64..8).prop_map(Step::Remove),
    ]
}

/// Runs the steps; after each the ledger says what a count over everything alive says.
async fn run(steps: Vec<Step>) {
    const BUDGET: usize = 4 * CHUNK;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), BUDGET, 0).await;
    let (mut partials, mut held) = (Vec::new(), Vec::new());
    for step in steps {
        match step {
            Step::Put(number, length) => {
                let put = try_put(&store, head(number, Some(length)), &body(number, length)).await;
                assert!(matches!(put, Ok(_) | Err(StoreError::NoRoom { .. })), "{put:?}");
            }
            Step::Begin(number, length) => {
                partials.extend(store.begin(head(number, Some(length))).await.ok());
            }
            Step::Grow(number) => {
                if let Ok(partial) = store.begin(head(number, None)).await {
                    let written = write(&partial, 0, body(number, CHUNK)).await;
                    assert!(matches!(written, Ok(()) | Err(StoreError::NoRoom { .. })));
                    partials.push(partial);
                }
            }
            Step::Abandon => drop(partials.pop()),
            Step::Hold(number) => held.extend(store.get(&key(number)).await),
            Step::Release => drop(held.pop()),
            Step::Remove(number) => drop(store.remove(&key(number)).await.unwrap()),
        }
        store.shared.disk.reclaim_waiting();
        let usage = store.usage();
        assert!(usage.bytes <= BUDGET as u64, "{usage:?}");
        assert_eq!(usage.bytes, alive_bytes(&store, &partials, &held).await);
    }
}

fn charge_of(object: &StoredObject) -> u64 {
    charge::of_object(object.manifest().head(), object.manifest().length())
}

async fn alive_bytes(store: &Store, partials: &[PartialObject], held: &[Arc<StoredObject>]) -> u64 {
    let mut bodies = std::collections::HashMap::new();
    for (key, _) in store.list(None, LIST_MAX) {
        let object = store.get(&key).await.unwrap();
        bodies.insert(object.file_number(), charge_of(&object));
    }
    bodies.extend(held.iter().map(|object| (object.file_number(), charge_of(object))));
    let filling = |partial: &PartialObject| {
        let head = partial.head();
        let grown = u64::from(partial.chunks_written()) * charge::of_chunk(0, CHUNK as u64);
        let growing = charge::of_head(head) + grown;
        head.length.map_or(growing, |length| charge::of_object(head, length))
    };
    bodies.values().sum::<u64>() + partials.iter().map(filling).sum::<u64>()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_is_right_after_every_step(steps in prop::collection::vec(step(), 1..40)) {
        tokio::runtime::Runtime::new().unwrap().block_on(run(steps));
    }
}
