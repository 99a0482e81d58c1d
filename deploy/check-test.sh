#!/usr/bin/env bash
# Tests check.sh: each of its checks must find the fault that is put into a copy of deploy/ for it.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$here/../operator" "$work/operator"
missed=0

# finds PATTERN SED FILE: with the file changed, a check of that name is a FAULT.
finds() {
    local pattern=$1 change=$2 file=$3
    rm -rf "$work/deploy"
    cp -a "$here" "$work/deploy"
    sed -i -E "$change" "$work/deploy/$file"
    if cmp -s "$here/$file" "$work/deploy/$file"; then
        printf 'MISSED  %s: %s changes nothing in %s\n' "$pattern" "$change" "$file"
        missed=$((missed + 1))
    elif DEPLOY=$work/deploy ONLY=$pattern "$here/check.sh" 2>/dev/null >"$work/said"; then
        printf 'MISSED  %s: not by %s in %s\n' "$pattern" "$change" "$file"
        missed=$((missed + 1))
    elif ! grep -qE "^FAULT .*$pattern" "$work/said"; then
        printf 'MISSED  %s: something else was found\n' "$pattern"
        sed 's/^/        /' "$work/said"
        missed=$((missed + 1))
    else
        printf 'found   %s\n' "$pattern"
    fi
}

chart=helm/shoal
finds 'definitions' 's/openAPIV3Schema/schemas/' crds/cachesites.yaml
finds 'yamllint' '3s/$/ /' $chart/values.yaml
finds 'helm lint: default' 's/include "shoal.account"/include "shoal.acount"/' \
    $chart/templates/operator/account.yaml
finds 'helm template: full' 's/^registry:/regestry:/' $chart/ci/full.yaml
finds 'kubeconform: default' 's/^  replicas:/  replica:/' $chart/templates/operator/deployment.yaml
finds 'kubeconform: full' 's/superNodes:/superNode:/' $chart/ci/full.yaml
finds 'kubeconform: full' 's/originSavedPercent: 5/originSavedPercent: 500/' $chart/ci/full.yaml
finds 'pods: default' '/readOnlyRootFilesystem/d' $chart/templates/_helpers.tpl
finds 'kube-score: default' '/maxUnavailable: 1/s/1/0/; /readOnlyRootFilesystem/d' \
    $chart/templates/_helpers.tpl
finds 'refused: pools-without' 's/or .Values.pools .Values.sites/or .Values.sites false/' \
    $chart/templates/_helpers.tpl
finds 'refused: short-digest' '1s/digest/words that nobody says/' $chart/ci/bad/short-digest.yaml
finds 'manifests:' 's/periodSeconds: 5/periodSeconds: 6/' $chart/templates/operator/deployment.yaml
finds 'kustomize: manifests/cluster' 's/namespace.yaml/name.yaml/' \
    manifests/cluster/kustomization.yaml
finds 'kustomize: examples/web' 's/origin:/source:/' examples/web-origin/site.yaml
finds 'promtool: rules' 's/sum by \(cluster, tier\)/sum bye (cluster, tier)/' alerts.yaml
finds 'promtool: tests' 's/ratio5m > 0.01/ratio5m > 0.5/' alerts.yaml
finds 'dashboards: as' 's/"Offload"/"Offloads"/' dashboards/overview.json
finds 'dashboards and rules' 's/peer_uploads/peer_upload/' dashboards/swarm.json
finds 'dashboards and rules' 's/mode=."pure/mod=\\"pure/' dashboards/overview.json
finds 'dashboards and rules' 's/alert: ShoalErrors/alert: ShoalFaults/' alerts.yaml

[ "$missed" -eq 0 ] || { printf '%s faults were not found\n' "$missed" >&2 && exit 1; }
