//! `[[site]]` tables as [`SiteConfig`]s. What a site's keys are, and what they may be, is decided
//! there; here every fault gets its line. [`read_one`] does it for tables of any kind.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use shoal_proto::limits::{SITE_BYTES_MAX, SITES_MAX};
use toml::de::{DeValue, ValueDeserializer};

use super::definition;
use super::file::{Document, ListTable, SITE, plain};
use super::problem::{Problem, Source};
use crate::policy::site::{SiteConfig, SiteError, Sites};
use crate::text::suggest::nearest;

/// Where a site and its keys stand in the file, in bytes.
struct Place {
    name: String,
    start: usize,
    keys: BTreeMap<String, usize>,
}

/// Reads and checks all sites; `None` when one has a fault.
pub(super) fn read(
    document: Document<'_>,
    tables: Vec<ListTable<'_>>,
    problems: &mut Vec<Problem>,
) -> Option<Vec<SiteConfig>> {
    let count = tables.len();
    let (mut sites, mut places) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for table in tables {
        let (start, keys) = (table.span().start, key_places(&table));
        if let Some(site) = read_one::<SiteConfig>(document, SITE, table, problems) {
            places.push(Place { name: site.name.clone(), start, keys });
            sites.push(site);
        }
    }
    // Sites with a fault are missing here; what the others have is told all the same.
    let whole = sites.len() == count && fits(document, &sites, &places, problems);
    match Sites::new(sites.clone()) {
        Ok(_) => whole.then_some(sites),
        Err(errors) => {
            problems.extend(errors.iter().map(|error| located(document, &places, error)));
            None
        }
    }
}

/// Whether the index could keep them: that is where they go.
fn fits(
    document: Document<'_>,
    sites: &[SiteConfig],
    places: &[Place],
    problems: &mut Vec<Problem>,
) -> bool {
    let before = problems.len();
    let too_many = sites.len() > SITES_MAX;
    if let Some(first) = places.get(SITES_MAX).filter(|_| too_many) {
        let source = document.source(first.start, SITE);
        let what = format!("is one of {} tables; expected at most {SITES_MAX}", sites.len());
        problems.push(Problem::about(&source, &what));
    }
    for (site, place) in sites.iter().zip(places) {
        let bytes = definition::kept(site).len();
        if bytes > SITE_BYTES_MAX {
            let source = document.source(place.start, SITE);
            let what = format!("takes {bytes} bytes; expected at most {SITE_BYTES_MAX}");
            problems.push(Problem::about(&source, &what));
        }
    }
    problems.len() == before
}

fn key_places(table: &ListTable<'_>) -> BTreeMap<String, usize> {
    let entries = table.get_ref().as_table().into_iter().flatten();
    entries.map(|(key, _)| (key.get_ref().to_string(), key.span().start)).collect()
}

fn located(document: Document<'_>, places: &[Place], error: &SiteError) -> Problem {
    let SiteError { site, field, value, remedy } = error;
    // Of two sites with one name, the later is at fault.
    let place = places.iter().rev().find(|place| place.name == *site);
    let at = place.map_or(0, |place| place.keys.get(*field).copied().unwrap_or(place.start));
    let source = document.source(at, &format!("{SITE}.{field}"));
    Problem::about(&source, &format!("is {value:?} (site {site:?}); {remedy}"))
}

/// One table of the list called `list`. A key that is refused is reported and left out, so that the
/// others are looked at too.
pub(super) fn read_one<T: DeserializeOwned>(
    document: Document<'_>,
    list: &str,
    mut table: ListTable<'_>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let start = table.span().start;
    let mut refused: BTreeSet<String> = BTreeSet::new();
    loop {
        let error = match T::deserialize(ValueDeserializer::from(table.clone())) {
            Ok(read) => return refused.is_empty().then_some(read),
            Err(error) => error,
        };
        let message = error.message();
        let at = error.span().map_or(start, |span| span.start);
        let Some((key, shown)) = take_key_at(&mut table, at) else {
            // A key that is missing because it was refused above is no second fault.
            let of_refused = quoted(message).next().is_some_and(|key| refused.contains(key));
            if !of_refused {
                problems.push(Problem::about(&document.source(at, list), message));
            }
            return None;
        };
        let source = document.source(at, &format!("{list}.{key}"));
        problems.push(explain(&source, (list, &key), &shown, message));
        refused.insert(key);
    }
}

/// Removes and returns the key, with its value as text, whose entry covers position `at`.
fn take_key_at(table: &mut ListTable<'_>, at: usize) -> Option<(String, String)> {
    let DeValue::Table(entries) = table.get_mut() else { return None };
    let covers = |start: usize, end: usize| (start..end.max(start + 1)).contains(&at);
    let found = entries.iter().find(|(key, value)| covers(key.span().start, value.span().end));
    let (key, shown) =
        found.map(|(key, value)| (key.clone(), plain(value.get_ref()).to_string()))?;
    entries.remove(&key);
    Some((key.into_inner().into_owned(), shown))
}

fn explain(source: &Source, (list, key): (&str, &str), shown: &str, message: &str) -> Problem {
    if !message.starts_with("unknown field") {
        return Problem::about(source, &format!("is {shown:?}: {message}"));
    }
    let known: Vec<&str> = quoted(message).filter(|word| *word != key).collect();
    let hint = match nearest(key, known.iter().copied()) {
        Some(near) => format!("did you mean {list}.{near}?"),
        None => format!("expected one of {}", known.join(", ")),
    };
    Problem::about(source, &format!("is an unknown key; {hint}"))
}

/// The words that a message of serde's puts in backticks.
fn quoted(message: &str) -> impl Iterator<Item = &str> {
    message.split('`').skip(1).step_by(2)
}
