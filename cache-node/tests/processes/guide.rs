//! The guide: its commands run as they stand there, against a real cluster, and every flag that any
//! page names is one that the command has.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Cluster, Origin, Setup, binary, run, turn};

const GUIDE: &str = "../docs/guide";
/// Folders and files with commands in them.
const PAGES: [&str; 6] =
    ["../README.md", "../docs", GUIDE, "../docs/runbooks", "../deploy", "../deploy/helm/shoal"];

/// A fenced block: what stands behind the fence, and its text.
struct Fenced {
    kind: String,
    text: String,
}

fn fenced(page: &Path) -> Vec<Fenced> {
    let text = fs::read_to_string(page).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<Fenced> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), open.as_mut()) {
            (Some(kind), None) => open = Some(Fenced { kind: kind.into(), text: String::new() }),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{}: a fence is not closed", page.display());
    blocks
}

fn pages(place: &str) -> Vec<PathBuf> {
    if place.ends_with(".md") {
        return vec![place.into()];
    }
    let all = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> =
        all.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    pages.sort();
    pages
}

/// The page's text with the ports and files of this very cluster.
fn here(text: &str, cluster: &Cluster, origin: &Origin) -> String {
    let mut text = text.to_owned();
    for i in 0..3 {
        text = text.replace(&format!("http://127.0.0.1:{}", 18_080 + i), cluster.edge_url(i));
        let node = cluster.admin_url(&format!("node-{i}"));
        text = text.replace(&format!("http://127.0.0.1:{}", 18_180 + i), node);
        let tier = cluster.admin_url(&format!("super-{i}"));
        text = text.replace(&format!("http://127.0.0.1:{}", 18_280 + i), tier);
    }
    let token = cluster.data_dir().join("admin-token");
    text.replace("http://127.0.0.1:18580", origin.url())
        .replace("/tmp/shoal/admin-token", token.to_str().unwrap())
}

#[test]
fn its_commands_do_what_it_says() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(3, 3).start();
    let binaries = binary("shoal").parent().unwrap().to_owned();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let mut said = BTreeMap::new();
    for page in pages(GUIDE) {
        let blocks = fenced(&page).into_iter().filter(|block| block.kind == "sh");
        let script: String = blocks.map(|block| here(&block.text, &cluster, &origin)).collect();
        assert!(!script.contains("127.0.0.1:18"), "{}: a port of none: {script}", page.display());
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &script]).env("PATH", &path);
        let finished = run(bash.current_dir(folder.path()));
        let told = format!("{}\n{}", finished.output, finished.errors);
        assert_eq!(finished.code, Some(0), "{}:\n{script}\n{told}", page.display());
        said.insert(page.file_stem().unwrap().to_str().unwrap().to_owned(), finished.output);
    }
    // What the pages promise of the answers.
    let first = &said["quick-start"];
    assert!(first.contains("fwd=uri-miss") && first.contains("\"offload_percent\""), "{first}");
    assert!(said["sites"].contains("; hit"), "{}", said["sites"]);
    assert!(said["load-testing"].contains("\"failed\": 0"), "{}", said["load-testing"]);
    assert!(said["operations"].contains("super-0"), "{}", said["operations"]);
}

#[test]
fn flags_of_commands_on_any_page_exist() {
    let mut checked = 0;
    let mut helps = BTreeMap::new();
    for page in PAGES.into_iter().flat_map(pages) {
        for block in fenced(&page).iter().filter(|block| block.kind.starts_with("sh")) {
            let joined = block.text.replace("\\\n", " ");
            for line in joined.lines() {
                let line = line.split(" #").next().unwrap_or_default();
                let words: Vec<_> = line.split_whitespace().collect();
                let Some(at) = words.iter().position(|word| word.starts_with("shoal")) else {
                    continue;
                };
                // Anything but the command itself, such as a release of Helm's of that name.
                let plain = words[..at].iter().all(|word| word.contains('='));
                let names = ["shoal", "shoal-loadtest", "shoal-operator"];
                if !plain || !names.contains(&words[at]) {
                    continue;
                }
                checked += 1;
                check(&page, &words[at..], &mut helps);
            }
        }
    }
    assert!(checked > 40, "only {checked} commands found");
}

fn check(page: &Path, words: &[&str], helps: &mut BTreeMap<Vec<String>, String>) {
    let called = words[1..]
        .iter()
        .take_while(|word| !word.starts_with('-') && word.chars().all(|c| c.is_ascii_lowercase()));
    let mut command: Vec<String> =
        [words[0]].iter().chain(called.take(2)).map(|w| (*w).to_owned()).collect();
    // The second word may be an argument already.
    let help = loop {
        if let Some(help) = helps.get(&command) {
            break help.clone();
        }
        let mut asked = Command::new(binary(&command[0]));
        let finished = run(asked.args(&command[1..]).arg("--help"));
        if finished.code == Some(0) || command.len() <= 2 {
            let told = format!("{}: {command:?}: {}", page.display(), finished.errors);
            assert_eq!(finished.code, Some(0), "{told}");
            helps.insert(command.clone(), finished.output.clone());
            break finished.output;
        }
        command.pop();
    };
    for flag in words.iter().filter(|word| word.starts_with("--") && word.len() > 2) {
        let flag = flag.split('=').next().unwrap();
        let named =
            help.split(|c: char| c.is_whitespace() || c == ',' || c == '=').any(|w| w == flag);
        assert!(named, "{}: {} has no {flag}", page.display(), command.join(" "));
    }
}
