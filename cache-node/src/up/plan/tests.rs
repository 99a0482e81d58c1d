//! What `shoal up` is asked for, and what it refuses.

use std::collections::BTreeSet;

use super::*;

fn record(super_nodes: u16, nodes: u16, base_port: u16) -> Record {
    Record::new("up-1".into(), base_port, super_nodes, nodes)
}

fn refused(options: &UpOptions, record: Option<&Record>) -> String {
    let error = Plan::new(options, record).unwrap_err();
    assert!(error.is_usage(), "{error}");
    error.to_string()
}

#[test]
fn ports_are_where_they_are_documented() {
    let plan = Plan::new(&UpOptions::default(), None).unwrap();
    let [node, superior] = [&plan.nodes[2], &plan.super_nodes[1]];
    assert_eq!(node.edge, Some(loopback(18_082)));
    assert_eq!(node.admin, loopback(18_182));
    assert_eq!(node.cluster, loopback(18_382));
    assert_eq!(superior.admin, loopback(18_281));
    assert_eq!(superior.cluster, loopback(18_481));
    assert_eq!(plan.origin, "http://127.0.0.1:18580");
    assert_eq!((plan.super_nodes.len(), plan.nodes.len()), (3, 3));
    let founders: Vec<_> = plan.members().filter(|m| m.bootstrap).map(|m| &m.name).collect();
    assert_eq!(founders, ["super-0"]);
}

#[test]
fn the_largest_cluster_has_a_port_for_everyone() {
    let options = UpOptions {
        super_nodes: Some(7),
        nodes: Some(NODES_MAX),
        base_port: Some(BASE_PORT_MAX),
        ..UpOptions::default()
    };
    let listeners = Plan::new(&options, None).unwrap().listeners();
    let distinct: BTreeSet<_> = listeners.iter().map(|(address, _)| address).collect();
    assert_eq!(listeners.len(), 7 * 2 + 50 * 3 + 1);
    assert_eq!(distinct.len(), listeners.len());
}

#[test]
fn counts_and_ports_have_bounds() {
    let wrong = [
        (UpOptions { super_nodes: Some(2), ..UpOptions::default() }, "1, 3, 5 or 7"),
        (UpOptions { super_nodes: Some(9), ..UpOptions::default() }, "1, 3, 5 or 7"),
        (UpOptions { nodes: Some(51), ..UpOptions::default() }, "0 to 50"),
        (UpOptions { base_port: Some(80), ..UpOptions::default() }, "1024 to 65035"),
        (UpOptions { base_port: Some(65_100), ..UpOptions::default() }, "1024 to 65035"),
        (
            UpOptions { store_budget: Some("lots".into()), ..UpOptions::default() },
            "--store-budget is",
        ),
        (UpOptions { store_budget: Some("1MiB".into()), ..UpOptions::default() }, "16 MiB"),
        (UpOptions { hosts: vec!["a:80".into()], ..UpOptions::default() }, "--host is"),
        (UpOptions { unknown_host: Some(500), ..UpOptions::default() }, "421 or 404"),
    ];
    for (options, expected) in wrong {
        let refused = refused(&options, None);
        assert!(refused.contains(expected), "{refused}");
    }
}

#[test]
fn a_cluster_that_is_there_goes_on_and_grows() {
    let kept = record(3, 5, 20_000);
    let plan = Plan::new(&UpOptions::default(), Some(&kept)).unwrap();
    assert_eq!((plan.super_nodes.len(), plan.nodes.len(), plan.base_port), (3, 5, 20_000));
    let more = UpOptions { super_nodes: Some(5), nodes: Some(6), ..UpOptions::default() };
    let plan = Plan::new(&more, Some(&kept)).unwrap();
    assert_eq!((plan.super_nodes.len(), plan.nodes.len()), (5, 6));
}

#[test]
fn a_cluster_never_shrinks_or_moves() {
    let kept = record(3, 5, 20_000);
    let fewer = UpOptions { nodes: Some(4), ..UpOptions::default() };
    let told = refused(&fewer, Some(&kept));
    assert!(told.contains("--nodes is 4") && told.contains("another --data-dir"), "{told}");
    let moved = UpOptions { base_port: Some(20_001), ..UpOptions::default() };
    assert!(refused(&moved, Some(&kept)).contains("20000"));
}

#[test]
fn the_site_serves_loopback_and_the_origins_name() {
    let of = |origin: &str, more: &[&str]| {
        let options = UpOptions {
            origin: Some(origin.into()),
            hosts: more.iter().map(|host| (*host).to_owned()).collect(),
            ..UpOptions::default()
        };
        Plan::new(&options, None).map(|plan| plan.site.hosts)
    };
    let hosts = of("https://CDN.example.com:8443/", &["Shop.example.com"]).unwrap();
    let expected = ["localhost", "127.0.0.1", "[::1]", "cdn.example.com", "shop.example.com"];
    assert_eq!(hosts, expected);
    assert_eq!(of("http://127.0.0.1:8000", &[]).unwrap().len(), 3);
    for wrong in ["example.com", "ftp://a", "http://", "/path", "http://u:p@a", "http://a/base"] {
        assert!(of(wrong, &[]).unwrap_err().to_string().contains("--origin"), "{wrong}");
    }
}
