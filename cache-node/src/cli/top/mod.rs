//! `shoal top`: a cluster's figures in a terminal, again and again.

mod rates;
mod screen;

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::control;
use super::exit::Failure;
use super::status::gather;
use crate::admin::Report;
use crate::clock;
use rates::Watched;
use screen::Shown;

/// `shoal top`'s flags.
#[derive(Debug, Args)]
#[command(after_help = "\
Keys: q quits, s changes the order of the members, arrows scroll.

Examples:
  shoal top --admin 127.0.0.1:18180
  shoal status --watch 2s     the same figures where there is no terminal")]
pub(super) struct TopArgs {
    /// The admin listener of any member: URL or host:port
    #[arg(long, env = "SHOAL_ADMIN", default_value = "http://127.0.0.1:9400", value_name = "URL")]
    admin: String,
    /// Between two looks
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = control::timeout)]
    interval: Duration,
    /// How long to wait for each member
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = control::timeout)]
    timeout: Duration,
}

/// Shows figures until somebody quits.
pub(super) fn run(args: &TopArgs) -> Result<(), Failure> {
    let address = control::address(&args.admin)?;
    if !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        let message = "shoal top needs a terminal; use shoal status --watch 2s, or --json, here\n";
        return Err(Failure::run(message));
    }
    // What cannot be reached at all is said before the screen is taken.
    let first = gather(&address, args.timeout)?.map_err(|why| {
        Failure::run(format!(
            "no status from http://{address}: {why}\n\
             Give the admin address of a running member with --admin or SHOAL_ADMIN.\n"
        ))
    })?;
    let mut terminal = ratatui::try_init().map_err(Failure::run)?;
    let shown = watch(&mut terminal, (&address, args), first);
    ratatui::restore();
    shown.map_err(Failure::run)
}

fn watch(
    terminal: &mut DefaultTerminal,
    (address, args): (&str, &TopArgs),
    first: Report,
) -> io::Result<()> {
    let mut watched = Watched::default();
    let mut shown = Shown::default();
    watched.take(first);
    let mut asked = clock::monotonic();
    loop {
        terminal.draw(|frame| screen::draw(frame, &watched, &shown))?;
        let left = args.interval.saturating_sub(clock::since(asked));
        if event::poll(left)? {
            let pressed = event::read()?;
            if quits(&mut shown, &pressed, watched.report().map_or(0, |of| of.members.len())) {
                return Ok(());
            }
            continue;
        }
        asked = clock::monotonic();
        let gathered = gather(address, args.timeout);
        match gathered.unwrap_or_else(|failure| Err(failure.text().to_owned())) {
            Ok(report) => {
                shown.trouble = None;
                watched.take(report);
            }
            Err(why) => shown.trouble = Some(format!("no status from {address}: {why}")),
        }
    }
}

/// Does what a key says; true when it says to quit.
fn quits(shown: &mut Shown, event: &Event, members: usize) -> bool {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else {
        return false;
    };
    match code {
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Char('s') => shown.order = shown.order.next(),
        KeyCode::Down | KeyCode::Char('j') => {
            shown.skipped = (shown.skipped + 1).min(members.saturating_sub(1));
        }
        KeyCode::Up | KeyCode::Char('k') => shown.skipped = shown.skipped.saturating_sub(1),
        _ => {}
    }
    false
}

#[cfg(test)]
mod tests {
    use super::screen::Order;
    use super::*;

    fn press(shown: &mut Shown, code: KeyCode, modifiers: KeyModifiers) -> bool {
        quits(shown, &Event::Key(KeyEvent::new(code, modifiers)), 3)
    }

    #[test]
    fn keys_sort_scroll_and_quit() {
        let mut shown = Shown::default();
        assert!(!press(&mut shown, KeyCode::Char('s'), KeyModifiers::NONE));
        assert_eq!(shown.order, Order::Requests);
        for _ in 0..9 {
            assert!(!press(&mut shown, KeyCode::Down, KeyModifiers::NONE));
        }
        assert_eq!(shown.skipped, 2, "the last member stays");
        assert!(!press(&mut shown, KeyCode::Char('c'), KeyModifiers::NONE));
        assert!(press(&mut shown, KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(press(&mut shown, KeyCode::Char('q'), KeyModifiers::NONE));
    }

    #[test]
    fn without_a_terminal_it_names_what_works_there() {
        let args = TopArgs {
            admin: "127.0.0.1:1".into(),
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
        };
        let refused = run(&args).unwrap_err();
        assert!(refused.text().contains("status --watch") || refused.text().contains("--admin"));
    }
}
