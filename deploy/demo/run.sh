#!/usr/bin/env bash
# A local cluster under gentle load until Ctrl-C: something to look at.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/demo/lib.sh

start_cluster
trap 'exit 0' INT

say "Shoal runs: $super_nodes super-nodes, $nodes nodes, one demo origin."
say ""
say "  what                        where"
facts '.nodes[] | "  edge of \(.name)              \(.edge)"'
facts '(.nodes + .super_nodes)[] | "  metrics of \(.name)\t\(.admin)/metrics"' | expand -t 30
facts '"  the demo origin             \(.origin)/_origin/stats"'
say ""
say "Try:"
say "  curl -si $(facts '.nodes[0].edge')/o/100/hello | head -20"
say "  $shoal status --admin $(facts '.super_nodes[0].admin')"
say "  $shoal purge $(facts '.nodes[0].edge')/o/100/hello --admin $(facts '.nodes[1].admin') \\"
say "      --token-file $(facts .token_file)"
say ""
say "Load runs at ${RATE:-50} requests per second. Ctrl-C stops everything."

# A long run, so that the counts keep moving; its end starts the next one.
while runs "$up_pid"; do
    "$loadtest" run --edges-file "$scratch/edges" --origin "$(facts .origin)" \
        --rate "${RATE:-50}" --duration "${DURATION:-10m}" &
    load_pid=$!
    wait "$load_pid" || true
done
fail "the cluster stopped by itself: $(tail -n 5 "$scratch/up.log")"
