# What run.sh and demo.sh share: binaries, a free range of ports, a local cluster that is stopped on
# every way out. Sourced, with `set -euo pipefail` in force. No process is signalled that was not
# started here or named by `shoal up --json`.

bin=${CARGO_TARGET_DIR:-target}/debug
shoal=$bin/shoal
loadtest=$bin/shoal-loadtest

super_nodes=3
nodes=3
# What the cluster is to cache.
origin_flags=(--demo-origin)

# Longest wait for a cluster to be ready, and for one to stop, in seconds.
ready_s_max=90
stop_s_max=20

# Our own children: the cluster and the load.
up_pid=
load_pid=
scratch=

say() {
    printf '%s\n' "$*"
}

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Somebody listens on that port of the loopback.
taken() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# The first base port of 18080, 19080, ... with every port free that `shoal up` derives from it.
free_base_port() {
    local base group i
    for ((base = 18080; base < 30000; base += 1000)); do
        for group in 0 100 200 300 400 500; do
            for i in 0 1 2; do
                if taken $((base + group + i)); then continue 3; fi
            done
        done
        echo "$base"
        return
    done
    return 1
}

# True while process $1 runs; a zombie has stopped.
runs() {
    [ -n "$1" ] && [ -r "/proc/$1/stat" ] && [[ "$(<"/proc/$1/stat")" != *") Z "* ]]
}

# stop_process PID: SIGTERM, then SIGKILL when it does not hear.
stop_process() {
    runs "$1" || return 0
    kill -TERM "$1" 2>/dev/null || true
    local i
    for ((i = 0; i < stop_s_max * 10; i++)); do
        runs "$1" || return 0
        sleep 0.1
    done
    kill -KILL "$1" 2>/dev/null || true
}

# Runs on every exit. `shoal up` stops its own children; what outlives it is stopped by the pids
# that it named.
clean_up() {
    local status=$?
    trap - EXIT INT TERM
    stop_process "$load_pid"
    stop_process "$up_pid"
    if [ -n "$scratch" ]; then
        local pid
        for pid in $(facts '.super_nodes[].pid, .nodes[].pid, .demo_origin_pid // empty' || true); do
            if runs "$pid" && [[ "$(readlink "/proc/$pid/exe")" == */shoal* ]]; then
                kill -KILL "$pid" || true
            fi
        done
        rm -rf "$scratch"
    fi
    exit "$status"
}

# facts FILTER: what `shoal up --json` said, through jq.
facts() {
    [ -s "$scratch/up.json" ] || return 0
    jq -r "$1" "$scratch/up.json"
}

# start_cluster FLAG...: starts `shoal up` in a scratch folder and waits for its first line.
start_cluster() {
    command -v jq >/dev/null || fail "jq is missing: run ci/deps.sh"
    [ -x "$shoal" ] && [ -x "$loadtest" ] || fail "no binaries in $bin: run make build"
    local base
    base=${BASE_PORT:-$(free_base_port)} || fail "no free range of ports: set BASE_PORT"
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/shoal-demo.XXXXXX")
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # A Ctrl-C goes to the whole foreground group: in a session of its own the cluster outlives
    # the load by as long as it takes to stop it in order.
    setsid "$shoal" up --super-nodes "$super_nodes" --nodes "$nodes" "${origin_flags[@]}" \
        --base-port "$base" --data-dir "$scratch/data" --json "$@" \
        >"$scratch/up.json" 2>"$scratch/up.log" &
    up_pid=$!
    local i
    for ((i = 0; i < ready_s_max * 10; i++)); do
        if [ -s "$scratch/up.json" ] && jq -e '.nodes | length' "$scratch/up.json" >/dev/null 2>&1; then
            facts '.nodes[].edge' >"$scratch/edges"
            return
        fi
        runs "$up_pid" || break
        sleep 0.1
    done
    tail -n 40 "$scratch/up.log" >&2
    fail "the cluster was not ready within $ready_s_max s; its last words stand above"
}

# The state of the cluster as super-node $1 (by number) sees it, or nothing when it does not answer.
status_json() {
    "$shoal" status --json --admin "$(facts ".super_nodes[$1].admin")" 2>/dev/null || true
}
