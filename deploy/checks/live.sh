#!/usr/bin/env bash
# Runs a real cluster under load with a real Prometheus that scrapes it, and wants data in every
# panel of every dashboard and no alert but those of a cold start. It takes about a minute.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/demo/lib.sh
# Debian's Prometheus; its service is not used.
command -v prometheus >/dev/null || fail "prometheus is missing: run ci/deps.sh charts"

prometheus_pid=
finish() {
    local status=$?
    set +e
    stop_process "$prometheus_pid"
    # It goes out with what it finds in `$?`.
    (exit "$status")
    clean_up
}

start_cluster
trap finish EXIT
port=$(($(facts '.nodes[0].edge | capture(":(?<port>[0-9]+)").port') + 900))

{
    printf 'global: {scrape_interval: 1s, evaluation_interval: 5s}\n'
    printf 'rule_files: [%s]\n' "$PWD/deploy/alerts.yaml"
    printf 'scrape_configs:\n  - job_name: shoal\n    static_configs:\n'
    facts '(.nodes + .super_nodes)[] | "      - targets: [\"\(.admin | sub("^https?://"; ""))\"]\n" +
        "        labels: {cluster: demo, pod: \(.name)}"'
} >"$scratch/prometheus.yaml"
prometheus --config.file="$scratch/prometheus.yaml" --storage.tsdb.path="$scratch/tsdb" \
    --web.listen-address="127.0.0.1:$port" --log.level=warn >"$scratch/prometheus.log" 2>&1 &
prometheus_pid=$!

"$loadtest" run --edges-file "$scratch/edges" --origin "$(facts .origin)" \
    --rate "${RATE:-20}" --duration "${DURATION:-40s}" >"$scratch/load.log" 2>&1 &
load_pid=$!
# Here the load is there to be seen; 2 is a threshold that a busy machine missed.
wait "$load_pid" || [ "$?" -eq 2 ] || fail "no load: $(tail -n 15 "$scratch/load.log")"
load_pid=

deploy/checks/live.py "http://127.0.0.1:$port" deploy
