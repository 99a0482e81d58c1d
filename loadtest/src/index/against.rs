//! The same work on etcd: one put a change, transactions of many, and range reads in place of
//! locates. Each at several levels of concurrency, of which the report takes the best for etcd.
//!
//! A record is a key of 20 bytes, 12 of the object and 8 of the holder, with a value of one byte:
//! what the index sends for a change.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{
    Meter,
    holdings::Holdings,
    results::{EtcdResults, Level},
    say,
    workers::{Step, Tally, run},
};
use crate::{
    clock,
    etcd::{self, Client, Etcd, EtcdError},
    rng::Rng,
    sample::Times,
    scenario::IndexScenario,
};

/// Calls in flight.
const PUTS_IN_FLIGHT: [usize; 3] = [64, 256, 1_024];
const TXNS_IN_FLIGHT: [usize; 3] = [8, 32, 128];
const READS_IN_FLIGHT: [usize; 3] = [16, 64, 256];
/// Bytes of an object's name.
const OBJECT_BYTES: usize = shoal_proto::id::OBJECT_REF_BYTES;
/// Most holders named in one answer.
const HOLDERS_MAX: usize = shoal_proto::limits::HOLDERS_ANSWERED_MAX;
/// Stream of the seed.
const STREAM: u64 = 5 << 32;

/// Puts records as they come; all workers count on together.
struct Putter {
    client: Client,
    holdings: Holdings,
    next: Arc<AtomicU64>,
    /// Puts in a transaction; 0 for a put without one.
    txn_ops: usize,
}

impl Putter {
    fn key(&self, record: u64) -> Bytes {
        let object = self.holdings.object(record / self.holdings.holders);
        let mut key = object.id[..OBJECT_BYTES].to_vec();
        key.extend_from_slice(&(record % self.holdings.holders).to_be_bytes());
        key.into()
    }
}

impl Step for Putter {
    async fn step(&mut self) -> Result<Option<u64>, String> {
        let ops = self.txn_ops.max(1) as u64;
        let first = self.next.fetch_add(ops, Relaxed);
        match self.txn_ops {
            0 => self.client.put(self.key(first)).await?,
            _ => {
                let keys: Vec<_> = (first..first + ops).map(|record| self.key(record)).collect();
                self.client.txn(keys.into_iter()).await?;
            }
        }
        Ok(Some(ops))
    }
}

struct Reader {
    client: Client,
    holdings: Holdings,
    /// Objects that are there.
    objects: usize,
    serializable: bool,
    rng: Rng,
}

impl Step for Reader {
    async fn step(&mut self) -> Result<Option<u64>, String> {
        let object = self.holdings.object(self.rng.below(self.objects) as u64);
        let prefix = &object.id[..OBJECT_BYTES];
        match self.client.range(prefix, HOLDERS_MAX, self.serializable).await? {
            0 => Err("an object without holders, though they were put".to_owned()),
            _ => Ok(Some(1)),
        }
    }
}

/// Measures etcd on its own, with nothing of Shoal running.
///
/// # Errors
/// When it does not come up.
pub(super) async fn measure(
    scenario: &IndexScenario,
    program: &Path,
    folder: PathBuf,
    stop: &CancellationToken,
) -> Result<EtcdResults, EtcdError> {
    say("starting 3 members of etcd");
    let etcd = Etcd::start(program, &folder, scenario.txn_ops).await?;
    let mut run = Comparison {
        scenario,
        stop,
        holdings: Holdings {
            seed: clock::wall_unix_ms(),
            members: u64::from(scenario.members),
            holders: u64::from(scenario.holders),
        },
        next: Arc::default(),
        etcd,
    };
    let mut results = EtcdResults { version: etcd::version(program), ..EtcdResults::default() };
    for in_flight in PUTS_IN_FLIGHT {
        results.puts.extend(run.puts(in_flight, 0).await);
    }
    for in_flight in TXNS_IN_FLIGHT {
        results.txns.extend(run.puts(in_flight, scenario.txn_ops).await);
    }
    results.records = run.next.load(Relaxed);
    results.disk_bytes = run.etcd.disk_bytes();
    let rss = run.etcd.usage().iter().map(|used| used.rss_bytes).max();
    results.rss_bytes = rss.unwrap_or_default();
    run.etcd.restart().await?;
    for in_flight in READS_IN_FLIGHT {
        results.linearizable_reads.extend(run.reads(in_flight, false).await);
        results.serializable_reads.extend(run.reads(in_flight, true).await);
    }
    run.etcd.stop().await?;
    Ok(results)
}

struct Comparison<'a> {
    scenario: &'a IndexScenario,
    stop: &'a CancellationToken,
    holdings: Holdings,
    /// The number of the next record.
    next: Arc<AtomicU64>,
    etcd: Etcd,
}

impl Comparison<'_> {
    /// New records.
    async fn puts(&self, in_flight: usize, txn_ops: usize) -> Option<Level> {
        let worker = |worker: usize| Putter {
            client: self.client(worker),
            holdings: self.holdings,
            next: Arc::clone(&self.next),
            txn_ops,
        };
        let workers = (0..in_flight).map(worker).collect();
        let name = if txn_ops == 0 { "puts" } else { "transactions" };
        self.level(name, txn_ops.max(1), workers).await
    }

    async fn reads(&self, in_flight: usize, serializable: bool) -> Option<Level> {
        let objects = (self.next.load(Relaxed) / self.holdings.holders).max(1);
        let worker = |worker: usize| Reader {
            client: self.client(worker),
            holdings: self.holdings,
            objects: usize::try_from(objects).unwrap_or(usize::MAX),
            serializable,
            rng: Rng::new(self.holdings.seed, STREAM + worker as u64),
        };
        let workers = (0..in_flight).map(worker).collect();
        let name = if serializable { "serializable reads" } else { "linearizable reads" };
        self.level(name, 1, workers).await
    }

    fn client(&self, at: usize) -> Client {
        self.etcd.clients[at % self.etcd.clients.len()].clone()
    }

    async fn level<W: Step>(&self, name: &str, units: usize, workers: Vec<W>) -> Option<Level> {
        if self.stop.is_cancelled() {
            return None;
        }
        let in_flight = workers.len();
        let time: Duration = self.scenario.duration;
        let meter = Meter::start(self.etcd.usage());
        let tally: Tally = run(workers, time, self.stop).await;
        let per_s = tally.per_s();
        say(&format!("etcd: {name}, {in_flight} in flight: {} a second", per_s as u64));
        Some(Level {
            server: "all".to_owned(),
            in_flight,
            units_per_call: units,
            per_s,
            times: Times::from(&tally.latency),
            failures: tally.failures,
            failure: tally.failure,
            cost: meter.cost(&self.etcd.usage()),
        })
    }
}
