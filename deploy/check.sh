#!/usr/bin/env bash
# Checks everything in deploy/ that Kubernetes, Helm, Prometheus or Grafana is to read, with the
# tools that read it; says every fault, and fails when there is one. DEPLOY names another tree than
# this one, as check-test.sh does.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
deploy=${DEPLOY:-$here}
chart=$deploy/helm/shoal
tools=$("$here/../operator/tests/control-plane/tools.sh") || exit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
faults=0

# check WHAT COMMAND...: its output is shown when it fails. ONLY, a pattern, leaves out all others
# but those that later ones need.
check() {
    local what=$1
    shift
    [[ $what =~ ${ONLY:-.} || $what == helm\ template* || $what == definitions* ]] || return 0
    if "$@" >"$work/said" 2>&1; then
        printf 'ok    %s\n' "$what"
    else
        printf 'FAULT %s\n' "$what"
        sed 's/^/      /' "$work/said"
        faults=$((faults + 1))
    fi
}

helm() { HELM_CACHE_HOME=$work/helm HELM_CONFIG_HOME=$work/helm "$tools/helm" "$@"; }

template() { # VALUES_FILE KUBERNETES_VERSION
    helm template shoal "$chart" --namespace team-a --kube-version "${2#v}" --values "$1" \
        2>"$work/template" || { cat "$work/template" >&2 && return 1; }
}

# Kinds of Prometheus' operator have no schema here; what they hold is checked by promtool.
conform() { # VERSION FILE...
    local version=$1
    shift
    "$tools/kubeconform" -strict -summary -output text -skip PodMonitor,PrometheusRule \
        -schema-location "$tools/schemas/$version/{{.ResourceKind}}{{.KindSuffix}}.json" \
        -schema-location "$work/schemas/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json" "$@"
}

# What kube-score asks for in vain, each for a reason:
#   pull policy    a digest or a tag that is never moved names one image
#   cpu limit      the kernel would hold back a pod on an idle machine
#   ephemeral      nothing of ours writes outside of its volumes
#   user id        65532 is ours in every image: volumes of two clusters are not shared
#   network policy is the values' to say, and off where nobody asked for it
#   probes         a load test's origin has no other life than its listener
#   targets        members' pods are made by the operator
#   service type   a node on the machine's own address is what node-local mode is
score() {
    "$tools/kube-score" score --output-format ci --kubernetes-version v1.33 \
        --ignore-test container-image-pull-policy --ignore-test container-resources \
        --ignore-test container-ephemeral-storage-request-and-limit \
        --ignore-test container-security-context-user-group-id \
        --ignore-test pod-networkpolicy --ignore-test pod-probes \
        --ignore-test deployment-has-host-podantiaffinity \
        --ignore-test deployment-replicas --ignore-test deployment-has-poddisruptionbudget \
        --ignore-test networkpolicy-targets-pod --ignore-test service-targets-pod \
        --ignore-test service-type "$@" >"$work/score"
    ! grep -E '^\[(CRITICAL|WARNING)\]' "$work/score"
}

# A values file of ci/bad/ is refused, with the words that its first line wants.
refused() {
    local words
    words=$(sed -n '1s/^# refused: //p' "$1")
    [ -n "$words" ] || { printf 'its first line is not "# refused: WORDS"\n' && return 1; }
    if template "$1" v1.35.0 >"$work/accepted" 2>"$work/refusal"; then
        printf 'was accepted, and is to be refused: %s\n' "$words"
        return 1
    fi
    grep -qF -- "$words" "$work/refusal" || { cat "$work/refusal" && return 1; }
}

# What a user deploys by kustomize is what lies there.
kustomized() {
    local folder=$1 kubectl
    kubectl=$("$here/../operator/tests/control-plane/build.sh" kubectl)/kubectl || return
    "$kubectl" kustomize "$folder" >"$work/kustomized.yaml" &&
        conform v1.35.0 "$work/kustomized.yaml" && {
        ! grep -qE '^kind: (Deployment|Job|Pod)$' "$work/kustomized.yaml" ||
            "$here/checks/pods.py" <"$work/kustomized.yaml"
    }
}

check "definitions: schemas" \
    "$here/checks/crd_schemas.py" "$work/schemas" "$deploy"/crds/*.yaml

# What a person writes: what a program wrote is as long as it is.
mapfile -t files < <(find "$deploy" -name '*.yaml' -not -path '*/templates/*' \
    -not -path '*/crds/*' -not -path '*/files/*' -print0 | xargs -0 grep -L '^# Written by' | sort)
check "yamllint" yamllint --strict --config-file "$here/checks/yamllint.yaml" "${files[@]}"

for values in "$chart"/ci/*.yaml; do
    name=$(basename "$values" .yaml)
    check "helm lint: $name" helm lint --strict --quiet "$chart" --values "$values"
    for version in v1.33.0 v1.35.0; do
        check "helm template: $name, $version" template "$values" "$version"
        cp "$work/said" "$work/$name.yaml"
        check "kubeconform: $name, $version" conform "$version" "$work/$name.yaml"
    done
    check "pods: $name" "$here/checks/pods.py" <"$work/$name.yaml"
    check "kube-score: $name" score "$work/$name.yaml"
done
for values in "$chart"/ci/bad/*.yaml; do
    check "refused: $(basename "$values" .yaml)" refused "$values"
done

check "manifests: as the chart says" "$deploy/manifests/render.sh" --check
for folder in "$deploy"/manifests/*/kustomization.yaml "$deploy"/examples/*/kustomization.yaml; do
    folder=$(dirname "$folder")
    check "kustomize: ${folder#"$deploy"/}" kustomized "$folder"
done

if [ -e "$deploy/alerts.yaml" ]; then
    check "promtool: rules" promtool check rules "$deploy/alerts.yaml"
    check "promtool: tests of rules" promtool test rules "$deploy/alerts-test.yaml"
    check "dashboards: as render.py says" "$deploy/dashboards/render.py" --check
    check "dashboards and rules: names" "$here/checks/dashboards.py" "$deploy"
fi

if [ "$faults" -gt 0 ]; then
    printf '%s of the checks found faults\n' "$faults" >&2
    exit 1
fi
