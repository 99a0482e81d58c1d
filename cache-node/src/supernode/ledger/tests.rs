//! Sessions by script. The lease is 6 s: trust lasts 6.5 s, acknowledgements are due after 1 s.

use super::*;

const A: NodeId = NodeId(1);

fn ledger() -> Ledger {
    Ledger::new(Timing::default(), 0)
}

fn open(ledger: &mut Ledger, now_ms: u64, session_id: u64, fence_position: u64) -> Vec<u64> {
    let opened = Opened { session_id, node: A, keeps_itself: false, fence_position };
    let superseded = ledger.open(now_ms, opened);
    ledger.welcomed(now_ms, session_id, fence_position);
    superseded
}

#[test]
fn a_member_that_acknowledges_owes_nothing() {
    let mut ledger = ledger();
    open(&mut ledger, 0, 1, 5);
    assert_eq!(ledger.debts(10, 5)[&A], Debt::Acked);
    ledger.offered(10, 1, 9);
    assert_eq!(ledger.debts(10, 9)[&A], Debt::Owes(6_500));
    assert!(ledger.heard(500, 1, true), "it has a second to acknowledge");
    ledger.acked(1, 9);
    assert_eq!(ledger.debts(600, 9)[&A], Debt::Acked);
}

#[test]
fn the_first_heartbeat_acknowledges_the_welcome() {
    let mut ledger = ledger();
    ledger.open(0, Opened { session_id: 1, node: A, keeps_itself: false, fence_position: 3 });
    ledger.welcomed(0, 1, 8);
    assert_eq!(ledger.debts(1, 8)[&A], Debt::Owes(6_500));
    assert!(ledger.heard(500, 1, true));
    assert_eq!(ledger.debts(501, 8)[&A], Debt::Acked);
    ledger.offered(600, 1, 9);
    assert!(ledger.heard(700, 1, true));
    assert_eq!(ledger.debts(701, 9)[&A], Debt::Owes(7_200), "only the welcome is acknowledged so");
}

#[test]
fn a_member_that_does_not_acknowledge_loses_its_trust() {
    let mut ledger = ledger();
    open(&mut ledger, 0, 1, 0);
    ledger.offered(1_000, 1, 9);
    assert!(ledger.heard(1_999, 1, true));
    assert!(!ledger.heard(2_000, 1, true));
    assert_eq!(ledger.debts(8_498, 9)[&A], Debt::Owes(8_499));
    assert_eq!(ledger.debts(8_499, 9)[&A], Debt::Expired);
    ledger.acked(1, 9);
    assert!(ledger.heard(8_500, 1, true), "late is better than never");
}

#[test]
fn many_fences_are_owed_one_by_one() {
    let mut ledger = ledger();
    open(&mut ledger, 0, 1, 0);
    for n in 1..=2_000 {
        ledger.offered(n * 10, 1, n);
        ledger.acked(1, n.saturating_sub(20));
        assert!(ledger.heard(n * 10, 1, true), "it is never later than 200 ms");
    }
    assert_eq!(ledger.debts(20_000, 1_980)[&A], Debt::Acked);
    assert!(!ledger.heard(20_000 + 1_000, 1, true), "it fell silent");
}

#[test]
fn a_super_node_out_of_touch_vouches_for_nobody() {
    let mut ledger = ledger();
    open(&mut ledger, 0, 1, 0);
    assert!(!ledger.heard(500, 1, false));
    assert_eq!(ledger.debts(6_499, 1)[&A], Debt::Owes(6_500));
}

#[test]
fn a_broken_session_counts_until_its_trust_is_over() {
    let mut ledger = ledger();
    open(&mut ledger, 0, 1, 0);
    ledger.heard(1_000, 1, true);
    ledger.closed(1_100, 1, false);
    assert!(ledger.has_ended(1));
    assert!(ledger.lost(6_999).is_empty());
    assert_eq!(ledger.lost(7_000), [(A, 1)]);
    ledger.settled(1);
    assert!(ledger.lost(7_000).is_empty());
    ledger.sweep(7_499);
    assert_eq!(ledger.debts(7_499, 9)[&A], Debt::Owes(7_500));
    ledger.sweep(7_500);
    assert!(ledger.debts(7_500, 9).is_empty());
}

#[test]
fn a_member_that_leaves_is_lost_soon() {
    let mut ledger = ledger();
    open(&mut ledger, 0, 1, 0);
    ledger.closed(100, 1, true);
    assert!(ledger.lost(1_099).is_empty());
    assert_eq!(ledger.lost(1_100), [(A, 1)]);
}

#[test]
fn a_member_that_is_back_supersedes_itself() {
    let mut ledger = ledger();
    open(&mut ledger, 0, 1, 0);
    assert_eq!(open(&mut ledger, 2_000, 2, 4), [1]);
    assert!(ledger.has_ended(1) && !ledger.has_ended(2));
    assert!(!ledger.heard(2_001, 1, true), "nobody is vouched for twice");
    assert_eq!(ledger.debts(2_002, 4)[&A], Debt::Acked, "it is the same member");
    assert_eq!(ledger.open_count(), 1);
}

#[test]
fn super_nodes_look_after_themselves() {
    let mut ledger = ledger();
    ledger.open(0, Opened { session_id: 1, node: A, keeps_itself: true, fence_position: 0 });
    ledger.closed(0, 1, false);
    assert!(ledger.lost(100_000).is_empty());
    ledger.sweep(100_000);
    assert!(!ledger.knows(1));
}

#[test]
fn nobody_acknowledges_what_was_never_sent() {
    let mut ledger = ledger();
    open(&mut ledger, 0, 1, 0);
    ledger.acked(1, 1_000_000);
    assert_eq!(ledger.debts(1, 5)[&A], Debt::Owes(6_500));
}
