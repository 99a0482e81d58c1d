//! `shoal members`: who is in the tier of super-nodes, and changes of it, each guarded by the
//! membership that was seen.

mod ask;
mod show;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use self::ask::{LEADER_PATIENCE, Listed, listed, resolve};
use super::control::{ControlArgs, refusal};
use super::exit::Failure;
use super::{on_small_runtime, print};
use crate::admin::{Change, ChangeOrder, Changed};
use crate::clock;

/// Where the calls are.
const PATH: &str = "/v1/members";
/// Between two tries of a change that cannot be made yet.
const TRY_EVERY: Duration = Duration::from_millis(250);

/// `shoal members`'s flags.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct MembersArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Shows who is in the tier (as without a subcommand)
    List(ControlArgs),
    /// Takes in the super-node at an address, as a voter once it has caught up
    Add {
        /// Its cluster listener, host:port
        #[arg(value_name = "ADDRESS")]
        address: String,
        /// Leave it a learner: it asks for a vote by itself unless it was demoted
        #[arg(long)]
        learner: bool,
        #[command(flatten)]
        how: How,
    },
    /// Gives a learner the vote
    Promote(One),
    /// Takes a voter's vote away; it goes on as a learner
    Demote(One),
    /// Takes a super-node out of the tier, for ever
    Remove(One),
    /// Takes a voter out, for ever, and gives its vote to a learner, in one step
    Replace {
        /// The voter to be taken out: its name or id
        #[arg(value_name = "DEAD")]
        old: String,
        /// The learner that gets its vote: its name or id
        #[arg(value_name = "NEW")]
        new: String,
        #[command(flatten)]
        how: How,
    },
    /// Hands the lead to a voter
    Transfer(One),
}

/// A change about one super-node.
#[derive(Debug, Args)]
struct One {
    /// The super-node: its name or id
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    how: How,
}

/// How a change is made.
#[derive(Debug, Args)]
struct How {
    /// Only on this membership, as `shoal members` shows it; the one of now without it
    #[arg(long, value_name = "POSITION/HASH")]
    expect: Option<String>,
    /// Fail at once when it cannot be made yet, instead of waiting
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    control: ControlArgs,
}

impl How {
    /// How long a look at the tier waits for a leader.
    fn patience(&self) -> Duration {
        if self.no_wait { Duration::ZERO } else { LEADER_PATIENCE }
    }
}

/// Lists, or changes.
pub(super) fn run(args: MembersArgs) -> Result<(), Failure> {
    let MembersArgs { action, control } = args;
    on_small_runtime(async {
        let (how, wish) = match action {
            None => return list(&control).await,
            Some(Action::List(control)) => return list(&control).await,
            Some(Action::Add { address, learner, how }) => (how, Wish::Add(address, learner)),
            Some(Action::Promote(One { name, how })) => (how, Wish::One(Change::Promote, name)),
            Some(Action::Demote(One { name, how })) => (how, Wish::One(Change::Demote, name)),
            Some(Action::Remove(One { name, how })) => (how, Wish::One(Change::Remove, name)),
            Some(Action::Transfer(One { name, how })) => (how, Wish::One(Change::Transfer, name)),
            Some(Action::Replace { old, new, how }) => (how, Wish::Replace(old, new)),
        };
        change(how, wish).await
    })
}

async fn list(control: &ControlArgs) -> Result<(), Failure> {
    let Listed { document, whole, .. } = listed(control, LEADER_PATIENCE).await?;
    if control.json {
        return print(&format!("{whole}\n"));
    }
    print(&show::text(&document, io::stdout().is_terminal()))
}

/// What is asked for, by names.
enum Wish {
    Add(String, bool),
    One(fn(String) -> Change, String),
    Replace(String, String),
}

async fn change(mut how: How, wish: Wish) -> Result<(), Failure> {
    let begun = clock::monotonic();
    let Listed { asked, document, .. } = listed(&how.control, how.patience()).await?;
    how.control = asked;
    let id = |name: &str| resolve(&document, name).map(|member| member.node_id.clone());
    let changed = match wish {
        Wish::One(make, name) => make_it(&how, make(id(&name)?)).await?,
        Wish::Replace(old, new) => {
            make_it(&how, Change::Replace { old: id(&old)?, new: id(&new)? }).await?
        }
        Wish::Add(address, learner) => {
            let added = make_it(&how, Change::Add(address)).await?;
            // What was expected is no more: this very change came after it.
            how.expect = None;
            match learner {
                true => added,
                false => make_it(&how, Change::Promote(added.node_id)).await?,
            }
        }
    };
    let took_ms = clock::since(begun).as_secs_f64() * 1e3;
    let Changed { position, node_id } = changed;
    if how.control.json {
        let done = json!({ "position": position, "node_id": node_id, "took_ms": took_ms });
        return print(&format!("{done}\n"));
    }
    let document = listed(&how.control, how.patience()).await?.document;
    print(&format!(
        "done at position {position}, after {took_ms:.0} ms\n\n{}",
        show::text(&document, io::stdout().is_terminal())
    ))
}

/// Asks for `change` until it is made, or the time is over.
async fn make_it(how: &How, change: Change) -> Result<Changed, Failure> {
    let begun = clock::monotonic();
    let mut told = String::new();
    loop {
        let expect = match &how.expect {
            Some(expect) => expect.clone(),
            None => listed(&how.control, how.patience()).await?.document.membership,
        };
        let order = ChangeOrder { expect, change: change.clone() };
        let body: Value = serde_json::to_value(order).map_err(Failure::run)?;
        let refused = match how.control.ask(Method::POST, PATH, body).await? {
            Ok(answer) => return serde_json::from_value(answer).map_err(Failure::run),
            Err(refused) => refused,
        };
        // Somebody else's change came between our look and our change: look again.
        let overtaken = how.expect.is_none() && refused.message.starts_with("the membership is ");
        let for_now = refused.code == "unavailable" || overtaken;
        if !for_now || how.no_wait {
            return Err(refusal(&refused));
        }
        if clock::since(begun) >= how.control.timeout {
            let waited = how.control.timeout;
            return Err(Failure::run(format!(
                "not done after {waited:?}: {}\n{}, or wait longer with --timeout",
                refused.message, refused.remedy
            )));
        }
        if told != refused.message {
            told.clone_from(&refused.message);
            let _ = writeln!(io::stderr().lock(), "waiting: {told}");
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::MembersDocument;

    #[test]
    fn the_documents_are_as_documented() {
        let page = include_str!("../../../../docs/members-json.md");
        let blocks: Vec<&str> =
            page.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        let [list, done, order] = blocks[..] else { panic!("{} blocks", blocks.len()) };
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let shown: Value = serde_json::from_str(list).unwrap();
        let document: MembersDocument = serde_json::from_str(list).unwrap();
        assert_eq!(serde_json::to_value(document).unwrap(), shown);
        let done: Value = serde_json::from_str(done).unwrap();
        assert_eq!(keys(&done), ["node_id", "position", "took_ms"]);
        let order: ChangeOrder = serde_json::from_str(order).unwrap();
        assert!(matches!(order.change, Change::Replace { .. }));
    }
}
