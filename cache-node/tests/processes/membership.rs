//! The tier of real processes changes, replaces a super-node that lost its disk, and goes on from one
//! survivor when most are lost.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::common::{Cluster, Origin, Setup, run, shoal, turn, until};

/// For what takes a session lease and a new leader.
const SETTLE_DEADLINE: Duration = Duration::from_secs(45);

fn members(cluster: &Cluster, asked: &str) -> Option<Value> {
    let finished = cluster.control(asked, &["members", "--json", "--timeout", "15s"]);
    let read = serde_json::from_str(&finished.output).ok();
    if read.is_none() {
        println!("{asked}: shoal members: {:?} {}", finished.code, finished.errors);
    }
    read
}

/// Names of the tier's voters, sorted.
fn voters(cluster: &Cluster, asked: &str) -> Option<Vec<String>> {
    let document = members(cluster, asked)?;
    let voters = document["members"].as_array()?.iter().filter(|m| m["role"] == "voter");
    Some(voters.map(|m| m["name"].as_str().unwrap().to_owned()).collect())
}

fn id(cluster: &Cluster, name: &str) -> String {
    let document = members(cluster, "super-0").unwrap();
    let all = document["members"].as_array().unwrap();
    let found = all.iter().find(|member| member["name"] == name).unwrap();
    found["node_id"].as_str().unwrap().to_owned()
}

fn ask(cluster: &Cluster, target: &str) -> usize {
    let reply = cluster.edge(0).get(target).unwrap();
    assert_eq!(reply.head.status, 200, "{target}");
    reply.body.len()
}

/// SIGKILL, and the wait until its ports and its directory are free.
fn kill(cluster: &Cluster, name: &str) {
    cluster.kill(name);
    until(&format!("{name} is gone"), SETTLE_DEADLINE, || {
        cluster.readiness(name).is_none().then_some(())
    });
}

fn done(cluster: &Cluster, arguments: &[&str]) -> String {
    let finished = cluster.control("super-0", arguments);
    assert_eq!(finished.code, Some(0), "{arguments:?}: {}{}", finished.output, finished.errors);
    finished.output
}

#[test]
fn the_tier_changes_by_commands() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(3, 1).start();
    let all = ["super-0", "super-1", "super-2"].map(str::to_owned);
    // Asked of a node, the command turns to a super-node.
    assert_eq!(voters(&cluster, "node-0").unwrap(), all);
    let seen = members(&cluster, "super-0").unwrap()["membership"].as_str().unwrap().to_owned();

    let told = done(&cluster, &["members", "demote", "super-2"]);
    assert!(told.contains("learner, held back"), "{told}");
    until("it is content as a learner", SETTLE_DEADLINE, || {
        cluster.readiness("super-2").filter(|(code, why)| *code == 200 && why.contains("held back"))
    });
    let stale = ["members", "promote", "super-2", "--expect", &seen];
    let stale = cluster.control("super-0", &stale);
    assert_eq!(stale.code, Some(1), "{}", stale.output);
    assert!(stale.errors.contains(&format!("not {seen} as expected")), "{}", stale.errors);
    let slip = cluster.control("super-0", &["members", "promote", "supper-2"]);
    assert!(slip.code == Some(64) && slip.errors.contains("did you mean"), "{}", slip.errors);
    done(&cluster, &["members", "promote", "super-2"]);
    done(&cluster, &["members", "transfer", "super-2"]);
    assert_eq!(members(&cluster, "super-0").unwrap()["leader"], "super-2");

    // It leads, hands that on, and is out for ever.
    done(&cluster, &["members", "remove", "super-2"]);
    assert_eq!(voters(&cluster, "node-0").unwrap(), all[..2]);
    until("it says so", SETTLE_DEADLINE, || {
        let (code, why) = cluster.readiness("super-2")?;
        (code == 503 && why.contains("removed from the tier")).then_some(())
    });
    assert_eq!(ask(&cluster, "/o/300000/after"), 300_000);
    kill(&cluster, "super-2");
    let mut refused = cluster.launch("super-2");
    assert!(!refused.wait(SETTLE_DEADLINE).success());
    assert!(refused.last_words().contains("removed from the tier"), "{}", refused.last_words());
    fs::remove_dir_all(cluster.member_data("super-2")).unwrap();
    let _new = cluster.revive("super-2");
    assert_eq!(voters(&cluster, "node-0").unwrap(), all);
}

