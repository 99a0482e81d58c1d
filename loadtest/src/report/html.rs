//! The report as one HTML page (PURE): nothing is loaded from anywhere, and it follows the
//! reader's choice of light or dark.

use std::fmt::Write as _;

use super::{document::Report, svg, table::verdict};
use crate::units::{show_bytes, show_us};

/// The style of all pages.
pub(super) const STYLE: &str = include_str!("report.css");

/// The whole page.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut html = String::from("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    html.push_str("<title>Load test</title><style>");
    html.push_str(STYLE);
    html.push_str("</style></head><body><main><h1>Load test</h1>");
    heading(&mut html, report);
    tiles(&mut html, report);
    html.push_str("<h2>Latency by percentile</h2><p class=\"dim\">From the moment a request was ");
    html.push_str("due. <i class=\"key first\"></i>to last byte<i class=\"key second\"></i>");
    html.push_str("to first byte</p>");
    html.push_str(&svg::latency_curve(report));
    html.push_str("<h2>Over time</h2>");
    html.push_str(&svg::timeline(report));
    marks(&mut html, report);
    thresholds(&mut html, report);
    cache_statuses(&mut html, report);
    edges(&mut html, report);
    failures(&mut html, report);
    html.push_str("</main></body></html>\n");
    html
}

fn heading(html: &mut String, report: &Report) {
    let (class, word) =
        if report.ok { ("good", "All thresholds met") } else { ("missed", "Threshold missed") };
    let scenario = &report.scenario;
    // Writing to a String cannot fail.
    let _ = write!(
        html,
        "<p class=\"{class}\">{word}</p><p class=\"dim\">{:.1} s at {} requests/s over {} objects, \
         popularity exponent {}, made at <time>{}</time>, shoal-loadtest {}</p>",
        report.elapsed_ms as f64 / 1e3,
        scenario.rate_per_s,
        scenario.objects,
        scenario.zipf_exponent,
        date(report.made_at_unix_ms),
        report.tool_version
    );
}

pub(super) fn date(unix_ms: u64) -> String {
    let since = std::time::Duration::from_millis(unix_ms);
    // Beyond the year 9999 there is no HTTP date; such a clock is shown as the epoch.
    let last = std::time::Duration::from_secs(253_402_300_799);
    let since = if since > last { std::time::Duration::ZERO } else { since };
    httpdate::fmt_http_date(std::time::SystemTime::UNIX_EPOCH + since)
}

fn tiles(html: &mut String, report: &Report) {
    let mut tiles = vec![
        ("verified", report.requests.verified.to_string()),
        ("failed", report.requests.failed.to_string()),
        ("abandoned", report.requests.abandoned.to_string()),
        ("median latency", show_us(report.latency.p50_us)),
        ("99 % within", show_us(report.latency.p99_us)),
        ("received per second", show_bytes(report.received.bytes_per_s as u64)),
    ];
    if let Some(origin) = &report.origin {
        let shown = |value: Option<f64>, unit: &str| {
            value.map_or("-".to_owned(), |value| format!("{value:.2}{unit}"))
        };
        tiles.push(("origin bytes per unique byte", shown(origin.origin_ratio, "")));
        tiles.push(("offload by bytes", shown(origin.offload_bytes_pct, " %")));
    }
    html.push_str("<div class=\"tiles\">");
    for (name, value) in tiles {
        let _ = write!(html, "<div class=\"tile\"><b>{value}</b><span>{name}</span></div>");
    }
    html.push_str("</div>");
}

fn thresholds(html: &mut String, report: &Report) {
    html.push_str("<h2>Thresholds</h2>");
    for check in &report.thresholds {
        let class = if check.met { "good" } else { "missed" };
        let _ = write!(html, "<p class=\"{class}\">{}</p>", escape(&verdict(check)));
    }
    if let Some(reason) = &report.origin_unknown_reason {
        let _ = write!(html, "<p class=\"dim\">{}</p>", escape(reason));
    }
    if let Some(worst) = report.origin.as_ref().and_then(|origin| origin.worst_object.as_ref()) {
        let _ = write!(
            html,
            "<p class=\"dim\">Most for one object: {} of {} for {}</p>",
            show_bytes(worst.origin_bytes),
            show_bytes(worst.size_bytes),
            escape(&worst.path)
        );
    }
}

fn marks(html: &mut String, report: &Report) {
    let rows = report.marks.iter().zip(1..).map(|(mark, number)| {
        let done = if mark.done { "" } else { "not done: " };
        vec![
            number.to_string(),
            format!("{:.1} s", mark.at_ms as f64 / 1e3),
            format!("{done}{}", mark.what),
        ]
    });
    rows_of(html, "What was done meanwhile", &["", "at", "what"], rows);
}

fn cache_statuses(html: &mut String, report: &Report) {
    let heading = ["Cache-Status", "from", "requests", "share", "received", "p50", "p99"];
    let rows = report.cache_statuses.iter().map(|row| {
        vec![
            row.cache_status.to_owned(),
            row.source.to_owned(),
            row.requests.to_string(),
            format!("{:.1} %", row.requests_pct),
            show_bytes(row.received_bytes),
            show_us(row.p50_us),
            show_us(row.p99_us),
        ]
    });
    rows_of(html, "Where replies came from", &heading, rows);
}

fn edges(html: &mut String, report: &Report) {
    let heading = ["Edge", "verified", "failed", "abandoned", "received"];
    let rows = report.edges.iter().map(|row| {
        vec![
            row.edge.clone(),
            row.verified.to_string(),
            row.failed.to_string(),
            row.abandoned.to_string(),
            show_bytes(row.received_bytes),
        ]
    });
    rows_of(html, "Edges", &heading, rows);
}

fn failures(html: &mut String, report: &Report) {
    let heading = ["Failure", "at", "edge", "path", "seen"];
    let rows = report.failure_examples.iter().map(|example| {
        vec![
            example.kind.name().to_owned(),
            format!("{:.3} s", example.at_ms as f64 / 1e3),
            example.edge.clone().unwrap_or_default(),
            example.path.clone(),
            example.detail.clone(),
        ]
    });
    rows_of(html, "First failures of each kind", &heading, rows);
}

/// A table with a title, or nothing without rows.
pub(super) fn rows_of(
    html: &mut String,
    title: &str,
    heading: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) {
    let rows: String = rows
        .map(|cells| {
            let cells: String =
                cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
            format!("<tr>{cells}</tr>")
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    let heading: String = heading.iter().map(|name| format!("<th>{name}</th>")).collect();
    let _ = write!(
        html,
        "<h2>{title}</h2><div class=\"scroll\"><table><tr>{heading}</tr>{rows}</table></div>"
    );
}

/// Text that came from outside, made harmless.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_harmless() {
        assert_eq!(
            escape("<script>\"a&b\"</script>"),
            "&lt;script&gt;&quot;a&amp;b&quot;&lt;/script&gt;"
        );
    }

    #[test]
    fn dates_never_panic() {
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(u64::MAX), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
