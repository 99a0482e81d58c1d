//! Dependencies: one version of what must agree with itself, none of what was decided against,
//! and only licences that an Apache-2.0 binary may carry.

use std::process::Command;

use serde_json::Value;

use crate::tree::Tree;

/// Two versions of these would not talk to each other, or would double the attack surface.
const SINGLE: [&str; 8] = ["h2", "http", "hyper", "openraft", "prost", "rustls", "tokio", "tonic"];

/// One TLS stack and one cryptographic provider: rustls with ring.
const BANNED: [&str; 5] = ["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl", "openssl-sys"];

/// Permissive licences, by SPDX identifier.
const LICENCES: [&str; 15] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Holds `Cargo.lock` to [`SINGLE`] and [`BANNED`].
pub(crate) fn versions(lock: &str) -> Vec<String> {
    let count = |name: &str| {
        let line = format!("name = \"{name}\"");
        lock.lines().filter(|other| *other == line).count()
    };
    let single = SINGLE.iter().filter_map(|name| match count(name) {
        1 => None,
        found => Some(format!("Cargo.lock: {found} versions of {name}, exactly one is wanted")),
    });
    let banned = BANNED.iter().filter(|name| count(name) > 0);
    let banned = banned.map(|name| format!("Cargo.lock: {name}: rustls with ring is the choice"));
    single.chain(banned).collect()
}

/// Holds every crate that is built here to [`LICENCES`].
pub(crate) fn licences(tree: &Tree) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform"])
        .arg(host())
        .current_dir(&tree.root)
        .output()
        .unwrap();
    if !output.status.success() {
        return vec![format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr))];
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > SINGLE.len(), "{} packages", packages.len());
    packages.iter().filter_map(licence).collect()
}

fn licence(package: &Value) -> Option<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let expression = package["license"].as_str().unwrap_or_default();
    (!permitted(expression)).then(|| format!("{name}: licence {expression:?} is not on the list"))
}

/// The platform that the compiler in use builds for.
fn host() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

/// Whether an SPDX expression can be met by [`LICENCES`] alone. `/` is the older spelling of `OR`.
fn permitted(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let spaced = expression.replace('(', " ( ").replace(')', " ) ");
    let mut words: Vec<_> = spaced.split_whitespace().rev().collect();
    either(&mut words) && words.is_empty()
}

fn either(words: &mut Vec<&str>) -> bool {
    let mut met = both(words);
    while words.pop_if(|word| *word == "OR").is_some() {
        met |= both(words);
    }
    met
}

fn both(words: &mut Vec<&str>) -> bool {
    let mut met = one(words);
    while words.pop_if(|word| *word == "AND").is_some() {
        met &= one(words);
    }
    met
}

fn one(words: &mut Vec<&str>) -> bool {
    match words.pop() {
        Some("(") => either(words) && words.pop() == Some(")"),
        Some(name) if words.pop_if(|word| *word == "WITH").is_some() => {
            let exception = words.pop().unwrap_or_default();
            LICENCES.contains(&format!("{name} WITH {exception}").as_str())
        }
        Some(name) => LICENCES.contains(&name),
        None => false,
    }
}

#[test]
fn wrong_versions_are_caught() {
    let line = |name: &&str| format!("[[package]]\nname = \"{name}\"\n");
    let good: String = SINGLE.iter().map(line).collect();
    assert_eq!(versions(&good), Vec::<String>::new());
    assert_eq!(versions(&format!("{good}{}", line(&"hyper"))).len(), 1);
    assert_eq!(versions(&format!("{good}{}", line(&"openssl-sys"))).len(), 1);
    assert_eq!(versions("").len(), SINGLE.len());
}

#[test]
fn licence_expressions_are_judged() {
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(Apache-2.0 OR MIT) AND BSD-3-Clause",
        "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
    ] {
        assert!(permitted(good), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT Apache-2.0", "MIT WITH oddity"] {
        assert!(!permitted(bad), "{bad}");
    }
    let package = serde_json::json!({ "name": "a", "license": null });
    assert!(licence(&package).is_some());
}
