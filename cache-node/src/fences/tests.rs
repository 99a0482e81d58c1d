//! What covers what, and that a table answers as a plain list of all fences would.

use proptest::prelude::*;

use super::*;

fn key(n: u8) -> ObjectKey {
    ObjectKey::new([n; 32])
}

fn hard(matcher: Matcher) -> Fenced {
    Fenced { matcher, soft: false }
}

fn soft(matcher: Matcher) -> Fenced {
    Fenced { matcher, soft: true }
}

fn subject<'a>(key: &'a ObjectKey, labels: &'a [u64], fence_position: u64) -> Subject<'a> {
    Subject { key, site: "docs", labels, every_tag: false, fence_position }
}

#[test]
fn a_fence_covers_older_fills_of_what_it_matches() {
    let docs = || "docs".to_owned();
    let matching = [
        Matcher::Key(key(1)),
        Matcher::Site(docs()),
        Matcher::Prefix(docs(), 7),
        Matcher::Tag(docs(), 7),
    ];
    for matcher in matching {
        let (k, mut fences) = (key(1), Fences::default());
        fences.add(5, hard(matcher.clone()));
        assert_eq!(fences.verdict(&subject(&k, &[7], 4)), Verdict::Gone, "{matcher:?}");
        assert_eq!(fences.verdict(&subject(&k, &[7], 5)), Verdict::Clear, "{matcher:?}");
        fences.add(9, soft(matcher));
        assert_eq!(fences.verdict(&subject(&k, &[7], 4)), Verdict::Gone);
        assert_eq!(fences.verdict(&subject(&k, &[7], 5)), Verdict::Stale);
        assert_eq!(fences.verdict(&subject(&k, &[7], 9)), Verdict::Clear);
    }
    let other = || "apt".to_owned();
    for matcher in [Matcher::Key(key(2)), Matcher::Site(other()), Matcher::Tag(docs(), 8)] {
        let (k, mut fences) = (key(1), Fences::default());
        fences.add(5, hard(matcher.clone()));
        assert_eq!(fences.verdict(&subject(&k, &[7], 0)), Verdict::Clear, "{matcher:?}");
    }
}

#[test]
fn what_nobody_knows_the_labels_of_is_covered() {
    let k = key(1);
    for matcher in [Matcher::Prefix("docs".into(), 7), Matcher::Tag("docs".into(), 7)] {
        let mut fences = Fences::default();
        fences.add(5, hard(matcher));
        assert_eq!(fences.verdict(&subject(&k, &[], 4)), Verdict::Gone);
        assert_eq!(fences.verdict(&subject(&k, &[], 5)), Verdict::Clear);
        let elsewhere = Subject { site: "apt", ..subject(&k, &[], 4) };
        assert_eq!(fences.verdict(&elsewhere), Verdict::Clear);
    }
    let mut fences = Fences::default();
    fences.add(5, hard(Matcher::Tag("docs".into(), 7)));
    fences.add(6, hard(Matcher::Prefix("docs".into(), 8)));
    let tagged = Subject { every_tag: true, ..subject(&k, &[1], 4) };
    assert_eq!(fences.verdict(&tagged), Verdict::Gone);
    let later = Subject { fence_position: 5, ..tagged };
    assert_eq!(fences.verdict(&later), Verdict::Clear, "a prefix is no tag");
}

#[test]
fn matchers_round_trip_and_wrong_ones_are_refused() {
    let site = || "docs".to_owned();
    for matcher in [
        Matcher::Key(key(3)),
        Matcher::Site(site()),
        Matcher::Prefix(site(), 1),
        Matcher::Tag(site(), u64::MAX),
    ] {
        for fenced in [hard(matcher.clone()), soft(matcher.clone())] {
            assert_eq!(Fenced::try_from(&v1::FenceMatcher::from(&fenced)), Ok(fenced));
        }
    }
    let refused = |matcher| Fenced::try_from(&v1::FenceMatcher { matcher, soft: false });
    assert_eq!(refused(None).unwrap_err().field, "matcher");
    assert_eq!(refused(Some(Wire::Key(vec![1; 31].into()))).unwrap_err().field, "key");
    for name in [String::new(), "x".repeat(NAME_BYTES_MAX + 1)] {
        let tag = v1::LabelMatcher { site: name.clone(), label: 1 };
        assert_eq!(refused(Some(Wire::Site(name))).unwrap_err().field, "site");
        assert_eq!(refused(Some(Wire::Tag(tag))).unwrap_err().field, "site");
    }
}

fn any_fenced() -> impl Strategy<Value = Fenced> {
    let site = prop_oneof![Just("docs".to_owned()), Just("apt".to_owned())];
    let matcher = (0..4u8, site, 0..4u8).prop_map(|(kind, site, n)| match kind {
        0 => Matcher::Key(key(n)),
        1 => Matcher::Site(site),
        2 => Matcher::Prefix(site, n.into()),
        _ => Matcher::Tag(site, n.into()),
    });
    (matcher, any::<bool>()).prop_map(|(matcher, soft)| Fenced { matcher, soft })
}

fn matches(matcher: &Matcher, subject: &Subject<'_>) -> bool {
    let unknown = subject.labels.is_empty();
    match matcher {
        Matcher::Key(key) => key == subject.key,
        Matcher::Site(site) => site == subject.site,
        Matcher::Prefix(site, label) => {
            (subject.labels.contains(label) || unknown) && site == subject.site
        }
        Matcher::Tag(site, label) => {
            let any = unknown || subject.every_tag;
            (subject.labels.contains(label) || any) && site == subject.site
        }
    }
}

proptest! {
    #[test]
    fn a_table_answers_as_the_list_of_all_fences_would(
        fences in prop::collection::vec((1..60u64, any_fenced()), 0..40),
        forgotten in 0..60u64,
        (k, labels, every_tag, at) in
            (0..4u8, prop::collection::vec(0..6u64, 0..6), any::<bool>(), 0..60u64),
    ) {
        let mut table = Fences::default();
        for (position, fenced) in &fences {
            table.add(*position, fenced.clone());
        }
        table.forget_upto(forgotten);
        let k = key(k);
        let subject = Subject { key: &k, site: "docs", labels: &labels, every_tag, fence_position: at };
        let newest = |soft: bool| {
            let of = fences.iter().filter(|(position, fenced)| {
                // What is forgotten of a matcher is forgotten for good: its newest position counts.
                let newest = fences.iter().filter(|(_, other)| other == fenced).map(|(p, _)| *p).max();
                fenced.soft == soft && newest > Some(forgotten) && *position > forgotten
                    && matches(&fenced.matcher, &subject)
            });
            of.map(|(position, _)| *position).max().unwrap_or(0)
        };
        let expected = match () {
            () if at < newest(false) => Verdict::Gone,
            () if at < newest(true) => Verdict::Stale,
            () => Verdict::Clear,
        };
        prop_assert_eq!(table.verdict(&subject), expected);
        let covering = newest(false).max(newest(true));
        prop_assert_eq!(table.covering(&subject), Some(covering).filter(|newest| at < *newest));
        prop_assert!(table.after(0).is_sorted_by_key(|(position, _)| *position));
        prop_assert_eq!(table.after(forgotten).count(), table.len());
    }
}
