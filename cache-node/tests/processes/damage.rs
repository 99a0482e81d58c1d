//! Bytes that rot on a disk: found when they are read, never sent, and had again from elsewhere while
//! the response goes on.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::common::{Cluster, Origin, Setup, turn};

const TARGET: &str = "/o/9000000/many";
const LENGTH: u64 = 9_000_000;

/// Every file of at least `length` bytes below `folder`.
fn bodies(folder: &Path, length: u64) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(bodies(&entry.path(), length));
        } else if kind.is_file() && entry.metadata().unwrap().len() >= length {
            found.push(entry.path());
        }
    }
    found
}

/// Flips a bit at each of `offsets` in the stored body.
fn damage(cluster: &Path, offsets: &[u64]) {
    let folder = cluster.join("store/bodies");
    let [body] = &bodies(&folder, LENGTH)[..] else { panic!("not one body in {folder:?}") };
    let file: File = OpenOptions::new().read(true).write(true).open(body).unwrap();
    for offset in offsets {
        let mut byte = [0];
        file.read_exact_at(&mut byte, *offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], *offset).unwrap();
    }
}

fn ask(cluster: &Cluster, node: usize) -> Vec<u8> {
    let reply = cluster.edge(node).get(TARGET).unwrap();
    assert_eq!(reply.head.status, 200);
    reply.body
}

#[test]
fn a_response_goes_on_when_the_disk_has_lost_a_chunk() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let setup = Setup::new(folder.path(), origin.url()).members(1, 2);
    let cluster = setup.start();
    let body = ask(&cluster, 0);
    let is_right = |cluster: &Cluster, node: usize| {
        assert!(ask(cluster, node) == body, "node {node} sent wrong bytes");
    };
    is_right(&cluster, 1);
    let data = [cluster.member_data("node-0"), cluster.member_data("node-1")];
    assert!(cluster.stop().success());

    // Two chunks of one node: the other node has them.
    damage(&data[0], &[3_000_000, 8_999_999]);
    let cluster = setup.start();
    is_right(&cluster, 0);
    assert!(cluster.metric("node-0", "shoal_store_corrupt_chunks_total") >= 1.0);
    is_right(&cluster, 0);
    assert_eq!(origin.requests(), 1, "a node had what the other had lost");
    assert!(cluster.stop().success());

    // Both nodes: the origin has them.
    damage(&data[0], &[5_000_000]);
    damage(&data[1], &[5_000_000]);
    let cluster = setup.start();
    is_right(&cluster, 0);
    is_right(&cluster, 1);
    assert_eq!(origin.requests(), 2);
    assert!(origin.body(TARGET) == body, "it was never right");
    assert!(cluster.stop().success());
}
