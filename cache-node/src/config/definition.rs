//! A site's definition as JSON, with the keys of a `[[site]]` table: as calls bring it, as the index
//! keeps it, and as calls answer it.
//!
//! Kept is only what differs from the defaults, so that a member of another version can read what it
//! needs; answered is everything.

use serde_json::{Map, Value};

use crate::policy::site::{SiteConfig, SiteError, Sites};
use crate::text::suggest::nearest;

/// Something in a definition that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key.
    pub field: String,
    /// Its value, or the part of it that is wrong.
    pub value: String,
    /// What to write instead.
    pub remedy: String,
}

impl Fault {
    fn new(field: &str, value: impl ToString, remedy: impl Into<String>) -> Self {
        Self { field: field.to_owned(), value: value.to_string(), remedy: remedy.into() }
    }
}

impl From<SiteError> for Fault {
    fn from(error: SiteError) -> Self {
        Self::new(error.field, error.value, error.remedy)
    }
}

/// Reads and checks the definition of the site called `name`, by itself.
///
/// # Errors
/// Every fault found.
pub fn read(name: &str, definition: &Value) -> Result<SiteConfig, Vec<Fault>> {
    let Value::Object(keys) = definition else {
        return Err(vec![Fault::new("site", definition, "write an object with a site's keys")]);
    };
    let mut keys = keys.clone();
    if let Some(own) = keys.get("name").filter(|own| own.as_str() != Some(name)) {
        return Err(vec![Fault::new("name", own, format!("write {name:?}, or leave it out"))]);
    }
    keys.insert("name".to_owned(), name.into());
    let faults: Vec<_> = keys.iter().filter_map(|(key, value)| alone(key, value)).collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    let site: SiteConfig = serde_json::from_value(Value::Object(keys)).map_err(|error| {
        let error = error.to_string();
        let missing = quoted(&error).next().unwrap_or("site");
        vec![Fault::new(missing, "missing", "give it")]
    })?;
    Sites::new(vec![site.clone()])
        .map_err(|errors| errors.into_iter().map(Fault::from).collect::<Vec<_>>())?;
    Ok(site)
}

/// What is wrong with one key, whatever the others are.
fn alone(key: &str, value: &Value) -> Option<Fault> {
    let Value::Object(mut keys) = least("a") else { return None };
    keys.insert(key.to_owned(), value.clone());
    let error = serde_json::from_value::<SiteConfig>(Value::Object(keys)).err()?.to_string();
    if !error.starts_with(&format!("unknown field `{key}`")) {
        return Some(Fault::new(key, value, error));
    }
    let known: Vec<&str> = quoted(&error).filter(|word| *word != key).collect();
    let remedy = match nearest(key, known.iter().copied()) {
        Some(near) => format!("an unknown key; did you mean {near}?"),
        None => format!("an unknown key; write one of {}", known.join(", ")),
    };
    Some(Fault::new(key, value, remedy))
}

/// The words that a message of serde's puts in backticks.
fn quoted(message: &str) -> impl Iterator<Item = &str> {
    message.split('`').skip(1).step_by(2)
}

/// A site with nothing but what every site must have.
fn least(name: &str) -> Value {
    serde_json::json!({ "name": name, "hosts": ["a.invalid"], "origin": "http://a.invalid" })
}

/// All keys of a site, and their values.
pub fn whole(site: &SiteConfig) -> Map<String, Value> {
    match serde_json::to_value(site) {
        Ok(Value::Object(keys)) => keys,
        // A struct of named fields is an object.
        Ok(_) | Err(_) => Map::new(),
    }
}

/// What the index keeps of a site.
pub fn kept(site: &SiteConfig) -> Vec<u8> {
    let usual = serde_json::from_value(least(&site.name)).map(|site| whole(&site));
    let usual = usual.unwrap_or_default();
    let differs = |(key, value): &(String, Value)| usual.get(key) != Some(value) || key == "name";
    let keys: Map<_, _> = whole(site).into_iter().filter(differs).collect();
    Value::Object(keys).to_string().into_bytes()
}

