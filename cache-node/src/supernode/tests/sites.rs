//! Sites: changed for one revision, told to everybody with a session, waited for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use shoal_proto::wire::v1::{self, SiteSource};

use super::PATIENCE;
use super::rig::{Member, Rig};

fn put(name: &str) -> v1::SiteDefinition {
    let definition = b"{}".to_vec().into();
    let source = SiteSource::Call.into();
    v1::SiteDefinition { name: name.into(), definition, source, position: 0 }
}

async fn change(of: &Member, change: v1::ChangeSites) -> v1::ChangeSitesReply {
    let request = v1::ChangeSitesRequest { node_id: of.info.node_id, change: Some(change) };
    let mut client = of.client.clone();
    let reply = client.change_sites(request);
    tokio::time::timeout(PATIENCE, reply).await.unwrap().unwrap().into_inner()
}

async fn has(member: &Member, revision: u64) -> v1::SiteTable {
    let mut sites = member.told.sites.subscribe();
    let told = tokio::time::timeout(PATIENCE, sites.wait_for(|table| table.revision == revision));
    told.await.unwrap().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_everybody_and_names_who_is_silent() {
    let rig = Rig::new();
    let one = rig.single().await;
    let two = rig.start("s2", 2, tempfile::TempDir::new().unwrap(), &[&one]).await;
    super::rig::eventually("a second super-node", || two.node.status().in_touch).await;
    let a = rig.member("a", 11, &one).await;
    let b = rig.member("b", 12, &two).await;
    assert_eq!(a.welcome.sites_revision, 0);

    let made = change(&a, v1::ChangeSites { base: 0, put: vec![put("docs")], drop: vec![] }).await;
    assert!(!made.refused);
    let applied = made.applied.unwrap();
    assert_eq!((applied.applied_on, applied.waiting_for), (2, vec![]));
    assert_eq!(has(&a, made.revision).await, has(&b, made.revision).await);

    let late = change(&b, v1::ChangeSites { base: 0, put: vec![put("apt")], drop: vec![] }).await;
    assert_eq!((late.refused, late.revision), (true, made.revision));

    // Whoever says nothing is named; a change that changes nothing asks the same again.
    b.told.sulks.store(true, Ordering::Relaxed);
    let drop = vec!["docs".to_owned()];
    let gone = change(&a, v1::ChangeSites { base: made.revision, put: vec![], drop }).await;
    let applied = gone.applied.unwrap();
    assert_eq!((applied.applied_on, applied.waiting_for), (1, vec!["b".to_owned()]));
    b.leave().await;
    let nothing = v1::ChangeSites { base: gone.revision, ..Default::default() };
    let again = change(&a, nothing).await;
    assert_eq!(again.revision, gone.revision);
    let applied = again.applied.unwrap();
    assert_eq!((applied.applied_on, applied.waiting_for), (1, vec![]));

    // A session that begins now is told at once; the sites of before are a purge of their own.
    let c = rig.member("c", 13, &two).await;
    assert_eq!(c.welcome.sites_revision, gone.revision);
    let told = has(&c, gone.revision).await;
    assert_eq!((told.sites.len(), told.removed.len()), (0, 1));
    assert_eq!(c.welcome.fences.unwrap().position, gone.revision);
    let read = v1::SitesRequest { node_id: 13 };
    let mut client = c.client.clone();
    let read = tokio::time::timeout(Duration::from_secs(5), client.sites(read)).await;
    assert_eq!(read.unwrap().unwrap().into_inner(), told);
}
