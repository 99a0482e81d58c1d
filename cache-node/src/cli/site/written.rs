//! Sites as people write them: files in TOML or JSON, and single keys on the command line.

use std::io::Read;

use serde_json::{Map, Value};

use super::ANSWERED;
use crate::cli::exit::Failure;

/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The sites of the file, or of standard input for `-`, with their names.
pub(super) fn sites(file: &str) -> Result<Vec<(String, Value)>, Failure> {
    let shown = if file == "-" { "standard input" } else { file };
    let failed = |error: std::io::Error| {
        let hint =
            "expected a TOML or JSON file with sites, - for standard input, or NAME KEY=VALUE";
        Failure::usage(format!("{shown}: {error}; {hint}"))
    };
    let reader: Box<dyn Read> = match file {
        "-" => Box::new(std::io::stdin()),
        file => Box::new(std::fs::File::open(file).map_err(failed)?),
    };
    let mut text = String::new();
    reader.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    read(&text).map_err(|why| Failure::usage(format!("{shown}: {why}")))
}

fn read(text: &str) -> Result<Vec<(String, Value)>, String> {
    let as_json =
        || serde_json::from_str::<Value>(text).map_err(|error| format!("not JSON: {error}"));
    let document: Value = match text.trim_start().chars().next() {
        Some('{') => as_json()?,
        first => match toml::from_str::<toml::Table>(text) {
            Ok(table) => serde_json::to_value(table).map_err(|error| error.to_string())?,
            // A table of TOML and a list of JSON begin with the same sign.
            Err(_) if first == Some('[') && as_json().is_ok() => as_json()?,
            Err(error) => return Err(format!("not TOML: {error}")),
        },
    };
    let found = match document {
        Value::Array(sites) => sites,
        // A configuration file, or the answer to `list --json`; what else it says is not looked at.
        Value::Object(mut keys) => match keys.remove("site").or_else(|| keys.remove("sites")) {
            Some(Value::Array(sites)) => sites,
            Some(_) => return Err("\"site\" is no list; write [[site]]".to_owned()),
            None => vec![Value::Object(keys)],
        },
        _ => return Err("no site; write an object or a table".to_owned()),
    };
    if found.is_empty() {
        return Err("no site in it".to_owned());
    }
    found.into_iter().map(named).collect()
}

fn named(site: Value) -> Result<(String, Value), String> {
    let Value::Object(mut keys) = site else { return Err(format!("{site} is no site")) };
    for key in ANSWERED {
        keys.remove(key);
    }
    let Some(Value::String(name)) = keys.remove("name") else {
        return Err("a site without a name; write name = \"...\"".to_owned());
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(plain) {
        return Err(format!("name is {name:?}; write letters, digits, '-', '_' or '.'"));
    }
    Ok((name, Value::Object(keys)))
}

/// `KEY=VALUE`, where VALUE is TOML, or else text.
pub(super) fn assignment(text: &str) -> Result<(String, Value), Failure> {
    let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
        return Err(Failure::usage(format!("{text:?}: expected KEY=VALUE")));
    };
    let read: Option<Value> = toml::from_str::<toml::Table>(&format!("value = {value}"))
        .ok()
        .and_then(|table| serde_json::to_value(table).ok())
        .and_then(|mut table: Value| table.as_object_mut().and_then(alone));
    Ok((key.trim().to_owned(), read.unwrap_or_else(|| Value::String(value.to_owned()))))
}

/// The value, if there is nothing else: a line break in it could have brought more keys.
fn alone(table: &mut Map<String, Value>) -> Option<Value> {
    let value = table.remove("value");
    value.filter(|_| table.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_are_toml_or_json_with_one_site_or_more() {
        let keys = json!({ "hosts": ["a"], "origin": "http://o" });
        let docs = vec![("docs".to_owned(), keys.clone())];
        let bare = "name = \"docs\"\nhosts = [\"a\"]\norigin = \"http://o\"\n";
        assert_eq!(read(bare).unwrap(), docs);
        assert_eq!(read(&format!("[[site]]\n{bare}")).unwrap(), docs);
        assert_eq!(read(&format!("[node]\nname = \"n\"\n[[site]]\n{bare}")).unwrap(), docs);
        let mut site = keys.clone();
        site["name"] = json!("docs");
        site["revision"] = json!("7");
        site["source"] = json!("file");
        assert_eq!(read(&site.to_string()).unwrap(), docs);
        assert_eq!(read(&json!({ "revision": "7", "sites": [site] }).to_string()).unwrap(), docs);
        let two = read(&json!([site, { "name": "apt" }]).to_string()).unwrap();
        assert_eq!(two.len(), 2);
        for wrong in ["", "{", "[]", "hosts = []", "name = \"a/b\"", "site = 3", "[3]"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_value_is_toml_or_else_text() {
        let value = |text: &str| assignment(&format!("key={text}")).unwrap().1;
        assert_eq!(value("12"), json!(12));
        assert_eq!(value("[\"a\", \"b\"]"), json!(["a", "b"]));
        assert_eq!(value("true"), json!(true));
        assert_eq!(value("http://o.test"), json!("http://o.test"));
        assert_eq!(value("\"quoted\""), json!("quoted"));
        assert_eq!(value("1\nother = 2"), json!("1\nother = 2"));
        assert_eq!(value(""), json!(""));
        for wrong in ["key", "=value", ""] {
            assert!(assignment(wrong).is_err(), "{wrong:?}");
        }
    }
}
