//! PURE. The screen: what was watched, as widgets.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table};

use super::rates::{Rates, Watched};
use crate::admin::{MemberReport, Report};
use crate::text::units::format_size;

/// Lines of events at the bottom.
const EVENTS_LINES: u16 = 7;

/// What the screen shows beside what was watched.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The order of members.
    pub(super) order: Order,
    /// Members that were scrolled away.
    pub(super) skipped: usize,
    /// Why the newest report is missing.
    pub(super) trouble: Option<String>,
}

/// The order of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// As people count.
    #[default]
    Name,
    /// The busiest first.
    Requests,
    /// Who gives most to peers first.
    Uploads,
}

impl Order {
    /// The next one.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Name => Self::Requests,
            Self::Requests => Self::Uploads,
            Self::Uploads => Self::Name,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Requests => "requests",
            Self::Uploads => "uploads",
        }
    }
}

/// Draws it all.
pub(super) fn draw(frame: &mut Frame<'_>, watched: &Watched, shown: &Shown) {
    let [head, charts, members, events, keys] = Layout::vertical([
        Constraint::Length(4),
        Constraint::Length(5),
        Constraint::Min(4),
        Constraint::Length(EVENTS_LINES),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let trouble = shown.trouble.as_deref();
    let Some(report) = watched.report() else {
        frame.render_widget(Paragraph::new(trouble.unwrap_or("asking …")), frame.area());
        return;
    };
    let now = watched.history().last().copied().unwrap_or_default();
    frame.render_widget(summary(report, &now, trouble), head);
    draw_charts(frame, charts, watched.history());
    frame.render_widget(table(report, watched, shown), members);
    frame.render_widget(newest(report), events);
    let help = format!(
        " q quit   s sort by {}   up, down scroll   (order: {})",
        shown.order.next().name(),
        shown.order.name()
    );
    frame.render_widget(Paragraph::new(help).dim(), keys);
}

fn summary<'a>(report: &'a Report, now: &Rates, trouble: Option<&'a str>) -> Paragraph<'a> {
    let voters = report.members.iter().filter(|member| member.voter);
    let (mut all, mut up) = (0, 0);
    for voter in voters {
        all += 1;
        up += usize::from(voter.state == "up");
    }
    let tier = Span::raw(format!("tier {up} of {all} voters"));
    let tier = if up == all { tier.green() } else { tier.red() };
    let leader = report.leader.as_deref().unwrap_or("unknown");
    let mode = report.mode.as_ref().map_or("unknown", |mode| mode.name.as_str());
    let rest = format!("   leader {leader}   term {}   mode {mode}", report.term);
    let members = report.members.iter().filter(|member| member.state == "up").count();
    let percent =
        |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{share:.1} %"));
    let flows = format!(
        "{:.1} requests/s   to clients {}   from origins {}   between peers {}",
        now.requests,
        a_second(now.response_bytes),
        a_second(now.origin_bytes),
        a_second(now.peer_bytes_in),
    );
    let offload = format!(
        "offload {} now, {} in all   cached {}   {members} of {} members up",
        percent(now.offload_percent()),
        percent(report.totals.offload_percent),
        format_size(report.totals.cached_bytes),
        report.members.len(),
    );
    let trouble = Line::from(trouble.unwrap_or_default()).red();
    Paragraph::new(vec![
        Line::from(vec![format!("cluster {}   ", report.cluster_id).bold(), tier, rest.into()]),
        Line::from(flows),
        Line::from(offload),
        trouble,
    ])
}

fn draw_charts(frame: &mut Frame<'_>, area: Rect, history: &[Rates]) {
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(area);
    let line = |title: &'static str, of: fn(&Rates) -> f64, place: Rect| {
        let wide = usize::from(place.width.saturating_sub(2));
        let from = history.len().saturating_sub(wide);
        let values: Vec<u64> = history[from..].iter().map(|rates| of(rates) as u64).collect();
        Sparkline::default().block(Block::bordered().title(title)).data(values)
    };
    frame.render_widget(line(" requests/s ", |rates| rates.requests, left).cyan(), left);
    let origin = line(" bytes/s from origins ", |rates| rates.origin_bytes, right);
    frame.render_widget(origin.yellow(), right);
}

fn table<'a>(report: &'a Report, watched: &Watched, shown: &Shown) -> Table<'a> {
    let mut members: Vec<_> =
        report.members.iter().map(|member| (member, watched.of(member))).collect();
    let by = |of: fn(&Rates) -> f64| move |rates: Option<&Rates>| rates.map_or(-1.0, of);
    match shown.order {
        Order::Name => {}
        Order::Requests => {
            let of = by(|rates| rates.requests);
            members.sort_by(|a, b| of(b.1).total_cmp(&of(a.1)));
        }
        Order::Uploads => {
            let of = by(|rates| rates.peer_bytes_out);
            members.sort_by(|a, b| of(b.1).total_cmp(&of(a.1)));
        }
    }
    let last = members.len().saturating_sub(1);
    let rows = members.into_iter().skip(shown.skipped.min(last)).map(|(member, rates)| {
        let row = row(member, report, rates);
        if member.state == "up" && member.reachable { row } else { row.red() }
    });
    let head = [
        "member",
        "state",
        "tier",
        "cached",
        "req/s",
        "clients/s",
        "origins/s",
        "peers in/s",
        "peers out/s",
    ];
    let wide = [16, 9, 8, 10, 9, 11, 11, 11, 11].map(Constraint::Length);
    Table::new(rows, wide)
        .header(Row::new(head).style(Style::new().add_modifier(Modifier::BOLD)))
        .block(Block::bordered().title(" members "))
}

