#!/usr/bin/env bash
# Installs the tools that look at charts and manifests, each at a fixed version, and prints the
# folder that holds them. What is there already is not installed again; two runs at a time wait for
# one another. All talk goes to standard error.
#
#   tools.sh         helm, kubeconform, kube-score, and schemas/ of Kubernetes' own kinds
#   tools.sh helm3   these, and the last helm of the line before as helm3
set -euo pipefail

helm=v4.2.4
helm3=v3.21.4
kubeconform=v0.7.0
kube_score=v1.20.0
# Kubernetes' schemas as a package: kubeconform would fetch them one by one, and tell no unknown
# fields.
schemas=1.37.0
# The oldest version that the chart supports, and the one that the tests run.
versions=(v1.33.0 v1.35.0)

cache=${XDG_CACHE_HOME:-$HOME/.cache}/shoal
hash=$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-12)
folder=$cache/chart-tools-$hash

give_up() {
    printf 'control-plane/tools.sh: %s\n' "$*" >&2
    exit 69
}

wanted=(helm kubeconform kube-score schemas)
case ${1:-} in
'') ;;
helm3) wanted+=(helm3) ;;
*) give_up "no such tool: $1" ;;
esac

all_there() {
    local tool
    for tool in "${wanted[@]}"; do
        [ -e "$folder/$tool" ] || return 1
    done
}

# go_install TOOL PACKAGE@VERSION: a tool appears whole under its name, or not at all.
go_install() {
    [ ! -e "$folder/$1" ] || return 0
    printf 'control-plane/tools.sh: building %s\n' "$1" >&2
    local new=$folder/.new name
    rm -rf "$new" && mkdir "$new"
    CGO_ENABLED=0 GOWORK=off GOFLAGS='-trimpath -buildvcs=false' GOBIN=$new \
        go install -ldflags '-s -w' "$2" >&2
    name=$(ls "$new")
    mv "$new/$name" "$folder/$1"
    rmdir "$new"
}

# A wheel is a zip file: the schemas are taken out of it, and nothing of it is run or installed.
take_schemas() {
    [ ! -e "$folder/schemas" ] || return 0
    printf 'control-plane/tools.sh: taking schemas\n' >&2
    local new=$folder/.schemas
    rm -rf "$new" && mkdir "$new"
    python3 -m pip download -q --no-deps --disable-pip-version-check -d "$new" \
        "kubernetes-validate==$schemas" >&2
    python3 - "$new" "${versions[@]}" >&2 <<'PYTHON'
import json, pathlib, re, sys, zipfile

folder, versions = pathlib.Path(sys.argv[1]), sys.argv[2:]
wheel = next(folder.glob("*.whl"))


def closed(schema):
    """Refuses fields that are not named, and lets references stay within the file."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {"$ref": "#/definitions/" + schema["$ref"].rsplit("/", 1)[-1]}
    schema = {key: value for key, value in schema.items() if key != "description"}
    if "properties" in schema:
        fields = schema["properties"]
        schema["properties"] = {name: closed(field) for name, field in fields.items()}
        schema.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if key in schema:
            schema[key] = closed(schema[key])
    for key in ("oneOf", "anyOf", "allOf"):
        if key in schema:
            schema[key] = [closed(part) for part in schema[key]]
    return schema


def needed(definitions, name, found):
    found.add(name)
    for part in re.findall(r'"#/definitions/([^"]+)"', json.dumps(definitions[name])):
        if part not in found:
            needed(definitions, part, found)
    return found


for version in versions:
    with zipfile.ZipFile(wheel) as files:
        path = f"kubernetes_validate/kubernetes-json-schema/{version}-local/_definitions.json"
        definitions = json.loads(files.read(path))["$defs"]
    definitions = {name: closed(definition) for name, definition in definitions.items()}
    target = folder / "schemas" / version
    target.mkdir(parents=True)
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            if kind["kind"].endswith("List") or len(definition["x-kubernetes-group-version-kind"]) > 1:
                continue
            group = kind["group"].split(".")[0]
            parts = [kind["kind"], group, kind["version"]]
            used = needed(definitions, name, set())
            schema = {"$ref": f"#/definitions/{name}",
                      "definitions": {part: definitions[part] for part in sorted(used)}}
            file = target / ("-".join(filter(None, parts)).lower() + ".json")
            file.write_text(json.dumps(schema))
    if not (target / "deployment-apps-v1.json").exists():
        sys.exit(f"{wheel.name} has no schemas of {version}")
wheel.unlink()
PYTHON
    mv "$new/schemas" "$folder/schemas"
    rm -rf "$new"
}

if ! all_there; then
    command -v go >/dev/null 2>&1 || PATH=$PATH:/usr/local/go/bin
    command -v go >/dev/null 2>&1 ||
        give_up "go is missing: install Go 1.26 or newer, or add it to PATH"
    mkdir -p "$folder"
    exec 9>"$cache/chart-tools.lock"
    flock 9
    export GOCACHE=$cache/chart-tools-go-build
    take_schemas
    go_install kubeconform "github.com/yannh/kubeconform/cmd/kubeconform@$kubeconform"
    go_install kube-score "github.com/zegl/kube-score/cmd/kube-score@$kube_score"
    go_install helm "helm.sh/helm/v4/cmd/helm@$helm"
    [ "${1:-}" != helm3 ] || go_install helm3 "helm.sh/helm/v3/cmd/helm@$helm3"
    rm -rf "$GOCACHE"
    exec 9>&-
fi
printf '%s\n' "$folder"
