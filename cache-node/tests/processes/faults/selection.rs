//! Nodes that choose the super-nodes among themselves: how many they become, who takes over from
//! whom, and what a restart, a pause and a return cost.

use std::collections::BTreeSet;
use std::time::Duration;

use super::load::{Load, Plan, loadtest};
use crate::common::{Cluster, Origin, Setup, turn, until};

/// For the wanted number of voters after a start, and for a member that is back to be seen.
const SETTLE_DEADLINE: Duration = Duration::from_secs(30);
/// A voter that is away for longer is replaced: the flag, and what follows from it with two seconds
/// to notice and some to catch up on a busy machine.
const REPLACE_AFTER: &str = "12s";
const REPLACED_DEADLINE: Duration = Duration::from_secs(24);

/// What a node that is not about to be lost says.
struct Seen {
    leader: String,
    voters: BTreeSet<String>,
    standbys: BTreeSet<String>,
}

fn seen(cluster: &Cluster, asked: &str) -> Option<Seen> {
    let status = cluster.status(asked);
    let mut seen = Seen {
        leader: status["leader"].as_str()?.to_owned(),
        voters: BTreeSet::new(),
        standbys: BTreeSet::new(),
    };
    for member in status["members"].as_array()? {
        assert_eq!(member["auto"], true, "{member}");
        let name = member["name"].as_str()?.to_owned();
        match (member["voter"] == true, member["state"] == "up" && member["role"] == "node") {
            (true, _) => seen.voters.insert(name),
            (false, true) => seen.standbys.insert(name),
            (false, false) => false,
        };
    }
    Some(seen)
}

/// Waits until `count` vote and all others of `all` stand by.
fn settled(cluster: &Cluster, asked: &str, (count, all): (usize, usize)) -> Seen {
    until(&format!("{count} voters of {all}"), SETTLE_DEADLINE, || {
        let seen = seen(cluster, asked)?;
        (seen.voters.len() == count && seen.standbys.len() == all - count).then_some(seen)
    })
}

/// A voter to be lost, and another that can be asked meanwhile.
fn victim(seen: &Seen) -> (String, String) {
    let mut followers = seen.voters.iter().filter(|name| **name != seen.leader);
    (followers.next_back().unwrap().clone(), seen.leader.clone())
}

fn edges<'a>(cluster: &'a Cluster, but: &str) -> Vec<&'a str> {
    let others = (0..5).filter(|i| format!("node-{i}") != but);
    others.map(|i| cluster.edge_url(i)).collect()
}

#[test]
fn three_of_five_vote_and_a_lost_one_is_replaced() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let flags = ["--auto", "5", "--replace-after", REPLACE_AFTER];
    let cluster = Setup::new(folder.path(), origin.url()).flags(&flags).start();
    let first = settled(&cluster, "node-0", (3, 5));
    let (victim, asked) = victim(&first);
    let mut load = Load::start(Plan {
        command: loadtest(),
        edges: &edges(&cluster, ""),
        origin: origin.url(),
        seconds: 30,
        folder: folder.path(),
        origin_ratio: "1.2",
    });
    load.use_edges(&edges(&cluster, &victim));
    cluster.kill(&victim);
    let then = until("another votes in its place", REPLACED_DEADLINE, || {
        let seen = seen(&cluster, &asked)?;
        (seen.voters.len() == 3 && !seen.voters.contains(&victim)).then_some(seen)
    });
    let new: Vec<_> = then.voters.difference(&first.voters).collect();
    assert!(new.len() == 1 && first.standbys.contains(new[0]), "{new:?}");
    load.still_runs();
    let mut revived = vec![cluster.revive(&victim)];
    let back = settled(&cluster, &asked, (3, 5));
    assert_eq!(back.voters, then.voters, "who comes back stands by");
    load.passes();

    for i in 0..5 {
        let name = format!("node-{i}");
        match name == victim {
            true => {
                let mut process = revived.remove(0);
                process.terminate();
                process.wait(SETTLE_DEADLINE);
            }
            false => cluster.stop_member(&name),
        }
        revived.push(cluster.revive(&name));
    }
    let after = settled(&cluster, "node-0", (3, 5));
    assert_eq!(after.voters, then.voters, "restarts in time cost no change");
    assert_eq!(cluster.edge(0).get("/o/1000/after").unwrap().head.status, 200);
}

#[test]
fn a_voter_that_slept_stands_by_and_is_chosen_again() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let flags = ["--auto", "4", "--replace-after", REPLACE_AFTER];
    let cluster = Setup::new(folder.path(), origin.url()).flags(&flags).start();
    let first = settled(&cluster, "node-0", (3, 4));
    let (sleeper, asked) = victim(&first);
    let asleep = cluster.pause(&sleeper);
    until("another votes in its place", REPLACED_DEADLINE, || {
        let seen = seen(&cluster, &asked)?;
        (seen.voters.len() == 3 && !seen.voters.contains(&sleeper)).then_some(())
    });
    drop(asleep);
    let then = settled(&cluster, &asked, (3, 4));
    assert!(then.standbys.contains(&sleeper));

    let (victim, asked) = victim(&then);
    cluster.kill(&victim);
    until("it is chosen again, on the log that it kept", REPLACED_DEADLINE, || {
        let seen = seen(&cluster, &asked)?;
        (seen.voters.contains(&sleeper) && !seen.voters.contains(&victim)).then_some(())
    });
    let asked: usize = asked.trim_start_matches("node-").parse().unwrap();
    assert_eq!(cluster.edge(asked).get("/o/1000/after").unwrap().head.status, 200);
}
