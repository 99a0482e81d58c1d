#!/usr/bin/env bash
# Load through two losses. Thirty seconds of Zipf requests; after ten the Raft leader is killed,
# after twenty an ordinary node. Passes when no request failed, no byte was wrong, and neither the
# whole load nor any single object left the origin more than 1.05 times.
#
#   BASE_PORT    first port of the cluster; the first free range by default
#   RATE         requests per second (200)
#   ORIGIN_RATE  bytes per second that the origin gives (40MiB)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/demo/lib.sh

duration_s=30
leader_dies_s=10
node_dies_s=20
# The load reads its list of edges again every 200 ms.
edges_file_s=0.3
# The load's own end, its last requests and its report included.
load_s_max=$((duration_s + 60))

report=${CARGO_TARGET_DIR:-target}/demo
mkdir -p "$report"

# Waits until the load has run for $1 seconds.
at_second() {
    local wait_s=$(($1 - (SECONDS - started_s)))
    if ((wait_s > 0)); then sleep "$wait_s"; fi
    runs "$load_pid" || fail "the load ended before second $1: see $report/load.log"
}

# Sets leader and term from the first super-node that knows both.
find_leader() {
    local i state
    for ((i = 0; i < super_nodes; i++)); do
        state=$(status_json "$i")
        leader=$(jq -r '.leader // empty' <<<"${state:-null}")
        term=$(jq -r '.term // 0' <<<"${state:-null}")
        if [ -n "$leader" ]; then return 0; fi
    done
    return 1
}

kill_member() {
    local pid=$1 name=$2
    runs "$pid" || fail "$name (process $pid) was gone before its time"
    kill -KILL "$pid"
    say "$((SECONDS - started_s)) s: killed $name (process $pid)"
}

start_cluster --demo-origin-rate "${ORIGIN_RATE:-40MiB}"
say "$super_nodes super-nodes, $nodes nodes, an origin of ${ORIGIN_RATE:-40MiB}/s: load for $duration_s s"

"$loadtest" run --edges-file "$scratch/edges" --origin "$(facts .origin)" \
    --duration "${duration_s}s" --rate "${RATE:-200}" \
    --max-failures 0 --max-wrong 0 --max-origin-ratio 1.05 --max-object-ratio 1.05 \
    --json "$report/report.json" --html "$report/report.html" \
    >"$report/table.txt" 2>"$report/load.log" &
load_pid=$!
started_s=$SECONDS

at_second "$leader_dies_s"
find_leader || fail "no super-node named a leader"
killed_leader=$leader killed_term=$term
kill_member "$(facts ".super_nodes[] | select(.name == \"$leader\") | .pid")" "the leader $leader"

at_second "$node_dies_s"
find_leader || fail "no leader $((node_dies_s - leader_dies_s)) s after the last one was killed"
[ "$leader" != "$killed_leader" ] && ((term > killed_term)) ||
    fail "$killed_leader was killed in term $killed_term, and $leader leads in term $term"
say "$((SECONDS - started_s)) s: $leader leads in term $term"

victim=$((nodes - 1))
facts ".nodes[:$victim][].edge" >"$scratch/edges.new"
mv "$scratch/edges.new" "$scratch/edges"
sleep "$edges_file_s"
kill_member "$(facts ".nodes[$victim].pid")" "$(facts ".nodes[$victim].name")"

while runs "$load_pid"; do
    ((SECONDS - started_s < load_s_max)) || fail "the load did not end within $load_s_max s"
    sleep 0.2
done
status=0
wait "$load_pid" || status=$?
load_pid=
cat "$report/table.txt"
say "report: $report/report.html"
if ((status != 0)); then
    tail -n 20 "$report/load.log" >&2
    fail "the load was not as wished (exit code $status)"
fi
say "passed: both were lost, and nobody noticed"