fn row<'a>(member: &'a MemberReport, report: &Report, rates: Option<&Rates>) -> Row<'a> {
    let bytes = |of: fn(&Rates) -> f64| {
        let text = rates.map_or_else(|| "-".to_owned(), |rates| format_size(of(rates) as u64));
        Cell::from(text)
    };
    let requests = rates.map_or_else(|| "-".to_owned(), |rates| format!("{:.1}", rates.requests));
    Row::new(vec![
        Cell::from(member.name.as_str()),
        Cell::from(member.standing()),
        Cell::from(member.tier(report)),
        Cell::from(member.cached_bytes.map_or_else(|| "-".to_owned(), format_size)),
        Cell::from(requests),
        bytes(|rates| rates.response_bytes),
        bytes(|rates| rates.origin_bytes),
        bytes(|rates| rates.peer_bytes_in),
        bytes(|rates| rates.peer_bytes_out),
    ])
}

fn newest(report: &Report) -> Paragraph<'_> {
    let lines = report.events.iter().take(usize::from(EVENTS_LINES)).map(|event| {
        let happened = &event.happened;
        let ago = report.at_ms.saturating_sub(happened.at_ms) / 1000;
        let text = format!("{ago:>5} s ago  {}: {}", event.member, happened.text);
        match happened.level.as_str() {
            "error" => Line::from(text).red(),
            "warn" => Line::from(text).yellow(),
            _ => Line::from(text),
        }
    });
    Paragraph::new(lines.collect::<Vec<_>>()).block(Block::bordered().title(" recent events "))
}

fn a_second(bytes: f64) -> String {
    format!("{}/s", format_size(bytes as u64))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::admin::report::tests::sample;

    fn screen(watched: &Watched, shown: &Shown, (wide, high): (u16, u16)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(wide, high)).unwrap();
        terminal.draw(|frame| draw(frame, watched, shown)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn it_shows_members_with_their_rates() {
        let mut watched = Watched::default();
        let mut report = sample();
        watched.take(report.clone());
        report.at_ms += 1_000;
        let busy = report.members.iter_mut().find(|member| member.name == "node-2").unwrap();
        busy.hits.as_mut().unwrap().memory += 30;
        *busy.response_bytes.as_mut().unwrap() += 2048;
        watched.take(report);
        let shown = screen(&watched, &Shown::default(), (120, 30));
        assert!(shown.contains("leader super-1   term 2   mode super-node"), "{shown}");
        assert!(shown.contains("30.0 requests/s   to clients 2 KiB/s"), "{shown}");
        assert!(shown.contains("offload 100.0 % now, 87.5 % in all"), "{shown}");
        let row = shown.lines().find(|line| line.contains("│node-2 ")).unwrap();
        assert!(row.contains("3 MiB") && row.contains("30.0") && row.contains("2 KiB"), "{row}");
        assert!(shown.contains("node-10          silent"), "{shown}");
        let sorted = Shown { order: Order::Requests, ..Shown::default() };
        let sorted = screen(&watched, &sorted, (120, 30));
        let first = sorted.lines().position(|line| line.contains("│node-2 "));
        assert!(first < sorted.lines().position(|line| line.contains("│super-0 ")), "{sorted}");
    }

    #[test]
    fn it_fits_small_terminals_and_says_what_is_wrong() {
        let mut watched = Watched::default();
        let troubled = Shown { trouble: Some("no answer".into()), ..Shown::default() };
        assert!(screen(&watched, &troubled, (40, 5)).contains("no answer"));
        watched.take(sample());
        for size in [(1, 1), (10, 3), (40, 12), (300, 100)] {
            screen(&watched, &troubled, size);
        }
        assert!(screen(&watched, &troubled, (80, 24)).contains("no answer"));
    }
}
