//! PURE. The sites of the cluster: their definitions, which are no business of the index, and the
//! names that were removed.
//!
//! Invariants: a change is made for one revision of the table, and whole or not at all; a name is a
//! site's or a removed one's, never both; a configuration file brings no name in that was ever
//! known; all of it is bounded. The newest change is always still to be seen in the table, so that
//! its revision needs no record of its own.

use std::collections::{BTreeMap, BTreeSet};

use shoal_proto::limits::{
    NAME_BYTES_MAX, SITE_BYTES_MAX, SITES_BYTES_MAX, SITES_MAX, SITES_REMOVED_MAX,
};
use shoal_proto::wire::v1::{self, SiteSource};

/// All sites.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sites {
    sites: BTreeMap<String, v1::SiteDefinition>,
    /// Names of sites that are no more, and the positions at which they were removed.
    removed: BTreeMap<String, u64>,
}

impl Sites {
    /// Makes a change; the names whose records are to be written, or `None` when something stands
    /// against it.
    pub(super) fn change(
        &mut self,
        position: u64,
        change: &v1::ChangeSites,
    ) -> Option<BTreeSet<String>> {
        if change.base != self.revision() || !self.allows(change) {
            return None;
        }
        let mut next = self.clone();
        let mut touched = BTreeSet::new();
        for name in &change.drop {
            next.sites.remove(name)?;
            next.removed.insert(name.clone(), position);
            touched.insert(name.clone());
        }
        for put in &change.put {
            next.removed.remove(&put.name);
            let site = v1::SiteDefinition { position, ..put.clone() };
            next.sites.insert(put.name.clone(), site);
            touched.insert(put.name.clone());
        }
        while next.removed.len() > SITES_REMOVED_MAX {
            let oldest = next.removed.iter().min_by_key(|(name, at)| (**at, *name));
            let oldest = oldest.map(|(name, _)| name.clone())?;
            next.removed.remove(&oldest);
            touched.insert(oldest);
        }
        if !next.fits() {
            return None;
        }
        *self = next;
        Some(touched)
    }

    fn allows(&self, change: &v1::ChangeSites) -> bool {
        let puts = change.put.iter().map(|put| &put.name);
        let names: BTreeSet<_> = puts.chain(&change.drop).collect();
        let each_once = names.len() == change.put.len() + change.drop.len();
        each_once && !names.is_empty() && change.put.iter().all(|put| self.takes(put))
    }

    fn takes(&self, put: &v1::SiteDefinition) -> bool {
        let known = self.sites.contains_key(&put.name) || self.removed.contains_key(&put.name);
        let source = match put.source() {
            SiteSource::Unspecified => false,
            SiteSource::File => !known,
            SiteSource::Call => true,
        };
        let name = (1..=NAME_BYTES_MAX).contains(&put.name.len());
        source && name && (1..=SITE_BYTES_MAX).contains(&put.definition.len())
    }

    fn fits(&self) -> bool {
        let bytes: usize = self.sites.values().map(|site| site.definition.len()).sum();
        self.sites.len() <= SITES_MAX && bytes <= SITES_BYTES_MAX
    }

    /// The position of the last change; 0 before the first.
    pub(super) fn revision(&self) -> u64 {
        let sites = self.sites.values().map(|site| site.position);
        sites.chain(self.removed.values().copied()).max().unwrap_or_default()
    }

    /// A site's record, to be written.
    pub(super) fn site(&self, name: &str) -> Option<&v1::SiteDefinition> {
        self.sites.get(name)
    }

    /// The position at which the site of this name was removed.
    pub(super) fn removed_at(&self, name: &str) -> Option<u64> {
        self.removed.get(name).copied()
    }

    /// Takes in a site as it was written.
    pub(super) fn restore(&mut self, site: v1::SiteDefinition) {
        self.sites.insert(site.name.clone(), site);
    }

    /// Takes in a removed name as it was written.
    pub(super) fn restore_removed(&mut self, name: String, position: u64) {
        self.removed.insert(name, position);
    }

