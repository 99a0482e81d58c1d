//! The HTML report's charts (PURE): inline SVG that takes its colours from the page's classes.

use std::fmt::Write as _;

use super::document::{CurvePoint, Report};
use super::html::escape;
use crate::{
    sample::timeline::Second,
    units::{show_bytes, show_us},
};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 16.0;
const CURVE_HEIGHT: f64 = 320.0;
const PANEL_HEIGHT: f64 = 96.0;
const PANEL_GAP: f64 = 34.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;
/// Columns of the timeline; longer runs are put together by the mean.
const COLUMNS_MAX: usize = 340;

/// A value's place between two ends, on a line from `from` to `to`.
fn place(value: f64, ends: (f64, f64), from: f64, to: f64) -> f64 {
    let span = ends.1 - ends.0;
    let part = if span > 0.0 { (value - ends.0) / span } else { 0.0 };
    from + (to - from) * part.clamp(0.0, 1.0)
}

/// Latency by percentile, both axes logarithmic: every nine takes the same width.
#[must_use]
pub fn latency_curve(report: &Report) -> String {
    let curve = &report.latency_curve;
    let all_us = curve.iter().flat_map(|point| [point.latency_us, point.first_byte_us]);
    let logs: Vec<f64> = all_us.map(log_us).collect();
    let low = logs.iter().copied().fold(f64::INFINITY, f64::min).floor();
    let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
    if !low.is_finite() {
        return "<p class=\"empty\">No request was verified, so there is no latency.</p>"
            .to_owned();
    }
    let vertical = (low, high.max(low + 1.0));
    let last = curve.last().map_or(0.0, nines);
    let horizontal = (0.0, last.max(1.0));
    let x = |point: &CurvePoint| place(nines(point), horizontal, LEFT, WIDTH - RIGHT);
    let y = |us: u64| place(log_us(us), vertical, CURVE_HEIGHT - BOTTOM, TOP);
    let mut svg = open(CURVE_HEIGHT, "Latency by percentile");
    grid_us(&mut svg, vertical);
    grid_nines(&mut svg, horizontal);
    type Value = fn(&CurvePoint) -> u64;
    let series: [(&str, &str, Value); 2] = [
        ("second", "to first byte", |point| point.first_byte_us),
        ("first", "to last byte", |point| point.latency_us),
    ];
    for (class, name, value) in series {
        let points: Vec<(f64, f64)> =
            curve.iter().map(|point| (x(point), y(value(point)))).collect();
        line(&mut svg, class, &points);
        for (point, (x, y)) in curve.iter().zip(points) {
            let text = format!("{:.3} % {name} within {}", point.percentile, show_us(value(point)));
            mark(&mut svg, x, y, &text);
        }
    }
    svg + "</svg>"
}

fn log_us(us: u64) -> f64 {
    (us.max(1) as f64).log10()
}

/// A power of ten of microseconds, without the digits that are zero anyway.
fn show_decade(decade: f64) -> String {
    show_us(10_f64.powf(decade).round() as u64).replace(".00", "").replace(".0", "")
}

/// 90 % is 1, 99 % is 2, and so on.
fn nines(point: &CurvePoint) -> f64 {
    -(1.0 - point.percentile / 100.0).max(1e-9).log10()
}

fn grid_us(svg: &mut String, ends: (f64, f64)) {
    let mut decade = ends.0;
    while decade <= ends.1 {
        let y = place(decade, ends, CURVE_HEIGHT - BOTTOM, TOP);
        rule(svg, (LEFT, y), (WIDTH - RIGHT, y));
        label(svg, LEFT - 8.0, y + 4.0, "end", &show_decade(decade));
        decade += 1.0;
    }
}

fn grid_nines(svg: &mut String, ends: (f64, f64)) {
    let marks =
        [(0.0, "0 %"), (2_f64.log10(), "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %")];
    let more = [(4.0, "99.99 %"), (5.0, "99.999 %")];
    for (nines, text) in marks.into_iter().chain(more).filter(|(nines, _)| *nines <= ends.1) {
        let x = place(nines, ends, LEFT, WIDTH - RIGHT);
        rule(svg, (x, TOP), (x, CURVE_HEIGHT - BOTTOM));
        label(svg, x, CURVE_HEIGHT - 12.0, "middle", text);
    }
}

