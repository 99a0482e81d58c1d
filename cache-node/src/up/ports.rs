//! Whether every port of a plan is free: found by taking each for a moment.

use std::net::TcpListener;

use super::UpError;
use super::plan::Plan;

/// Most taken ports that are named.
const NAMED_MAX: usize = 8;

/// Checks all listeners of `plan`.
///
/// # Errors
/// Names the ports that are taken, and whose they were to be.
pub(super) fn all_free(plan: &Plan) -> Result<(), UpError> {
    let mut held = Vec::new();
    let mut taken = Vec::new();
    for (address, whose) in plan.listeners() {
        match TcpListener::bind(address) {
            Ok(listener) => held.push(listener),
            Err(error) => taken.push(format!("port {} ({whose}): {error}", address.port())),
        }
    }
    if taken.is_empty() {
        return Ok(());
    }
    let more = taken.len().saturating_sub(NAMED_MAX);
    taken.truncate(NAMED_MAX);
    let rest = if more == 0 { String::new() } else { format!("; and {more} more") };
    Err(UpError::Ports(format!(
        "{}{rest}; stop what uses them, or use another --base-port (now {})",
        taken.join("; "),
        plan.base_port
    )))
}

#[cfg(test)]
mod tests {
    use super::super::UpOptions;
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_its_use() {
        // A listener of the system's choice, and a plan whose first edge would be there.
        let (holder, base_port) = loop {
            let holder = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = holder.local_addr().unwrap().port();
            if port <= 65_035 {
                break (holder, port);
            }
        };
        let options = UpOptions { base_port: Some(base_port), ..UpOptions::default() };
        let plan = Plan::new(&options, None).unwrap();
        let refused = all_free(&plan).unwrap_err();
        assert!(!refused.is_usage());
        let text = refused.to_string();
        assert!(text.contains(&format!("port {base_port} (edge of node-0)")), "{text}");
        assert!(text.contains("--base-port"), "{text}");
        drop(holder);
    }
}