/// Reads what the index keeps.
///
/// # Errors
/// Every fault found: another version of Shoal may have written it.
pub fn read_kept(name: &str, definition: &[u8]) -> Result<SiteConfig, Vec<Fault>> {
    let json = serde_json::from_slice(definition)
        .map_err(|error| vec![Fault::new("site", error, "it is not JSON")])?;
    read(name, &json)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn docs() -> Value {
        json!({ "hosts": ["docs.example.com"], "origin": "http://10.0.0.9", "targeted": [] })
    }

    #[test]
    fn the_keys_are_those_of_the_openapi_document() {
        const DOCUMENT: &str = include_str!("../../../docs/openapi.json");
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let told = &document["components"]["schemas"];
        let keys = |value: &Value| {
            value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>()
        };
        let mut definition = docs();
        let ttl = json!({
            "default_s": 1, "forced_s": 1, "stale_while_revalidate_s": 1, "stale_if_error_s": 1,
        });
        definition["ttl"] = ttl.clone();
        definition["health"] = json!({ "path": "/" });
        definition["path"] = json!([
            { "prefix": "/", "bypass": true, "ttl": ttl, "key": {} }, { "glob": "*" },
        ]);
        let site = Value::Object(whole(&read("docs", &definition).unwrap()));
        assert_eq!(keys(&told["Site"]["properties"]), keys(&site));
        assert_eq!(keys(&told["Ttl"]["properties"]), keys(&site["ttl"]));
        assert_eq!(keys(&told["Key"]["properties"]), keys(&site["key"]));
        let own = &told["Site"]["properties"];
        for table in ["health", "request_headers", "response_headers"] {
            assert_eq!(keys(&own[table]["properties"]), keys(&site[table]), "{table}");
        }
        let rules = site["path"].as_array().unwrap().iter().flat_map(keys);
        assert_eq!(keys(&own["path"]["items"]["properties"]), rules.collect());
    }

    fn faults(change: impl FnOnce(&mut Value)) -> Vec<Fault> {
        let mut definition = docs();
        change(&mut definition);
        read("docs", &definition).unwrap_err()
    }

    #[test]
    fn what_is_kept_reads_back_and_says_no_more_than_it_must() {
        let site = read("docs", &docs()).unwrap();
        let kept = kept(&site);
        let keys: Value = serde_json::from_slice(&kept).unwrap();
        let expected = json!({ "name": "docs", "hosts": ["docs.example.com"], "origin": "http://10.0.0.9", "targeted": [] });
        assert_eq!(keys, expected);
        assert_eq!(read_kept("docs", &kept).unwrap(), site);
        let whole = Value::Object(whole(&site));
        assert_eq!(whole["connect_timeout_ms"], 3_000);
        assert_eq!(read("docs", &whole).unwrap(), site);
        assert!(read_kept("docs", b"{").is_err() && read_kept("docs", b"[]").is_err());
    }

    #[test]
    fn every_fault_names_its_key() {
        let found = faults(|site| {
            site["hosts"] = json!("docs.example.com");
            site["orign"] = json!("http://o");
            site["connect_timeout_ms"] = json!("3s");
        });
        let fields: Vec<_> = found.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["connect_timeout_ms", "hosts", "orign"]);
        assert_eq!(found[2].remedy, "an unknown key; did you mean origin?");
        let values = faults(|site| site["hosts"] = json!(["a b"]));
        assert_eq!((values[0].field.as_str(), values[0].value.as_str()), ("hosts", "a b"));
        assert!(values[0].remedy.contains("write a host name"), "{values:?}");
        let missing = faults(|site| drop(site.as_object_mut().unwrap().remove("origin")));
        assert_eq!(missing, [Fault::new("origin", "missing", "give it")]);
        let other = faults(|site| site["name"] = json!("apt"));
        assert!(other[0].remedy.contains("\"docs\""), "{other:?}");
    }
}
