#!/usr/bin/env python3
"""Writes the JSON schemas of custom resource definitions, as kubeconform reads them:
crd_schemas.py OUT_FOLDER CRD.yaml... Unknown fields are refused, as the API server would prune
them with no word."""

import json
import pathlib
import sys

import yaml


def strict(schema, at_root=True):
    """Closes every object that names its fields, in place."""
    if not isinstance(schema, dict):
        return
    fields = schema.get("properties")
    if fields is not None and not schema.get("x-kubernetes-preserve-unknown-fields"):
        if at_root:
            fields.setdefault("apiVersion", {"type": "string"})
            fields.setdefault("kind", {"type": "string"})
            fields["metadata"] = {"type": "object"}
        schema.setdefault("additionalProperties", False)
    if schema.pop("nullable", False) and "type" in schema:
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = schema["enum"] + [None]
    # JSON Schema knows no such formats, and some tools refuse unknown ones.
    if schema.get("format") in ("int32", "int64", "uint32", "uint64", "uint", "double"):
        del schema["format"]
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    for child in (fields or {}).values():
        strict(child, False)
    for key in ("items", "additionalProperties", "not"):
        strict(schema.get(key), False)
    for key in ("anyOf", "allOf", "oneOf"):
        for child in schema.get(key, []):
            strict(child, False)


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    written = 0
    for path in sys.argv[2:]:
        for definition in yaml.safe_load_all(pathlib.Path(path).read_text()):
            if not definition:
                continue
            kind = definition["spec"]["names"]["kind"].lower()
            for version in definition["spec"]["versions"]:
                schema = version["schema"]["openAPIV3Schema"]
                strict(schema)
                file = out / f"{kind}_{version['name']}.json"
                file.write_text(json.dumps(schema, indent=1))
                written += 1
    if not written:
        sys.exit("crd_schemas.py: no definition given")


if __name__ == "__main__":
    main()