/// Requests, bytes and failures in each second, one panel each over the same time.
#[must_use]
pub fn timeline(report: &Report) -> String {
    let columns = columns(&report.timeline);
    if columns.is_empty() {
        return "<p class=\"empty\">No request ended.</p>".to_owned();
    }
    let seconds = report.timeline.len() as f64;
    let panels: [(&str, &str, Vec<f64>); 3] = [
        ("Verified requests per second", "first", values(&columns, |c| c.verified)),
        ("Bytes received per second", "first", values(&columns, |c| c.received_bytes)),
        ("Failed and abandoned per second", "bad", values(&columns, |c| c.failed + c.abandoned)),
    ];
    let height = TOP + (PANEL_HEIGHT + PANEL_GAP) * panels.len() as f64;
    let mut svg = open(height, "Requests, bytes and failures over time");
    let mut top = TOP;
    for (index, (title, class, values)) in panels.iter().enumerate() {
        let base = top + PANEL_GAP / 2.0 + PANEL_HEIGHT;
        let peak = values.iter().copied().fold(0.0, f64::max);
        label(&mut svg, LEFT, top + 8.0, "start", title);
        rule(&mut svg, (LEFT, base), (WIDTH - RIGHT, base));
        let shown = if index == 1 { show_bytes(peak as u64) } else { format!("{peak:.0}") };
        label(&mut svg, LEFT - 8.0, base - PANEL_HEIGHT + 16.0, "end", &shown);
        label(&mut svg, LEFT - 8.0, base, "end", "0");
        bars(&mut svg, class, values, (base, peak));
        top += PANEL_HEIGHT + PANEL_GAP;
    }
    for (number, done) in report.marks.iter().enumerate() {
        let ends = (0.0, seconds);
        let x = place(done.at_ms as f64 / 1e3, ends, LEFT, WIDTH - RIGHT);
        fault(&mut svg, x, (TOP, height - 14.0), (number + 1, &done.what));
    }
    label(&mut svg, LEFT, height - 4.0, "start", "0 s");
    label(&mut svg, WIDTH - RIGHT, height - 4.0, "end", &format!("{seconds:.0} s"));
    svg + "</svg>"
}

/// Means over equal stretches of time, at most [`COLUMNS_MAX`] of them.
fn columns(seconds: &[Second]) -> Vec<(Second, f64)> {
    let stretch = seconds.len().div_ceil(COLUMNS_MAX).max(1);
    let sum = |seconds: &[Second]| {
        let sum = seconds.iter().fold(Second::default(), |mut sum, second| {
            sum.verified += second.verified;
            sum.failed += second.failed;
            sum.abandoned += second.abandoned;
            sum.received_bytes += second.received_bytes;
            sum
        });
        (sum, seconds.len() as f64)
    };
    seconds.chunks(stretch).map(sum).collect()
}

fn values(columns: &[(Second, f64)], value: fn(&Second) -> u64) -> Vec<f64> {
    columns.iter().map(|(sum, seconds)| value(sum) as f64 / seconds).collect()
}

fn bars(svg: &mut String, class: &str, values: &[f64], (base, peak): (f64, f64)) {
    let width = (WIDTH - LEFT - RIGHT) / values.len() as f64;
    let gap = if width > 4.0 { 1.0 } else { 0.0 };
    for (index, value) in values.iter().enumerate().filter(|(_, value)| **value > 0.0) {
        let height = place(*value, (0.0, peak), 0.0, PANEL_HEIGHT - 12.0).max(1.0);
        let (x, y) = (LEFT + width * index as f64, base - height);
        // Writing to a String cannot fail.
        let _ = write!(
            svg,
            "<rect class=\"bar {class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" \
             height=\"{height:.1}\"><title>{value:.1}</title></rect>",
            width - gap
        );
    }
}

fn open(height: f64, title: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">")
}

fn rule(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = write!(
        svg,
        "<line class=\"rule\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

/// A numbered line across all panels.
fn fault(svg: &mut String, x: f64, (top, bottom): (f64, f64), (number, what): (usize, &str)) {
    let _ = write!(
        svg,
        "<g><title>{}</title><line class=\"fault\" x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" \
         y2=\"{bottom:.1}\"/></g>",
        escape(what)
    );
    label(svg, x + 4.0, top + 8.0, "start", &number.to_string());
}

fn label(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

fn line(svg: &mut String, class: &str, points: &[(f64, f64)]) {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = write!(svg, "<polyline class=\"line {class}\" points=\"{}\"/>", points.join(" "));
}

/// A spot that is not seen but shows a text under the pointer.
fn mark(svg: &mut String, x: f64, y: f64, text: &str) {
    let _ = write!(
        svg,
        "<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"7\"><title>{text}</title></circle>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nines_are_evenly_spaced() {
        let at = |percentile| nines(&CurvePoint { percentile, latency_us: 1, first_byte_us: 1 });
        assert!((at(0.0)).abs() < 1e-9);
        assert!((at(90.0) - 1.0).abs() < 1e-9);
        assert!((at(99.9) - 3.0).abs() < 1e-6);
    }

    #[test]
    fn decades_are_round() {
        let shown: Vec<_> = (0..8).map(|decade| show_decade(f64::from(decade))).collect();
        let wanted = ["1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"];
        assert_eq!(shown, wanted);
    }

    #[test]
    fn long_runs_become_means() {
        let second = Second { verified: 10, received_bytes: 3, ..Second::default() };
        let columns = columns(&vec![second; 1000]);
        assert_eq!(columns.len(), 334);
        let means = values(&columns, |second| second.verified);
        assert!(means.iter().all(|mean| (mean - 10.0).abs() < 1e-9), "{means:?}");
    }

    #[test]
    fn places_stay_on_their_line() {
        assert!((place(5.0, (0.0, 10.0), 100.0, 0.0) - 50.0).abs() < 1e-9);
        assert!((place(99.0, (0.0, 10.0), 100.0, 0.0)).abs() < 1e-9);
        assert!((place(1.0, (3.0, 3.0), 7.0, 9.0) - 7.0).abs() < 1e-9);
    }
}
