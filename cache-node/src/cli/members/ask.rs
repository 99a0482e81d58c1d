//! Whom to ask, and whom a name means.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use super::{PATH, TRY_EVERY};
use crate::admin::{MembersDocument, StatusDocument, TierMember, client};
use crate::cli::control::{ControlArgs, address, refusal};
use crate::cli::exit::Failure;
use crate::clock;
use crate::text::suggest::nearest;

/// Fewest digits by which an id may be named.
const ID_DIGITS_MIN: usize = 4;
/// How long a question waits for a leader: a hand-over or an election takes a second or two.
pub(super) const LEADER_PATIENCE: Duration = Duration::from_secs(5);

/// `control`, turned to a super-node: the member that it names, or one that this one knows.
///
/// # Errors
/// When no super-node answers.
async fn tier(control: &ControlArgs) -> Result<ControlArgs, Failure> {
    let named = address(&control.admin)?;
    let Some(status) = status(&named, control).await else {
        // What is wrong there is told by the call itself.
        return Ok(control.clone());
    };
    if status.role == "super" {
        return Ok(control.clone());
    }
    let supers = status.members.iter().filter(|member| member.role == "super");
    let mut supers: Vec<_> = supers.filter(|member| !member.admin_address.is_empty()).collect();
    supers.sort_by_key(|member| (member.state != "up", !member.voter));
    for member in &supers {
        let answer = client::get(&member.admin_address, "/readyz", control.timeout).await;
        if answer.is_ok_and(|(code, _)| code == StatusCode::OK) {
            return Ok(ControlArgs { admin: member.admin_address.clone(), ..control.clone() });
        }
    }
    let names: Vec<&str> = supers.iter().map(|member| member.name.as_str()).collect();
    Err(Failure::run(format!(
        "{} is a node, and no super-node that it knows is ready ({})\n\
         Give the admin address of a super-node with --admin or SHOAL_ADMIN.",
        status.name,
        names.join(", "),
    )))
}

async fn status(address: &str, control: &ControlArgs) -> Option<StatusDocument> {
    let (code, body) = client::get(address, "/status", control.timeout).await.ok()?;
    (code == StatusCode::OK).then(|| serde_json::from_slice(&body).ok()).flatten()
}

/// Who is in the tier.
pub(super) struct Listed {
    /// The super-node that said so.
    pub(super) asked: ControlArgs,
    pub(super) document: MembersDocument,
    /// The document as it came.
    pub(super) whole: Value,
}

/// Who is in the tier, asked again for as long as `patience` while nobody leads it or whom we turned
/// to has just left it.
///
/// # Errors
/// When the super-node cannot be asked, or has no leader to ask.
pub(super) async fn listed(control: &ControlArgs, patience: Duration) -> Result<Listed, Failure> {
    let begun = clock::monotonic();
    loop {
        let later = match tier(control).await {
            Err(nobody_ready) => nobody_ready,
            Ok(asked) => match asked.ask(Method::GET, PATH, Value::Null).await {
                Ok(Ok(whole)) => return read(asked, whole),
                Ok(Err(refused)) if refused.code == "unavailable" => refusal(&refused),
                Ok(Err(refused)) => return Err(refusal(&refused)),
                Err(failure) if asked.admin == control.admin => return Err(failure),
                Err(failure) => failure,
            },
        };
        if clock::since(begun) >= patience.min(control.timeout) {
            return Err(later);
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

fn read(asked: ControlArgs, whole: Value) -> Result<Listed, Failure> {
    let strange = |error| Failure::run(format!("the answer is no list of members: {error}"));
    let document = serde_json::from_value(whole.clone()).map_err(strange)?;
    Ok(Listed { asked, document, whole })
}

/// The super-node that `text` means: a name, an id, or the beginning of an id.
///
/// # Errors
/// When it means none, or several.
pub(super) fn resolve<'a>(
    document: &'a MembersDocument,
    text: &str,
) -> Result<&'a TierMember, Failure> {
    let supers = || document.members.iter().filter(|member| member.role != "node");
    let id = text.to_ascii_lowercase();
    let by_id = |member: &&TierMember| {
        id.len() >= ID_DIGITS_MIN && member.node_id.trim_start_matches('0').starts_with(&id)
            || member.node_id == id
    };
    let named: Vec<_> = supers().filter(|member| member.name == text).collect();
    let found = if named.is_empty() { supers().filter(by_id).collect() } else { named };
    match found[..] {
        [one] => Ok(one),
        [] => Err(Failure::usage(unknown(document, text))),
        _ => {
            let each = found.iter().map(|member| {
                format!(
                    "\n  {}  {} ({}, {})",
                    member.node_id, member.name, member.role, member.state
                )
            });
            let all: String = each.collect();
            Err(Failure::usage(format!("{text:?} may be any of these; give the id:{all}")))
        }
    }
}

fn unknown(document: &MembersDocument, text: &str) -> String {
    if document.removed.iter().any(|id| id == text) {
        return format!("super-node {text} was removed already");
    }
    if document.members.iter().any(|member| member.role == "node" && member.name == text) {
        return format!("{text:?} is a node; only super-nodes are in the tier");
    }
    let supers = document.members.iter().filter(|member| member.role != "node");
    let names: Vec<&str> = supers.map(|member| member.name.as_str()).collect();
    match nearest(text, names.iter().copied()) {
        Some(near) => format!("no super-node {text:?}; did you mean {near:?}?"),
        None => format!("no super-node {text:?}; the tier has {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::USAGE;

    fn document() -> MembersDocument {
        let member = |name: &str, node_id: &str, role: &str| TierMember {
            name: name.to_owned(),
            node_id: node_id.to_owned(),
            role: role.to_owned(),
            state: "up".to_owned(),
            ..TierMember::default()
        };
        MembersDocument {
            members: vec![
                member("super-0", "00000000000000a1", "voter"),
                member("super-1", "8f00000000000001", "voter"),
                member("super-1", "8f00000000000002", "learner"),
                member("node-0", "7700000000000001", "node"),
            ],
            removed: vec!["66000000000000cc".to_owned()],
            ..MembersDocument::default()
        }
    }

    fn told(text: &str) -> String {
        let failure = resolve(&document(), text).unwrap_err();
        assert_eq!(failure.code(), USAGE);
        failure.text()
    }

    #[test]
    fn a_name_or_an_id_means_one() {
        let document = document();
        let found = |text| resolve(&document, text).unwrap().node_id.as_str();
        assert_eq!(found("super-0"), "00000000000000a1");
        assert_eq!(found("00000000000000A1"), "00000000000000a1");
        assert_eq!(found("8f00000000000002"), "8f00000000000002");
    }

    #[test]
    fn what_means_none_or_several_is_told() {
        let several = told("super-1");
        assert!(
            several.contains("8f00000000000001") && several.contains("(learner, up)"),
            "{several}"
        );
        assert!(told("8f000000").contains("give the id"));
        assert!(told("supper-0").contains("did you mean \"super-0\"?"));
        assert!(told("somebody").contains("the tier has super-0, super-1"));
        assert!(told("node-0").contains("is a node"));
        assert!(told("66000000000000cc").contains("removed already"));
        assert!(told("8f0").contains("no super-node"), "too short to be meant");
    }
}
