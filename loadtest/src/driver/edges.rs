//! Which edges are listed now, and which were not at some time (PURE).
//!
//! An edge keeps its number for the whole run, listed or not, so that its sums stay together.

use std::{collections::HashMap, time::Duration};

use crate::scenario::{EdgeUrl, run::EDGES_MAX};

#[derive(Clone, Debug)]
struct Entry {
    url: EdgeUrl,
    listed: bool,
    /// When it last came back after having been missing.
    back_at: Option<Duration>,
}

/// All edges of a run.
#[derive(Clone, Debug, Default)]
pub struct EdgeBook {
    entries: Vec<Entry>,
    numbers: HashMap<EdgeUrl, usize>,
    listed: Vec<usize>,
}

/// What a new list changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Edges that are listed now and were not.
    pub added: usize,
    /// Edges that are no longer listed.
    pub removed: usize,
    /// New edges beyond [`EDGES_MAX`], which are left out.
    pub refused: usize,
}

impl EdgeBook {
    /// Takes `list` as what is listed from `now` on.
    pub fn update(&mut self, list: &[EdgeUrl], now: Duration) -> Change {
        let before = std::mem::take(&mut self.listed);
        let mut change = Change::default();
        for url in list {
            match self.number(url) {
                Some(number) if self.listed.contains(&number) => {}
                Some(number) => self.listed.push(number),
                None => change.refused += 1,
            }
        }
        for (number, entry) in self.entries.iter_mut().enumerate() {
            let listed = self.listed.contains(&number);
            match (entry.listed, listed) {
                (false, true) => {
                    change.added += 1;
                    entry.back_at = Some(now);
                }
                (true, false) => change.removed += 1,
                _ => {}
            }
            entry.listed = listed;
        }
        debug_assert_eq!(before.len() + change.added, self.listed.len() + change.removed);
        change
    }

    fn number(&mut self, url: &EdgeUrl) -> Option<usize> {
        if let Some(&number) = self.numbers.get(url) {
            return Some(number);
        }
        let number = self.entries.len();
        if number >= EDGES_MAX {
            return None;
        }
        self.numbers.insert(url.clone(), number);
        self.entries.push(Entry { url: url.clone(), listed: false, back_at: None });
        Some(number)
    }

    /// The edge for the request `number`: listed edges take turns. None when none is listed.
    #[must_use]
    pub fn pick(&self, number: u64) -> Option<(usize, EdgeUrl)> {
        let turns = self.listed.len() as u64;
        let turn = usize::try_from(number.checked_rem(turns)?).ok()?;
        let edge = *self.listed.get(turn)?;
        Some((edge, self.entries.get(edge)?.url.clone()))
    }

    /// True when the edge was not listed at some moment from `since` until now.
    #[must_use]
    pub fn missing_since(&self, edge: usize, since: Duration) -> bool {
        let entry = self.entries.get(edge);
        entry.is_some_and(|entry| !entry.listed || entry.back_at.is_some_and(|at| at > since))
    }

    /// How many edges are listed.
    #[must_use]
    pub fn listed(&self) -> usize {
        self.listed.len()
    }

    /// All edges by number.
    #[must_use]
    pub fn urls(&self) -> Vec<EdgeUrl> {
        self.entries.iter().map(|entry| entry.url.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn urls(ports: &[u16]) -> Vec<EdgeUrl> {
        ports.iter().map(|port| format!("http://a:{port}").parse().unwrap()).collect()
    }

    fn picks(book: &EdgeBook, count: u64) -> Vec<usize> {
        (0..count).map(|number| book.pick(number).unwrap().0).collect()
    }

    #[test]
    fn listed_edges_take_turns() {
        let mut book = EdgeBook::default();
        assert_eq!(book.pick(0), None);
        book.update(&urls(&[1, 2, 3]), S(0));
        assert_eq!(picks(&book, 5), [0, 1, 2, 0, 1]);
        assert_eq!(book.update(&urls(&[3, 1]), S(1)), Change { removed: 1, ..Change::default() });
        assert_eq!(picks(&book, 3), [2, 0, 2]);
        assert_eq!(book.update(&urls(&[3, 4]), S(1)), Change { added: 1, removed: 1, refused: 0 });
        assert_eq!(picks(&book, 2), [2, 3]);
    }

    #[test]
    fn missing_is_known_while_and_after() {
        let mut book = EdgeBook::default();
        book.update(&urls(&[1, 2]), S(0));
        assert!(!book.missing_since(0, S(0)), "the first listing is no coming back");
        book.update(&urls(&[2]), S(5));
        assert!(book.missing_since(0, S(6)));
        assert!(!book.missing_since(1, S(0)));
        book.update(&urls(&[1, 2]), S(8));
        assert!(book.missing_since(0, S(7)), "it was missing until 8");
        assert!(!book.missing_since(0, S(8)));
    }

    #[test]
    fn a_list_may_repeat_itself_and_has_a_bound() {
        let mut book = EdgeBook::default();
        assert_eq!(book.update(&urls(&[1, 1]), S(0)).added, 1);
        assert_eq!(book.listed(), 1);
        let many: Vec<u16> = (1..=1030).collect();
        let change = book.update(&urls(&many), S(1));
        assert_eq!((change.refused, book.listed()), (6, EDGES_MAX));
    }
}
