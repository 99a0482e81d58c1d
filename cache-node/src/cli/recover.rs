//! `shoal recover`: goes on from one survivor when most super-nodes are lost for good. Works on the
//! survivor's data directory, while no process runs on it.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::exit::Failure;
use super::{on_small_runtime, print};
use crate::node::recovery::{self, Prospect, Recovered};
use crate::text::table::{Align, Table};

/// `shoal recover`'s flags.
#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    /// The survivor's data directory
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Do it: the token that the command prints without this flag
    #[arg(long, value_name = "TOKEN")]
    confirm: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Looks, or does it.
pub(super) fn run(args: &RecoverArgs) -> Result<(), Failure> {
    on_small_runtime(async {
        match &args.confirm {
            None => {
                let found = recovery::inspect(&args.data_dir).await.map_err(Failure::run)?;
                print(&if args.json { prospect_json(&found) } else { prospect(&found, args) })
            }
            Some(token) => {
                let done = recovery::recover(&args.data_dir, token).await;
                let done = done.map_err(Failure::run)?;
                print(&if args.json { recovered_json(&done) } else { recovered(&done, args) })
            }
        }
    })
}

fn prospect_json(found: &Prospect) -> String {
    let Prospect { survivor, last, committed, applied, generation, dropped, token } = found;
    let (cluster_id, node_id, name) = survivor;
    let dropped: Vec<_> = dropped
        .iter()
        .map(|other| {
            json!({
                "name": other.name,
                "node_id": other.node_id.to_string(),
                "cluster_address": other.cluster_address,
                "voter": other.voter,
            })
        })
        .collect();
    let document = json!({
        "recovered": false,
        "cluster_id": cluster_id.to_string(),
        "name": name,
        "node_id": node_id.to_string(),
        "last_term": last.0,
        "last_position": last.1,
        "committed_position": committed,
        "applied_position": applied,
        "generation": generation,
        "dropped": dropped,
        "token": token,
    });
    format!("{document}\n")
}

fn recovered_json(done: &Recovered) -> String {
    let Recovered { position, generation } = done;
    let document = json!({ "recovered": true, "position": position, "generation": generation });
    format!("{document}\n")
}

fn prospect(found: &Prospect, args: &RecoverArgs) -> String {
    let Prospect { survivor, last, committed, applied, generation, dropped, token } = found;
    let (cluster_id, node_id, name) = survivor;
    let mut facts = Table::new(&[("survivor", Align::Left), (name.as_str(), Align::Left)]);
    let mut fact = |name: &str, value: String| facts.row(vec![name.to_owned(), value]);
    fact("id", node_id.to_string());
    fact("cluster", cluster_id.to_string());
    fact("last entry", format!("position {}, term {}", last.1, last.0));
    fact("known to be committed", format!("up to {committed}"));
    fact("applied", format!("up to {applied}"));
    fact("recovered before", format!("{generation} times"));
    let mut lost = Table::new(&[
        ("dropped for ever", Align::Left),
        ("id", Align::Left),
        ("vote", Align::Left),
        ("address", Align::Left),
    ]);
    for other in dropped {
        let vote = if other.voter { "voter" } else { "learner" };
        let cells = [&other.name, &other.node_id.to_string(), vote, &other.cluster_address];
        lost.row(cells.map(|cell: &str| cell.to_owned()).to_vec());
    }
    let names: Vec<&str> = dropped.iter().map(|other| other.name.as_str()).collect();
    let dir = args.data_dir.display();
    format!(
        "{facts}\n{lost}\n\
         This makes {name} the whole tier. Nothing has been changed yet.\n\n\
         What may be lost: every write that was acknowledged after position {last}, and so is not\n\
         in this log. Purges may be among them: purge again what was purged last.\n\n\
         Do it only when {names} will not be back. If they run, or come\n\
         back and reach one another but not {name}, they go on as a second cluster\n\
         until they meet {name}: stop them, and empty their data directories, first.\n\n\
         To do it:\n\n  shoal recover --data-dir {dir} --confirm {token}\n",
        last = last.1,
        names = names.join(" and "),
    )
}

fn recovered(done: &Recovered, args: &RecoverArgs) -> String {
    let Recovered { position, generation } = done;
    format!(
        "recovered: the log goes on at position {position}, as generation {generation}\n\n\
         Start the super-node of {} now. New super-nodes join it with empty data directories.\n\
         Purge again what was purged last.\n",
        args.data_dir.display()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use shoal_proto::NodeId;

    use super::*;
    use crate::node::recovery::Dropped;

    fn found() -> Prospect {
        let other = |id, name: &str| Dropped {
            node_id: NodeId(id),
            name: name.to_owned(),
            cluster_address: format!("{name}:7400"),
            voter: true,
        };
        Prospect {
            survivor: ("demo".parse().unwrap(), NodeId(0xa1), "super-0".to_owned()),
            last: (4, 812),
            committed: 810,
            applied: 809,
            generation: 0,
            dropped: vec![other(0xb2, "super-1"), other(0xc3, "super-2")],
            token: "recover-super-0-1a2b3c4d".to_owned(),
        }
    }

    #[test]
    fn the_first_run_says_what_may_be_lost_and_how_to_go_on() {
        let args = RecoverArgs { data_dir: "/data/s".into(), confirm: None, json: false };
        let text = prospect(&found(), &args);
        let told = [
            "super-0",
            "position 812, term 4",
            "acknowledged after position 812",
            "super-1 and super-2 will not be back",
            "second cluster",
            "Purges may be among them",
            "shoal recover --data-dir /data/s --confirm recover-super-0-1a2b3c4d",
        ];
        for part in told {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }

    #[test]
    fn both_documents_are_as_documented() {
        let page = include_str!("../../../docs/recover-json.md");
        let blocks: Vec<Value> = page
            .split("```json\n")
            .skip(1)
            .map(|rest| serde_json::from_str(rest.split("```").next().unwrap()).unwrap())
            .collect();
        let done = Recovered { position: 1_000_000_812, generation: 1 };
        let printed = [prospect_json(&found()), recovered_json(&done)];
        let printed = printed.map(|text| serde_json::from_str::<Value>(&text).unwrap());
        assert_eq!(blocks, printed);
    }
}
