#!/usr/bin/env bash
# The public HTTP caching suite against a real edge: `shoal up` with the suite's own server as its
# one site; once with the defaults, once with unclear_age = "stale". Fails when a required test
# fails that docs/http-conformance.md does not list, or passes though it is listed there.
#
#   NODES        nodes of the cluster; the first one's edge is asked (1)
#   TEST         one test's id: shows its requests and responses instead
#   AGE          with TEST: the site's unclear_age (ignore)
#   BASE_PORT    first port of the cluster; the first free range by default
#
# Results are kept in the target directory, under conformance/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/demo/lib.sh

version=0.4.5
here=$PWD/ci/conformance
# The package and what it brings lie outside the tree, for all checkouts.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/shoal/http-cache-tests-$version
suite=$cache/node_modules/http-cache-tests
report=${CARGO_TARGET_DIR:-target}/conformance

# Longest time for the suite's server to listen, and for the whole suite, in seconds.
server_s_max=10
suite_s_max=150

install_suite() {
    command -v npm >/dev/null || fail "npm is missing: install Node.js 20 or newer with npm"
    if [ -f "$cache/complete" ]; then return; fi
    rm -rf "$cache"
    mkdir -p "$cache"
    # Nothing of the package is run on installation, and what only its authors need stays away.
    npm install --prefix "$cache" --no-save --no-audit --no-fund --ignore-scripts --loglevel error \
        "http-cache-tests@$version" node-fetch@2.7.0 >"$cache/install.log" 2>&1 ||
        { cat "$cache/install.log" >&2; fail "the suite could not be installed"; }
    touch "$cache/complete"
}

free_port() {
    local port
    for ((port = 17800; port < 17900; port++)); do
        if ! taken "$port"; then echo "$port" && return; fi
    done
    return 1
}

start_server() {
    local i
    port=$(free_port) || fail "no free port for the suite's server"
    (cd "$suite" && npm_config_protocol=http npm_config_port=$port npm_config_pidfile=/dev/null \
        exec node --no-warnings --import "$here/loopback.mjs" server/server.mjs) \
        >"$report/server.log" 2>&1 &
    load_pid=$!
    for ((i = 0; i < server_s_max * 10; i++)); do
        if taken "$port"; then return; fi
        runs "$load_pid" || break
        sleep 0.1
    done
    cat "$report/server.log" >&2
    fail "the suite's server does not listen"
}

# Every id by default; npm's variables are what the suite's command line reads.
run_suite() {
    (cd "$suite" && npm_config_base=$(facts '.nodes[0].edge') \
        npm_config_id=${TEST:-} npm_package_config_id='' \
        timeout "$suite_s_max" node --no-warnings cli.mjs)
}

# judge AGE: runs the suite against a cluster whose site takes an unclear Age so.
judge() {
    local age=$1 results=$report/results-$1.json
    start_cluster --site "unclear_age=\"$age\""
    run_suite >"$results" 2>"$report/suite.log" ||
        { tail -n 20 "$report/suite.log" >&2; fail "the suite did not end well"; }
    stop_process "$up_pid"
    rm -rf "$scratch"
    node --no-warnings "$here/judge.mjs" "$suite" "$results" docs/http-conformance.md "$age"
}

mkdir -p "$report"
report=$(cd "$report" && pwd)
install_suite
start_server
super_nodes=1
nodes=${NODES:-1}
origin_flags=(--origin "http://127.0.0.1:$port")
if [ -n "${TEST:-}" ]; then
    start_cluster --site "unclear_age=\"${AGE:-ignore}\""
    run_suite
    exit
fi
differ=
for age in ignore stale; do
    judge "$age" || differ="$differ $age"
done
say "results: $report"
[ -z "$differ" ] || fail "the page and the run differ with unclear_age:$differ"
