//! Starts that must not happen: each ends soon, with an exit code and a sentence that names what is
//! wrong, and changes nothing.

use std::fs;
use std::path::Path;

use crate::common::{
    Finished, Origin, Setup, free_base_port, free_port, run, shoal, take_port, turn,
};

/// The command line or the configuration is wrong.
const EX_USAGE: i32 = 64;

/// Fails unless a start was refused with `code`, naming each of `words`.
fn refused(finished: &Finished, code: i32, words: &[&str]) {
    let Finished { code: found, output, errors } = finished;
    assert_eq!(*found, Some(code), "{output}{errors}");
    for word in words {
        assert!(errors.contains(word), "{word:?} is not in:\n{errors}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shoal.toml");
    fs::write(&file, "[node]\nname = \"node-0\"\n\n[edge]\nlistne = \"127.0.0.1:0\"\n").unwrap();
    let finished = run(&mut shoal(&["node", "--config", text(&file)]));
    refused(&finished, EX_USAGE, &["shoal.toml", "5", "listne"]);
}

#[test]
fn a_bad_value_is_named_with_its_flag() {
    for (flag, value) in
        [("--edge-listen", "nonsense"), ("--role", "king"), ("--store-budget", "-1")]
    {
        let finished = run(&mut shoal(&["node", &format!("{flag}={value}")]));
        refused(&finished, EX_USAGE, &[flag, value]);
    }
    refused(&run(&mut shoal(&["node", "--config", "/no/such/file"])), EX_USAGE, &["/no/such/file"]);
    refused(&run(&mut shoal(&["nonsense"])), EX_USAGE, &["nonsense"]);
}

#[test]
fn a_taken_port_is_named_before_anything_is_written() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let base = free_base_port();
    for group in [0, 101, 200, 301, 400] {
        let port = (base + group).to_string();
        let _taken = take_port(base + group).unwrap();
        let finished = run(shoal(&["up", "--data-dir", text(&data), "--nodes", "2"]).args([
            "--origin",
            "http://127.0.0.1:9",
            "--base-port",
            &base.to_string(),
        ]));
        refused(&finished, 1, &[&port]);
        assert!(!data.exists(), "{} was made", data.display());
    }
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "precious").unwrap();
    let below_a_file = file.join("data");
    let up = |data: &Path| {
        run(shoal(&["up", "--data-dir", text(data), "--origin", "http://127.0.0.1:9"])
            .args(["--base-port", &free_base_port().to_string()]))
    };
    let finished = up(&below_a_file);
    assert_ne!(finished.code, Some(0));
    assert!(finished.errors.contains(text(&below_a_file)), "{}", finished.errors);
    // A folder with somebody's files in it is not ours to fill.
    let finished = up(folder.path());
    refused(&finished, EX_USAGE, &[text(folder.path())]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn a_second_start_on_the_same_data_is_refused() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(1, 1).start();
    let data = text(cluster.data_dir()).to_owned();
    let up = run(&mut shoal(&["up", "--data-dir", &data, "--origin", origin.url()]));
    refused(&up, 1, &[&data]);
    // A single member finds its own folder in use, whatever its ports.
    let config = cluster.config_file("node-0");
    let node = run(shoal(&["node", "--config", text(&config)]).args([
        &format!("--edge-listen=127.0.0.1:{}", free_port()),
        &format!("--admin-listen=127.0.0.1:{}", free_port()),
        &format!("--cluster-listen=127.0.0.1:{}", free_port()),
    ]));
    assert_ne!(node.code, Some(0));
    assert!(node.errors.contains("node-0"), "{}", node.errors);
    assert_eq!(cluster.edge(0).get("/o/100/a").unwrap().head.status, 200);
    assert!(cluster.stop().success());
}

#[test]
fn data_of_another_cluster_is_refused_and_left_alone() {
    let _turn = turn();
    let origin = Origin::start(&[]);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut configs = Vec::new();
    let mut stores = Vec::new();
    for folder in &folders {
        let cluster = Setup::new(folder.path(), origin.url()).members(1, 1).start();
        cluster.edge(0).get("/o/100/a").unwrap();
        configs.push(cluster.config_file("node-0"));
        stores.push(cluster.data_dir().join("node-0/data"));
        assert!(cluster.stop().success());
    }
    let before = contents(&stores[1]);
    assert!(!before.is_empty());
    let finished =
        run(&mut shoal(&["node", "--config", text(&configs[0]), "--data-dir", text(&stores[1])]));
    refused(&finished, EX_USAGE, &[text(&stores[1]), "cluster"]);
    assert_eq!(contents(&stores[1]), before);
}

/// Every file below `folder` with its size and time of change, locks left out.
fn contents(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            found.extend(contents(&entry.path()));
        } else if !entry.file_name().to_string_lossy().to_ascii_lowercase().contains("lock") {
            let changed = meta.modified().unwrap();
            found.push(format!("{} {} {changed:?}", entry.path().display(), meta.len()));
        }
    }
    found.sort();
    found
}