#[test]
fn a_founder_that_lost_its_disk_takes_its_former_place() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(3, 1).start();
    assert_eq!(ask(&cluster, "/o/300000/before"), 300_000);
    let former = id(&cluster, "super-0");
    kill(&cluster, "super-0");
    fs::remove_dir_all(cluster.member_data("super-0")).unwrap();
    let _wiped = cluster.revive("super-0");
    let document = members(&cluster, "super-1").unwrap();
    assert_eq!(document["removed"], serde_json::json!([former]), "{document}");
    assert_eq!(voters(&cluster, "super-1").unwrap(), ["super-0", "super-1", "super-2"]);
    assert_ne!(id(&cluster, "super-0"), former);
}

#[test]
fn one_survivor_of_three_goes_on() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(3, 1).start();
    assert_eq!(ask(&cluster, "/o/300000/before"), 300_000);
    kill(&cluster, "super-1");
    kill(&cluster, "super-2");
    let purge_all = ["purge", "--site", "demo", "--yes", "--timeout", "40s"];
    let site = site(&cluster);
    let purge = purge_all.map(|word| if word == "demo" { site.as_str() } else { word });
    let lost = cluster.control("node-0", &purge);
    assert_ne!(lost.code, Some(0), "a purge without a majority: {}", lost.output);

    let data = cluster.member_data("super-0");
    let recover = ["recover", "--json", "--data-dir", data.to_str().unwrap()];
    let running = run(&mut shoal(&recover));
    assert!(running.errors.contains("in use by another process"), "{}", running.errors);
    kill(&cluster, "super-0");
    let seen: Value = serde_json::from_str(&run(&mut shoal(&recover)).output).unwrap();
    let dropped: Vec<_> = seen["dropped"].as_array().unwrap().iter().map(|d| &d["name"]).collect();
    assert_eq!(dropped.len(), 2, "{seen}");
    let wrong = run(shoal(&recover).args(["--confirm", "recover-super-0-00000000"]));
    assert!(wrong.code == Some(1) && wrong.errors.contains("does not confirm"), "{}", wrong.errors);
    let token = seen["token"].as_str().unwrap();
    let recovered = run(shoal(&recover).args(["--confirm", token]));
    assert_eq!(recovered.code, Some(0), "{}", recovered.errors);

    let _survivor = cluster.revive("super-0");
    assert_eq!(voters(&cluster, "super-0").unwrap(), ["super-0"]);
    // What was there is still there, and the tier takes purges and new objects again.
    assert_eq!(ask(&cluster, "/o/300000/before"), 300_000);
    until("a purge goes through", SETTLE_DEADLINE, || {
        (cluster.control("node-0", &purge).code == Some(0)).then_some(())
    });
    let before = origin.requests();
    assert_eq!(ask(&cluster, "/o/300000/before"), 300_000);
    assert_eq!(origin.requests(), before + 1, "it was purged");

    // The lost ones were not lost after all: they find out, and stay out.
    let (_one, _two) = (cluster.launch("super-1"), cluster.launch("super-2"));
    for name in ["super-1", "super-2"] {
        until(&format!("{name} knows"), SETTLE_DEADLINE, || {
            let (code, why) = cluster.readiness(name)?;
            (code == 503 && why.contains("recovered without")).then_some(())
        });
    }
    assert_eq!(voters(&cluster, "super-0").unwrap(), ["super-0"]);
}

/// The name of the cluster's site.
fn site(cluster: &Cluster) -> String {
    let config = fs::read_to_string(cluster.config_file("node-0")).unwrap();
    let site = config.split("[[site]]").nth(1).unwrap();
    let name = site.lines().find_map(|line| line.trim().strip_prefix("name = ")).unwrap();
    name.trim_matches('"').to_owned()
}
