//! How the end of a child process is told.

use std::io;
use std::os::unix::process::ExitStatusExt;

use super::*;
use crate::clock;

fn children() -> (tempfile::TempDir, Children) {
    let folder = tempfile::tempdir().unwrap();
    let children = Children::new(folder.path().to_owned());
    (folder, children)
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

fn alive(pid: u32) -> bool {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::test_kill_process(pid).is_ok()
}

#[tokio::test]
async fn an_end_is_told_with_its_cause_and_the_others_go_on() {
    let (_folder, mut children) = children();
    children.start("node-0", Kind::Node, shell("echo last words; exit 3")).unwrap();
    children.start("node-1", Kind::Node, shell("cat")).unwrap();
    let end = children.next_end().await;
    assert_eq!((end.name.as_str(), end.status.code()), ("node-0", Some(3)));
    assert!(end.to_string().contains("exit status: 3"), "{end}");
    assert_eq!(children.log_tail("node-0"), "last words");
    let pid = children.pid("node-1").unwrap();
    assert!(alive(pid));
    children.stop(&mut io::sink()).await;
    assert!(!alive(pid));
}

#[tokio::test]
async fn a_signal_is_told_as_one() {
    let (_folder, mut children) = children();
    children.start("node-0", Kind::Node, shell("kill -9 $$")).unwrap();
    let end = children.next_end().await;
    assert_eq!(end.status.signal(), Some(9));
    assert!(end.to_string().contains("signal: 9"), "{end}");
}

#[tokio::test]
async fn nodes_stop_before_super_nodes_before_the_origin() {
    let (folder, mut children) = children();
    let order = folder.path().join("order");
    for (name, kind) in [("o", Kind::Origin), ("s", Kind::Super), ("n", Kind::Node)] {
        let note = format!("echo {name} >> {}", order.display());
        let script = format!("trap '{note}; exit 0' TERM; echo ready; while :; do read x; done");
        children.start(name, kind, shell(&script)).unwrap();
        while children.log_tail(name) != "ready" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    children.stop(&mut io::sink()).await;
    assert_eq!(std::fs::read_to_string(order).unwrap(), "n\ns\no\n");
}

#[tokio::test]
async fn a_child_hears_the_end_of_its_parent() {
    let (_folder, mut children) = children();
    children.start("node-0", Kind::Node, shell("cat; echo parent gone")).unwrap();
    children.processes[0]._stdin = None;
    let end = children.next_end().await;
    assert!(end.status.success());
    assert_eq!(children.log_tail("node-0"), "parent gone");
}

#[tokio::test]
async fn waiting_can_be_broken_off() {
    let (_folder, mut children) = children();
    children.start("node-0", Kind::Node, shell("read x; exit 0")).unwrap();
    let started = clock::monotonic();
    let waited = tokio::time::timeout(Duration::from_millis(50), children.next_end()).await;
    assert!(waited.is_err() && clock::since(started) >= Duration::from_millis(50));
    assert!(alive(children.pid("node-0").unwrap()));
    children.stop(&mut io::sink()).await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let (_folder, mut children) = children();
    let refused = children.start("node-0", Kind::Node, Command::new("/none")).unwrap_err();
    assert!(refused.to_string().starts_with("node-0: cannot be started"), "{refused}");
}
