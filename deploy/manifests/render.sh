#!/usr/bin/env bash
# Writes the plain manifests from the chart, so that both say the same: render.sh; with --check it
# writes nothing, shows what differs, and fails.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
deploy=$(dirname "$here")
helm=$("$deploy/../operator/tests/control-plane/tools.sh")/helm
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# render FILE NAMESPACE HELM_ARGUMENT...: what belongs to Helm alone is left out.
render() {
    local file=$1 namespace=$2
    shift 2
    mkdir -p "$out/$(dirname "$file")"
    {
        printf '# Written by deploy/manifests/render.sh from deploy/helm/shoal: change that.\n'
        "$helm" template shoal "$deploy/helm/shoal" --namespace "$namespace" \
            --kube-version 1.35.0 "$@" 2>"$out/said" || { cat "$out/said" >&2 && exit 1; }
    } | sed -E '/^# Source: /d; /^ *helm\.sh\/(chart|resource-policy): /d
        /^ *app\.kubernetes\.io\/managed-by: /d' |
        sed -E '/^  annotations:$/{N;/\n    /!s/^  annotations:\n//}' |
        sed -e :a -e '/^\n*$/{$d;N;ba' -e '}' >"$out/$file"
    rm "$out/said"
}

only() {
    local template
    for template in "$@"; do
        printf -- '--show-only\ntemplates/%s\n' "$template"
    done
}

mapfile -t operator < <(only operator/account.yaml operator/roles.yaml operator/deployment.yaml \
    network-policy.yaml)
mapfile -t monitoring < <(only monitoring/pod-monitors.yaml monitoring/rules.yaml \
    monitoring/dashboards.yaml)
with_cluster=(--set cluster.enabled=true --set-json 'pools={"nodes":{"replicas":2}}')

if compgen -G "$deploy/crds/*.yaml" >/dev/null; then
    render operator/crds.yaml shoal-system --show-only templates/crds.yaml
fi
render operator/operator.yaml shoal-system --set networkPolicy.enabled=true "${operator[@]}"
render operator-namespaced/operator.yaml shoal --set networkPolicy.enabled=true \
    --set 'operator.namespaces={shoal}' --set operator.userRoles=false "${operator[@]}"
render cluster/cluster.yaml shoal --set operator.enabled=false "${with_cluster[@]}" \
    --show-only templates/cluster.yaml
render cluster-node-local/service.yaml shoal "${with_cluster[@]}" --set nodeLocal.enabled=true \
    --set nodeLocal.pool=nodes --show-only templates/node-local.yaml
render load-test/load-test.yaml shoal "${with_cluster[@]}" --set loadTest.enabled=true \
    --show-only templates/load-test.yaml
if compgen -G "$deploy/dashboards/*.json" >/dev/null; then
    render monitoring/monitoring.yaml shoal "${with_cluster[@]}" \
        --set monitoring.podMonitor.enabled=true --set monitoring.prometheusRule.enabled=true \
        --set monitoring.dashboards.enabled=true "${monitoring[@]}"
fi

status=0
while read -r file; do
    if [ "${1:-}" = --check ]; then
        diff -u --label "deploy/manifests/$file" --label "from the chart" \
            "$here/$file" "$out/$file" || status=1
    else
        mkdir -p "$here/$(dirname "$file")"
        cp "$out/$file" "$here/$file"
    fi
done < <(cd "$out" && find . -type f -printf '%P\n' | sort)
[ "$status" -eq 0 ] || printf 'run deploy/manifests/render.sh and commit what it writes\n' >&2
exit "$status"
