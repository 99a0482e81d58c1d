//! The status page in a real browser: with no data, under load, with a swarm, with members lost.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{Browser, Client, Cluster, Origin, Setup, turn, until};

/// For the page to show what has happened.
const SHOWN: Duration = Duration::from_secs(20);
/// For the tier to miss a member, and the page to show it.
const MISSED: Duration = Duration::from_secs(60);
/// 16 chunks of a MiB.
const BIG: &str = "/o/16777216/big";

fn row(browser: &mut Browser, member: &str) -> String {
    let script = "return [...document.querySelectorAll('#member-rows tr')]
        .map((row) => row.innerText).find((text) => text.startsWith(arguments[0])) ?? ''";
    browser.run(script, json!([member])).as_str().unwrap().to_owned()
}

fn ask_for_many(cluster: &Cluster) {
    for round in 0..3 {
        for object in 0..12 {
            let target = format!("/o/40000/page-{object}");
            let reply = cluster.edge((object + round) % 3).get(&target).unwrap();
            assert_eq!(reply.head.status, 200);
        }
    }
}

#[test]
fn a_browser_shows_the_cluster_and_its_losses() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let Some(mut browser) = Browser::start(folder.path()) else { return };
    let origin = Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(3, 3).start();
    let page = cluster.admin_url("node-0").to_owned();

    // No data yet.
    browser.open(&format!("{page}/"));
    browser.until_says("#connection", "live", SHOWN);
    assert_eq!(browser.count("#member-rows tr"), 6);
    browser.until_says("#tiles", "healthy", SHOWN);
    assert!(browser.text("#tiles").contains("Offload\n–"), "{}", browser.text("#tiles"));
    assert!(browser.text("#tiles").contains("3 of 3 voters"));
    browser.keep("no-data");

    // The keyboard reaches all of it, and what is drawn has a name.
    assert_eq!(browser.tab(), "skip");
    let unnamed = "return [...document.querySelectorAll('svg, meter, progress')]
        .filter((one) => !one.getAttribute('aria-label')).length
        + [...document.querySelectorAll('input')].filter((one) => !one.labels.length).length";
    assert_eq!(browser.run(unnamed, json!([])), 0);

    // Under load the figures move.
    until("the page has drawn what it saw", MISSED, || {
        ask_for_many(&cluster);
        (browser.count("#requests path") == 5 && browser.count("#bytes path") == 3).then_some(())
    });
    assert!(!browser.text("#tiles").contains("Offload\n–"));
    assert!(row(&mut browser, "node-1").contains("KiB"), "{}", row(&mut browser, "node-1"));

    // The swarm of an object: every node has all of it, from another one or from the origin.
    let url = format!("{}{BIG}", cluster.edge_url(0));
    thread::scope(|scope| {
        for node in 0..3 {
            let cluster = &cluster;
            scope.spawn(move || {
                let host = cluster.edge_url(0).trim_start_matches("http://").to_owned();
                let mut client = Client::for_host(cluster.edge_url(node), &host);
                let reply = client.get(BIG).unwrap();
                assert_eq!(reply.body.len(), 16 << 20);
            });
        }
    });
    let token = fs::read_to_string(cluster.data_dir().join("admin-token")).unwrap();
    browser.fill("#swarm-url", &url);
    browser.fill("#swarm-token", "wrong");
    browser.run("document.querySelector('#swarm-form button').click()", json!([]));
    browser.until_says("#swarm-state", "does not know the token", SHOWN);
    browser.fill("#swarm-token", token.trim());
    browser.run("document.querySelector('#swarm-form button').click()", json!([]));
    browser.until_says("#swarm-state", "3 of 3 nodes have all of it", SHOWN);
    assert_eq!(browser.count("#swarm .strips svg"), 3);
    let links =
        browser.run("return document.querySelector('#swarm details').textContent", json!([]));
    let links = links.as_str().unwrap().to_owned();
    assert!(links.contains("origin → ") && links.contains("node-"), "{links}");
    browser.keep("light");
    browser.dark(true);
    let ground = "return getComputedStyle(document.body).backgroundColor";
    assert_eq!(browser.run(ground, json!([])), Value::from("rgb(16, 21, 29)"));
    browser.keep("dark");

    // A node is lost, then the member that is asked.
    assert_eq!(wrong_with(&mut browser), Vec::<String>::new());
    cluster.kill("node-2");
    until("the page shows the loss", MISSED, || {
        let row = row(&mut browser, "node-2");
        (row.contains("silent") || row.contains("down")).then_some(())
    });
    browser.until_says("#tiles", "5 of 6 up", MISSED);
    browser.until_says("#events", "lease ran out", SHOWN);
    browser.keep("node-down");
    cluster.kill("node-0");
    browser.until_says("#connection", "has not answered since", SHOWN);
}

/// What the page complained of, but for the refused token.
fn wrong_with(browser: &mut Browser) -> Vec<String> {
    let complaints = browser.complaints().into_iter();
    complaints.filter(|line| !(line.contains("/v1/swarm") && line.contains("401"))).collect()
}
