//! Peers that send wrong, short, late, reordered or endless bytes, and holders that hold no more:
//! the right bytes come all the same, from whoever is honest, or an honest error.

use super::*;

/// For a pull in which some peers bring nothing; far beyond what it takes.
const PULL_DEADLINE: Duration = Duration::from_secs(60);

async fn pulled_beside(way: Way, lie: Lie) -> Node {
    let (honest, taker) = (node_by(way, 1).await, node_by(way, 2).await);
    let body = body(LENGTH);
    let manifest = honest.hold(&body).await;
    let liar = liar(way, (body.clone(), lie), &honest.tasks).await;
    let live = taker.begin(Some(LENGTH), None).await;
    let (holders, gatherer) = ([honest.me.clone(), liar], taker.gatherer(&[]));
    let pull = gatherer.pull(&manifest, &holders, &live);
    let pulled = tokio::time::timeout(PULL_DEADLINE, pull).await;
    pulled
        .expect("the pull never ends")
        .unwrap_or_else(|error| panic!("{way:?}, {lie:?}: {error}"));
    live.finish(LENGTH as u64).await.unwrap();
    taker.holds(&body).await;
    taker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_an_honest_peer_no_lie_harms() {
    let lies = [Lie::Cut, Lie::Short, Lie::Late, Lie::Reordered, Lie::Endless, Lie::Unasked];
    for (way, lie) in Way::ALL.into_iter().flat_map(|way| lies.map(|lie| (way, lie))) {
        let taker = pulled_beside(way, lie).await;
        let bad = taker.metrics.bad_chunks.get();
        assert_eq!(bad, u64::from(matches!(lie, Lie::Cut)), "{way:?}, {lie:?}: {bad} bad chunks");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_holds_no_more_costs_a_question() {
    for way in Way::ALL {
        let taker = pulled_beside(way, Lie::Gone).await;
        assert_eq!(taker.metrics.bytes_in.get(), LENGTH as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_with_a_liar_the_pull_ends_in_an_honest_error() {
    let lies = [Lie::Cut, Lie::Unasked];
    for (way, lie) in Way::ALL.into_iter().flat_map(|way| lies.map(|lie| (way, lie))) {
        let (taker, other) = (node_by(way, 1).await, node_by(way, 2).await);
        let body = body(LENGTH);
        let manifest = other.hold(&body).await;
        let liar = liar(way, (body, lie), &other.tasks).await;
        let live = taker.begin(Some(LENGTH), None).await;
        let (holders, gatherer) = ([liar], taker.gatherer(&[]));
        let pull = gatherer.pull(&manifest, &holders, &live);
        let pulled = tokio::time::timeout(PULL_DEADLINE, pull).await;
        let failed = pulled.expect("the pull never ends");
        assert!(matches!(failed, Err(GatherError::Stuck { .. })), "{lie:?}: {failed:?}");
        drop(live);
        assert!(taker.store.get(&KEY).await.is_none(), "{lie:?}");
    }
}
