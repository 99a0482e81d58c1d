//! What a node serves of index and file, and what it keeps.

use super::*;

fn site(name: &str, host: &str) -> SiteConfig {
    definition::read(name, &serde_json::json!({ "hosts": [host], "origin": "http://o.test" }))
        .unwrap()
}

fn indexed(name: &str, host: &str, position: u64) -> v1::SiteDefinition {
    v1::SiteDefinition { position, ..seed(&site(name, host)) }
}

fn table(sites: &[v1::SiteDefinition], removed: &[(&str, u64)]) -> v1::SiteTable {
    let removed = removed
        .iter()
        .map(|(name, position)| v1::RemovedSite { name: (*name).to_owned(), position: *position });
    let removed: Vec<_> = removed.collect();
    let positions = sites.iter().map(|site| site.position);
    let revision = positions.chain(removed.iter().map(|removed| removed.position)).max();
    v1::SiteTable { revision: revision.unwrap_or_default(), sites: sites.to_vec(), removed }
}

fn names(sites: &[SiteConfig]) -> Vec<&str> {
    sites.iter().map(|site| site.name.as_str()).collect()
}

#[test]
fn where_file_and_index_differ_the_index_counts() {
    let file = [site("docs", "old.test"), site("apt", "apt.test"), site("gone", "gone.test")];
    let served = served::of(&v1::SiteTable::default(), &file, &[]);
    assert_eq!(names(&served.pending), ["docs", "apt", "gone"], "nothing is known yet");
    assert!(served.sites.find("old.test").is_some());

    let known = table(&[indexed("docs", "new.test", 7)], &[("gone", 9)]);
    let served = served::of(&known, &file, &[]);
    assert_eq!(
        (names(&served.configs), names(&served.pending)),
        (vec!["docs", "apt"], vec!["apt"])
    );
    assert!(served.sites.find("old.test").is_none() && served.sites.find("new.test").is_some());
    let notices: Vec<_> = served.notices.into_iter().collect();
    let (docs, gone) = ("docs".to_owned(), "gone".to_owned());
    let expected =
        [Notice::Differs { site: docs, position: 7 }, Notice::Deleted { site: gone, position: 9 }];
    assert_eq!(notices, expected);
    assert!(served.is_whole);

    let same = served::of(&table(&[indexed("docs", "old.test", 7)], &[]), &file[..1], &[]);
    assert!(same.notices.is_empty() && same.pending.is_empty());
}

#[test]
fn a_host_of_the_file_that_another_site_has_is_not_served_twice() {
    let known = table(&[indexed("docs", "Docs.test", 7)], &[]);
    let served = served::of(&known, &[site("mine", "docs.test")], &[]);
    let notice = Notice::Clashes { site: "mine".to_owned(), host: "docs.test".to_owned() };
    assert_eq!(served.notices, [notice].into());
    assert_eq!((served.pending.len(), served.configs.len()), (0, 1));
    assert_eq!(served.sites.find("docs.test").unwrap().name(), "docs");
}

#[test]
fn a_site_that_cannot_be_read_stays_as_it_was() {
    let strange = |name: &str| v1::SiteDefinition {
        definition: b"{\"of\": \"tomorrow\"}".to_vec().into(),
        ..indexed(name, "x.test", 8)
    };
    let known = table(&[strange("docs"), strange("new"), indexed("apt", "apt.test", 7)], &[]);
    let served = served::of(&known, &[], &[site("docs", "docs.test")]);
    assert!(!served.is_whole);
    assert_eq!(names(&served.configs), ["docs", "apt"]);
    assert_eq!(served.notices.len(), 2, "{:?}", served.notices);
    assert!(served.sites.find("docs.test").is_some());
    // Two that cannot stand beside one another: nobody may write that, and it breaks nobody.
    let both = table(&[indexed("docs", "a.test", 7), indexed("apt", "a.test", 8)], &[]);
    let served = served::of(&both, &[], &[]);
    assert_eq!((names(&served.configs), served.is_whole), (vec!["docs"], false));
}

#[tokio::test]
async fn a_start_without_the_tier_has_the_last_known_sites() {
    let folder = tempfile::tempdir().unwrap();
    let file = || vec![site("docs", "old.test"), site("gone", "gone.test")];
    let open = || SiteKeeper::open(folder.path().to_owned(), file());
    let first = open().await;
    assert_eq!(first.here().revision, 0);
    assert!(first.current().get().find("old.test").is_some());
    let running = first.current().get().find("old.test").unwrap();

    let known = table(&[indexed("docs", "new.test", 7)], &[("gone", 9)]);
    assert!((first.here().take)(known.clone()));
    assert!(first.current().get().find("old.test").is_none());
    assert_eq!(running.name(), "docs", "whoever has it goes on with it");
    first.write().await;

    let second = open().await;
    assert_eq!((second.here().revision, &second.state().table), (9, &known));
    let sites = second.current().get();
    assert!(sites.find("new.test").is_some() && sites.find("gone.test").is_none());

    std::fs::write(folder.path().join(FILE), "{").unwrap();
    let third = open().await;
    assert_eq!(third.here().revision, 0, "what cannot be read is told of and left out");
}