    /// All of it, as it travels, in the order of names.
    pub(super) fn table(&self) -> v1::SiteTable {
        let removed = self.removed.iter();
        let removed =
            removed.map(|(name, at)| v1::RemovedSite { name: name.clone(), position: *at });
        v1::SiteTable {
            revision: self.revision(),
            sites: self.sites.values().cloned().collect(),
            removed: removed.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(name: &str, source: SiteSource) -> v1::SiteDefinition {
        let definition = b"{}".to_vec().into();
        v1::SiteDefinition { name: name.into(), definition, source: source.into(), position: 0 }
    }

    fn change(base: u64, put: Vec<v1::SiteDefinition>, drop: &[&str]) -> v1::ChangeSites {
        v1::ChangeSites { base, put, drop: drop.iter().map(|name| (*name).to_owned()).collect() }
    }

    fn names(touched: Option<BTreeSet<String>>) -> Vec<String> {
        touched.unwrap().into_iter().collect()
    }

    #[test]
    fn a_change_is_made_for_one_revision() {
        let mut sites = Sites::default();
        let docs = || vec![put("docs", SiteSource::Call)];
        assert_eq!(names(sites.change(5, &change(0, docs(), &[]))), ["docs"]);
        assert_eq!(sites.change(6, &change(0, docs(), &[])), None);
        assert_eq!(sites.revision(), 5);
        let both = change(5, vec![put("apt", SiteSource::Call)], &["docs"]);
        assert_eq!(names(sites.change(7, &both)), ["apt", "docs"]);
        assert_eq!((sites.site("docs"), sites.removed_at("docs")), (None, Some(7)));
        assert_eq!(sites.site("apt").unwrap().position, 7);
        assert_eq!(names(sites.change(8, &change(7, docs(), &[]))), ["docs"]);
        assert_eq!((sites.removed_at("docs"), sites.revision()), (None, 8));
    }

    #[test]
    fn a_file_names_only_what_was_never_known() {
        let mut sites = Sites::default();
        let file = || vec![put("docs", SiteSource::File)];
        assert!(sites.change(1, &change(0, file(), &[])).is_some());
        assert_eq!(sites.change(2, &change(1, file(), &[])), None, "it is there");
        assert!(sites.change(3, &change(1, vec![], &["docs"])).is_some());
        assert_eq!(sites.change(4, &change(3, file(), &[])), None, "it was removed");
        let call = vec![put("docs", SiteSource::Call)];
        assert!(sites.change(5, &change(3, call, &[])).is_some());
    }

    #[test]
    fn what_breaks_a_limit_is_refused_whole() {
        let mut sites = Sites::default();
        let call = |name: &str| put(name, SiteSource::Call);
        let large = v1::SiteDefinition {
            definition: vec![b' '; SITE_BYTES_MAX + 1].into(),
            ..call("large")
        };
        let empty = v1::SiteDefinition { definition: Default::default(), ..call("empty") };
        for wrong in [
            change(0, vec![], &[]),
            change(0, vec![], &["docs"]),
            change(0, vec![call("docs"), call("docs")], &[]),
            change(0, vec![call("docs")], &["docs"]),
            change(0, vec![call("docs"), large], &[]),
            change(0, vec![call("docs"), empty], &[]),
            change(0, vec![call("")], &[]),
            change(0, vec![call(&"x".repeat(NAME_BYTES_MAX + 1))], &[]),
            change(0, vec![put("docs", SiteSource::Unspecified)], &[]),
            change(0, (0..=SITES_MAX).map(|n| call(&format!("s{n}"))).collect(), &[]),
        ] {
            assert_eq!(sites.change(1, &wrong), None, "{:?}", wrong.drop);
        }
        assert_eq!(sites, Sites::default());
        let full = SITES_BYTES_MAX / SITE_BYTES_MAX;
        let whole = |n: usize| v1::SiteDefinition {
            definition: vec![b' '; SITE_BYTES_MAX].into(),
            ..call(&format!("s{n}"))
        };
        assert_eq!(sites.change(1, &change(0, (0..=full).map(whole).collect(), &[])), None);
        assert!(sites.change(1, &change(0, (0..full).map(whole).collect(), &[])).is_some());
    }

    #[test]
    fn removed_names_are_bounded_and_the_revision_stays() {
        let mut sites = Sites::default();
        for n in 0..=SITES_REMOVED_MAX as u64 {
            let (name, base) = (format!("s{n}"), sites.revision());
            sites.change(base + 1, &change(base, vec![put(&name, SiteSource::Call)], &[])).unwrap();
            sites.change(base + 2, &change(base + 1, vec![], &[&name])).unwrap();
        }
        assert_eq!(sites.removed_at("s0"), None);
        assert_eq!(sites.removed_at("s1"), Some(4));
        assert_eq!(sites.table().removed.len(), SITES_REMOVED_MAX);
        assert_eq!(sites.revision(), 2 * (SITES_REMOVED_MAX as u64 + 1));
    }
}
