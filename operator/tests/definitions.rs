//! The definitions as they are committed, and what a definition must have.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use shoal_operator::crd::{all, yaml};

/// Client-side apply keeps the whole definition in an annotation.
const DEFINITION_BYTES_MAX: usize = 64 * 1024;

fn folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds")
}

fn committed(definition: &CustomResourceDefinition) -> String {
    format!(
        "# Written from operator/src/crd by SHOAL_WRITE_CRDS=1 cargo test --test definitions; do not edit.\n{}",
        yaml(definition).unwrap()
    )
}

#[test]
fn the_committed_definitions_are_those_of_the_types() {
    let write = std::env::var_os("SHOAL_WRITE_CRDS").is_some();
    let mut names = Vec::new();
    for definition in all() {
        let name = format!("{}.yaml", definition.spec.names.plural);
        let path = folder().join(&name);
        if write {
            std::fs::create_dir_all(folder()).unwrap();
            std::fs::write(&path, committed(&definition)).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == committed(&definition),
            "deploy/crds/{name} differs from operator/src/crd; write it anew with \
             SHOAL_WRITE_CRDS=1 cargo test --workspace --locked --test definitions"
        );
        names.push(name);
    }
    let others = std::fs::read_dir(folder()).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        (name.ends_with(".yaml") && name != "kustomization.yaml" && !names.contains(&name))
            .then_some(name)
    });
    assert_eq!(others.collect::<Vec<_>>(), Vec::<String>::new(), "definitions of no type");
}

#[test]
fn a_definition_is_small_and_explained() {
    for definition in all() {
        let kind = definition.spec.names.kind.clone();
        assert!(yaml(&definition).unwrap().len() < DEFINITION_BYTES_MAX, "{kind} is too long");
        assert_eq!(definition.spec.names.categories, Some(vec!["shoal".to_owned()]), "{kind}");
        assert!(definition.spec.names.short_names.is_some_and(|names| !names.is_empty()), "{kind}");
        let version = &definition.spec.versions[0];
        assert!(version.additional_printer_columns.as_ref().is_some_and(|c| c.len() > 3), "{kind}");
        assert!(version.subresources.as_ref().is_some_and(|s| s.status.is_some()), "{kind}");
        let schema = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        let value = serde_json::to_value(schema).unwrap();
        let properties = &value["properties"];
        assert_eq!(
            properties["status"]["properties"]["conditions"]["x-kubernetes-list-map-keys"][0],
            "type",
            "{kind}"
        );
        let mut silent = Vec::new();
        unexplained(&properties["spec"], &mut vec!["spec".to_owned()], &mut silent);
        assert_eq!(silent, Vec::<String>::new(), "{kind}: fields that explain nothing");
        for (rule, message) in rules(&value) {
            assert!(message.len() > 20, "{kind}: {rule} says no remedy: {message:?}");
        }
    }
}

fn unexplained(schema: &serde_json::Value, path: &mut Vec<String>, silent: &mut Vec<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        path.push(name.clone());
        if field["description"].as_str().unwrap_or_default().is_empty() {
            silent.push(path.join("."));
        }
        unexplained(field, path, silent);
        unexplained(&field["items"], path, silent);
        path.pop();
    }
}

fn rules(schema: &serde_json::Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    match schema {
        serde_json::Value::Object(map) => {
            for rule in
                map.get("x-kubernetes-validations").and_then(|r| r.as_array()).into_iter().flatten()
            {
                let text = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
                found.push((text("rule"), text("message")));
            }
            map.values().for_each(|value| found.extend(rules(value)));
        }
        serde_json::Value::Array(values) => {
            values.iter().for_each(|value| found.extend(rules(value)));
        }
        _ => {}
    }
    found
}
