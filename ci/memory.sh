#!/usr/bin/env bash
# A large object through nodes that may not use more memory than that: each in a cgroup of its own.
# One node fills it and the other takes its copy, a client reads it from both, and what the kernel
# counted is shown. Fails when a body was short or a node was killed. As root; cgroup v1 or v2.
#
#   SIZE      bytes of the object (10737418240)
#   LIMIT     bytes of memory that a node may use (268435456)
#   BUILD     where the binaries are (target/debug)
#   FOLDER    where the nodes keep their data: twice SIZE (a temporary folder)
set -euo pipefail

size=${SIZE:-10737418240}
limit=${LIMIT:-268435456}
build=${BUILD:-${CARGO_TARGET_DIR:-target}/debug}
folder=${FOLDER:-$(mktemp -d)}
base_port=${BASE_PORT:-23080}
group=/sys/fs/cgroup
[ -d "$group/memory" ] && group=$group/memory

mkdir -p "$folder"
"$build/shoal" up --super-nodes 1 --nodes 2 --data-dir "$folder/data" --base-port "$base_port" \
    --store-budget "$((size + size / 4 + 1073741824))" --store-memory 32MiB --json --demo-origin \
    >"$folder/up.json" 2>"$folder/up.log" &
up=$!
names=()
finish() {
    kill -INT "$up" 2>/dev/null || true
    wait "$up" || true
    for name in "${names[@]}"; do rmdir "$group/shoal-memory-$name" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT
for ((i = 0; i < 300; i++)); do [ -s "$folder/up.json" ] && break || sleep 0.2; done

members=$(python3 -c '
import json, sys
for node in json.load(open(sys.argv[1]))["nodes"]: print(node["name"], node["pid"], node["edge"])
' "$folder/up.json")
edges=()
while read -r name pid edge; do
    names+=("$name")
    edges+=("$edge")
    mkdir -p "$group/shoal-memory-$name"
    if [ -f "$group/shoal-memory-$name/memory.limit_in_bytes" ]; then
        echo "$limit" >"$group/shoal-memory-$name/memory.limit_in_bytes"
    else
        echo "$limit" >"$group/shoal-memory-$name/memory.max"
    fi
    echo "$pid" >"$group/shoal-memory-$name/cgroup.procs"
done <<<"$members"

for ((i = ${#edges[@]} - 1; i >= 0; i--)); do
    read -r status bytes seconds < <(curl -s -o /dev/null --max-time "${SECONDS_MAX:-1800}" \
        -w '%{http_code} %{size_download} %{time_total}\n' "${edges[i]}/o/$size/large") || true
    echo "${names[i]}: status $status, $bytes bytes in $seconds s"
    [ "$bytes" = "$size" ] || { echo "short: $size bytes wanted" >&2; exit 1; }
done
while read -r name pid _; do
    facts=$(grep -E '^(VmHWM|RssAnon)' "/proc/$pid/status" | tr -s '\t ' ' ' | tr '\n' ' ')
    most=$(cat "$group/shoal-memory-$name"/memory.{max_usage_in_bytes,peak} 2>/dev/null || true)
    echo "$name: $facts most in its cgroup, page cache included: $most"
done <<<"$members"
