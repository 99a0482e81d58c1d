//! The command line of the real binary: where settings come from, what is refused, exit codes.
//! Nothing here starts a member.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The command line or the configuration is wrong.
const EX_USAGE: i32 = 64;

const FILE: &str = r#"
[node]
name = "from-file"
data_dir = "data"

[cluster]
id = "test"
listen = "127.0.0.1:7400"
super_nodes = ["127.0.0.1:7500"]
secret_file = "secret"
insecure = true

[[site]]
name = "docs"
hosts = ["docs.example.com"]
origin = "http://127.0.0.1:8000"
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("shoal.toml"), FILE).unwrap();
        fs::write(folder.path().join("secret"), "0f".repeat(32)).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("shoal.toml")
    }

    /// `shoal node --check` with these flags and variables.
    fn check(&self, flags: &[&str], variables: &[(&str, &str)]) -> Done {
        let mut command = shoal(&["node", "--check"]);
        command.env("SHOAL_CONFIG", self.file()).args(flags).envs(variables.iter().copied());
        done(&mut command)
    }
}

struct Done {
    code: Option<i32>,
    output: String,
    errors: String,
}

fn shoal(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("SHOAL_") {
            command.env_remove(variable);
        }
    }
    command.args(args);
    command
}

fn done(command: &mut Command) -> Done {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), output: text(output.stdout), errors: text(output.stderr) }
}

#[test]
fn a_valid_configuration_is_told_and_nothing_is_made() {
    let folder = Folder::new();
    let Done { code, output, errors } = folder.check(&[], &[]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    for fact in ["from-file", "plain text", "127.0.0.1:7500", "docs", "10 GiB"] {
        assert!(output.contains(fact), "{fact} is not in:\n{output}");
    }
    assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 2);
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let folder = Folder::new();
    let variables = [("SHOAL_NAME", "from-variable"), ("SHOAL_ZONE", "")];
    let told = folder.check(&[], &variables).output;
    assert!(told.contains("from-variable") && !told.contains("from-file"), "{told}");
    let told = folder.check(&["--name", "from-flag"], &variables).output;
    assert!(told.contains("from-flag") && !told.contains("from-variable"), "{told}");
    let empty = folder.check(&[], &[("SHOAL_NAME", "")]).output;
    assert!(empty.contains("from-file"), "{empty}");
}

#[test]
fn every_fault_is_told_at_once_with_its_place() {
    let folder = Folder::new();
    fs::write(folder.file(), FILE.replace("data_dir", "datadir")).unwrap();
    let refused = folder.check(&["--edge-listen", "here"], &[("SHOAL_COPIES", "9")]);
    assert_eq!(refused.code, Some(EX_USAGE));
    let expected = [
        "shoal.toml:4: node.datadir is an unknown key; did you mean node.data_dir?",
        "node.data_dir is missing",
        "--edge-listen is \"here\"; expected an address and a port",
        "SHOAL_COPIES is \"9\"; expected 1 to 8",
    ];
    for fault in expected {
        assert!(refused.errors.contains(fault), "{fault} is not in:\n{}", refused.errors);
    }
    assert_eq!(refused.output, "");
}

#[test]
fn a_truth_may_stand_alone_or_be_said() {
    let folder = Folder::new();
    fs::write(folder.file(), FILE.replace("insecure = true", "")).unwrap();
    for flag in ["--insecure", "--insecure=true"] {
        assert_eq!(folder.check(&[flag], &[]).code, Some(0), "{flag}");
    }
    assert_eq!(folder.check(&[], &[("SHOAL_INSECURE", "1")]).code, Some(0));
    let open = folder.check(&["--insecure=false"], &[]);
    assert_eq!(open.code, Some(EX_USAGE));
    assert!(open.errors.contains("cluster.tls is missing"), "{}", open.errors);
}

#[test]
fn a_misspelt_variable_is_a_warning() {
    let folder = Folder::new();
    let told = folder.check(&[], &[("SHOAL_EGDE_LISTEN", "a"), ("SHOAL_PORT", "tcp://a:1")]);
    assert_eq!(told.code, Some(0));
    assert!(told.output.contains("did you mean SHOAL_EDGE_LISTEN?"), "{}", told.output);
    assert!(!told.output.contains("SHOAL_PORT"), "{}", told.output);
}

#[test]
fn exit_codes_tell_usage_from_failure() {
    let usage: [&[&str]; 6] = [
        &[],
        &["nonsense"],
        &["node", "--no-such-flag"],
        &["up", "--nodes", "0"],
        &["up", "--origin", "http://a", "--demo-origin"],
        &["status", "--admin", "nowhere"],
    ];
    for args in usage {
        let told = done(&mut shoal(args));
        assert_eq!((told.code, told.output.as_str()), (Some(EX_USAGE), ""), "{args:?}");
        assert!(!told.errors.is_empty(), "{args:?}");
    }
    let silent = done(&mut shoal(&["status", "--admin", "127.0.0.1:1"]));
    assert_eq!(silent.code, Some(1));
    assert!(silent.errors.contains("--admin"), "{}", silent.errors);
    for right in [&["version"][..], &["--version"], &["node", "--help"], &["help"]] {
        assert_eq!(done(&mut shoal(right)).code, Some(0), "{right:?}");
    }
}
