//! Names and types as Prometheus sees them.

use super::*;

#[test]
fn all_names_are_distinct_and_prefixed() {
    let m = Metrics::new().unwrap();
    let edge = EdgeMetrics::new(&m).unwrap();
    OriginMetrics::new(&m).unwrap();
    TransferMetrics::new(&m).unwrap();
    StoreMetrics::new(&m).unwrap();
    DirectoryMetrics::new(&m).unwrap();
    IndexMetrics::new(&m).unwrap();
    ModeMetrics::new(&m).unwrap();
    DrainMetrics::new(&m).unwrap();
    RefusalMetrics::new(&m).unwrap();
    AdminMetrics::new(&m).unwrap();
    edge.requests.of(Tier::Peer).inc();
    let text = String::from_utf8(m.text().unwrap()).unwrap();
    assert!(text.contains("shoal_edge_requests_total{tier=\"peer\"} 1"), "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("shoal_") || line.starts_with("process_"), "{line}");
    }
}
