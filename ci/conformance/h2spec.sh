#!/usr/bin/env bash
# h2spec, the public suite for HTTP/2 servers, against a real edge: in clear by prior knowledge, and
# over TLS by ALPN. Fails when a case fails that docs/http-conformance.md does not list, or passes
# though it is listed there. Needs Go, once, to build h2spec; without it, it says so and passes by.
#
# A case of h2spec's takes the first frame that comes within its time for the answer: on a busy
# machine others fail each time. A case counts as failed when it fails in every one of some runs.
#
#   BASE_PORT    first port of the cluster; the first free range by default
#
# Results are kept in the target directory, under conformance/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/demo/lib.sh

version=v2.6.0
cache=${XDG_CACHE_HOME:-$HOME/.cache}/shoal/h2spec-$version
h2spec=$cache/h2spec
report=${CARGO_TARGET_DIR:-target}/conformance
page=docs/http-conformance.md

# Longest time for a whole run, in seconds; for one answer, in seconds.
suite_s_max=200
# Runs before a difference counts.
runs_max=4
answer_s_max=5

if [ ! -x "$h2spec" ]; then
    if ! command -v go >/dev/null; then
        say "h2spec: left out, since Go is not there to build it"
        exit
    fi
    mkdir -p "$cache"
    GOBIN=$cache go install "github.com/summerwind/h2spec/cmd/h2spec@$version" \
        >"$cache/install.log" 2>&1 || { cat "$cache/install.log" >&2; fail "h2spec could not be built"; }
fi

# A second node of the cluster, with a certificate for clients.
start_tls_node() {
    local own=$scratch/data/node-0/config.toml i
    tls_port=$((base + 20))
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
        -subj /CN=localhost -keyout "$scratch/key.pem" -out "$scratch/cert.pem" 2>/dev/null
    sed -e 's/"node-0"/"node-tls"/' -e "s#/node-0/data#/node-tls/data#" \
        -e "s/127.0.0.1:$base\"/127.0.0.1:$((base + 21))\"/" \
        -e "s/127.0.0.1:$((base + 100))\"/127.0.0.1:$((base + 22))\"/" \
        -e "s/127.0.0.1:$((base + 300))\"/127.0.0.1:$((base + 23))\"/" "$own" >"$scratch/tls.toml"
    "$shoal" node --config "$scratch/tls.toml" --edge-tls-listen "127.0.0.1:$tls_port" \
        --edge-tls-cert "$scratch/cert.pem" --edge-tls-key "$scratch/key.pem" \
        >"$report/tls-node.log" 2>&1 &
    load_pid=$!
    for ((i = 0; i < 300; i++)); do
        if curl -fsS "http://127.0.0.1:$((base + 22))/readyz" >/dev/null 2>&1; then return; fi
        runs "$load_pid" || break
        sleep 0.1
    done
    tail -n 20 "$report/tls-node.log" >&2
    fail "the node with TLS is not ready"
}

# one_run NAME FLAG...: the failed cases, by section and number, into NAME.once.
one_run() {
    local name=$1
    shift
    timeout "$suite_s_max" "$h2spec" -h 127.0.0.1 -P /x --timeout "$answer_s_max" "$@" \
        >"$name.txt" 2>&1 || true
    grep -qE '^[0-9]+ tests,' "$name.txt" ||
        { tail -n 5 "$name.txt" >&2; fail "h2spec did not end well"; }
    # The report names each failed case once more at its end, under "Failures:".
    sed -n '/^Failures:/,$p' "$name.txt" | awk '
        match($0, /^ *[0-9.]+\. /) { section = $1; next }
        $1 == "×" { sub(/:$/, "", $2); print section $2 }' | sort -u >"$name.once"
}

# judge WHEN FLAG...: holds the cases that always fail against the page's rows for WHEN.
judge() {
    local when=$1 name=$report/h2spec-$1 i
    shift
    sed -n '/h2spec: begin/,/h2spec: end/p' "$page" |
        sed -nE "s/^\| \`([^\`]+)\` \| (always|$when) \|.*/\1/p" | sort -u >"$name.listed"
    for ((i = 1; i <= runs_max; i++)); do
        one_run "$name" "$@"
        say "h2spec, $when, run $i: $(grep -E '^[0-9]+ tests,' "$name.txt")"
        if [ "$i" = 1 ]; then
            cp "$name.once" "$name.found"
        else
            comm -12 "$name.once" "$name.found" >"$name.both"
            mv "$name.both" "$name.found"
        fi
        if diff "$name.listed" "$name.found" >"$name.diff"; then return; fi
    done
    cat "$name.diff" >&2
    differ="$differ $when"
}

mkdir -p "$report"
super_nodes=1
nodes=1
base=${BASE_PORT:-$(free_base_port)}
BASE_PORT=$base start_cluster --insecure
start_tls_node
differ=
judge clear -p "$base"
judge tls -p "$tls_port" -t -k
say "results: $(cd "$report" && pwd)"
[ -z "$differ" ] || fail "the page and the run differ:$differ"
