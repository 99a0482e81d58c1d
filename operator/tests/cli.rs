//! The operator's binary says what it is, and prints its definitions.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn operator(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shoal-operator")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn version_and_help_are_given() {
    let version = operator(&["--version"]);
    assert!(version.status.success());
    assert_eq!(text(&version.stdout), concat!("shoal-operator ", env!("CARGO_PKG_VERSION"), "\n"));
    let help = operator(&["--help"]);
    assert!(help.status.success());
    assert!(text(&help.stdout).contains("crds"), "{}", text(&help.stdout));
}

#[test]
fn definitions_are_printed_as_documents() {
    let crds = operator(&["crds"]);
    assert_eq!(crds.status.code(), Some(0), "{}", text(&crds.stderr));
    let printed = text(&crds.stdout);
    let documents: Vec<_> =
        printed.split("---\n").filter(|document| !document.is_empty()).collect();
    assert_eq!(documents.len(), 6, "{printed}");
    for document in documents {
        assert!(document.contains("kind: CustomResourceDefinition"), "{document}");
    }
}

#[test]
fn bad_usage_is_refused() {
    for arguments in [&[][..], &["crd"], &["--no-such-flag"]] {
        let bad = operator(arguments);
        assert_eq!(bad.status.code(), Some(64), "{arguments:?}: {}", text(&bad.stderr));
    }
}
