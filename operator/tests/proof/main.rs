//! The proof that the operator grows, shrinks and upgrades a cluster under load without one failed
//! request: `make e2e`. It needs a Kubernetes cluster with the images, `kubectl` and `helm`;
//! `operator/tests/e2e/run.sh` brings all that together and says what each variable means.
//!
//! The load is a pod that asks through the cluster's service and verifies every byte. It runs from
//! before the first step until after the last; what a step cost is the difference between the sums
//! before and after it. One thing is no failure, and is counted apart: a request that a connection
//! which had served before was closed on, and that the client sent again, as every HTTP client does.
//!
//! | file | purpose |
//! |---|---|
//! | `settings` | what the variables say |
//! | `kube` | `kubectl` and `helm`, and waiting |
//! | `objects` | the objects that the proof makes |
//! | `load` | the load, and its sums |
//! | `steps`, `trouble` | what is done to the cluster |
//! | `report` | the table, and the document |

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kube;
mod load;
mod objects;
mod report;
mod settings;
mod steps;
mod trouble;

use kube::Kube;
use load::Load;
use report::{Report, Row};
use settings::Settings;

/// After a step the load goes on for so long, so that what it left behind is seen as its own.
const AFTER_STEP_S: u64 = 5;

/// What a step found out: said beside its figures. An error is a step that was not done.
type Found = Result<String, String>;

/// A step.
struct Step {
    name: &'static str,
    act: fn(&Kube) -> Found,
}

const STEPS: &[Step] = &[
    Step { name: "upgrade", act: steps::upgrade },
    Step { name: "super-nodes 3 to 5", act: steps::more_super_nodes },
    Step { name: "super-nodes 5 to 3", act: steps::fewer_super_nodes },
    Step { name: "pool 2 to 4", act: steps::more_nodes },
    Step { name: "pool 4 to 2", act: steps::fewer_nodes },
    Step { name: "lose a volume", act: trouble::lose_volume },
    Step { name: "delete a node", act: trouble::delete_node },
    Step { name: "kill the operator", act: trouble::kill_operator },
    Step { name: "certificates", act: trouble::rotate_certificates },
    Step { name: "site", act: trouble::change_site },
    Step { name: "drain a machine", act: trouble::drain_machine },
];

/// Asked for by name only: what is asked for is not served for a while, and the load has to see it.
const CONTROL: Step = Step { name: "control", act: trouble::lose_host };

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn no_request_fails() {
    let settings = Settings::from_environment();
    let kube = Kube::new(settings);
    let mut report = Report::open(&kube.settings);
    if kube.settings.wants("install") {
        report.say_install(steps::install(&kube));
    }
    let mut load = Load::start(&kube);
    let asked = |step: &&Step| kube.settings.wants(step.name);
    let control = Some(&CONTROL).filter(|step| kube.settings.names(step.name));
    for step in STEPS.iter().filter(asked).chain(control) {
        let before = load.sums();
        let origin_before = objects::origin_bytes(&kube);
        let begun = kube::Watch::start();
        let found = (step.act)(&kube);
        let took_s = begun.seconds();
        kube::sleep_s(AFTER_STEP_S);
        let after = load.sums();
        let origin_bytes = objects::origin_bytes(&kube).saturating_sub(origin_before);
        let failures = load.failures();
        let row = Row::new(step.name, found, (took_s, origin_bytes), (&before, &after));
        let row = if step.name == CONTROL.name { row.control() } else { row };
        report.add(row, failures);
    }
    load.stop();
    report.finish();
}
