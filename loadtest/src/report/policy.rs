//! What `shoal-loadtest policy` prints (PURE).

use std::fmt::Write as _;

use super::grid::Grid;
use crate::policy::Document;
use crate::units::show_bytes;

/// A document as people read it.
#[must_use]
pub fn table(document: &Document) -> String {
    let shape = &document.shape;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{}: {} requests, {} objects ({} asked for once), {} in all, {} unique\n\
         a cache without an end misses {:.2} % of the requests and {:.2} % of the bytes\n",
        document.trace,
        shape.requests,
        shape.objects,
        shape.one_hit_objects,
        show_bytes(shape.bytes),
        show_bytes(shape.unique_bytes),
        shape.cold_miss_pct,
        shape.cold_byte_miss_pct,
    );
    let heading = ["capacity", "of unique", "object misses", "byte misses", "evicted", "too large"];
    let mut grid = Grid::new(&heading);
    for misses in &document.capacities {
        grid.row(&[
            &show_bytes(misses.capacity_bytes),
            &format!("{:.2} %", misses.capacity_pct),
            &format!("{:.2} %", misses.object_miss_pct),
            &format!("{:.2} %", misses.byte_miss_pct),
            &misses.evicted.to_string(),
            &misses.too_large.to_string(),
        ]);
    }
    text.push_str(&grid.text());
    text
}
