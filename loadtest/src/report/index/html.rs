//! The benchmark's report as one HTML page (PURE), with the style of the load test's.

use std::fmt::Write as _;

use super::{
    document::IndexReport,
    table::{heading, sections},
};
use crate::report::html::{STYLE, date, escape, rows_of};

/// The whole page.
#[must_use]
pub fn page(report: &IndexReport) -> String {
    let mut html = String::from("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    html.push_str("<title>Index benchmark</title><style>");
    html.push_str(STYLE);
    html.push_str("</style></head><body><main><h1>Index benchmark</h1>");
    let (class, word) = match report.ok {
        true => ("good", "All measured figures are good enough"),
        false => ("missed", "A figure is missed or could not be measured"),
    };
    // Writing to a String cannot fail.
    let _ = write!(
        html,
        "<p class=\"{class}\">{word}</p><p class=\"dim\">{}</p><p class=\"dim\">Made at <time>{}\
         </time>, shoal-loadtest {}</p>",
        escape(&heading(report)),
        date(report.made_at_unix_ms),
        report.tool_version
    );
    for section in sections(report) {
        rows_of(&mut html, section.title, &section.heading, section.rows.into_iter());
    }
    for failure in &report.failures {
        let text = format!("not measured: {}: {}", failure.phase, failure.reason);
        let _ = write!(html, "<p class=\"missed\">{}</p>", escape(&text));
    }
    html.push_str("</main></body></html>\n");
    html
}
