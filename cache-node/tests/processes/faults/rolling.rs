//! Every member restarted in order, one after the other, while clients go on reading.

use std::time::Duration;

use super::load::{Load, Plan, loadtest};
use crate::common::{Origin, Setup, turn};

/// For all six members, each of which stops, starts and finds its way back.
const LOAD_S: u64 = 60;
/// A node that is told to stop is given no new requests from here on, as behind a service.
const DRAIN: Duration = Duration::from_millis(1_200);

#[test]
fn a_rolling_restart_is_noticed_by_nobody() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(3, 3).start();
    let edges: Vec<_> = (0..3).map(|i| cluster.edge_url(i)).collect();
    let mut load = Load::start(Plan {
        command: loadtest(),
        edges: &edges,
        origin: origin.url(),
        seconds: LOAD_S,
        folder: folder.path(),
        origin_ratio: "1.1",
    });
    let mut restarted = Vec::new();
    for i in 0..3 {
        cluster.stop_member(&format!("super-{i}"));
        restarted.push(cluster.revive(&format!("super-{i}")));
        load.still_runs();
    }
    for i in 0..3 {
        let left: Vec<_> = edges.iter().filter(|edge| **edge != edges[i]).copied().collect();
        load.use_edges(&left);
        std::thread::sleep(DRAIN);
        cluster.stop_member(&format!("node-{i}"));
        restarted.push(cluster.revive(&format!("node-{i}")));
        load.use_edges(&edges);
        load.still_runs();
    }
    load.passes();
}
