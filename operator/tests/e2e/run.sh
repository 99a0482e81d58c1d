#!/usr/bin/env bash
# The proof that nothing fails while the operator works: `make e2e`. Without KUBECONFIG it builds
# images of this version and of the next, starts a cluster of real pods here, runs the proof in it
# (operator/tests/proof) and ends it again. With KUBECONFIG it runs the same proof on that cluster,
# which can pull the images: push what `make images` built, and the same built with VERSION=0.2.0.
#
#   STEPS=upgrade,pool   only steps whose names contain one of these; `install` is one. The cluster
#                        of an earlier run with KEEP=1 is used
#   KEEP=1               leave the cluster running; E2E=down ends it
#   BUILD=no             take the images of an earlier run
#   REGISTRY, E2E_VERSION, E2E_NEXT, E2E_PULL_POLICY, E2E_NGINX
#                        the images, with KUBECONFIG
#   E2E_RATE=60          requests a second
#   NODES=3              machines
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
cd "$root"
target=$(cargo metadata --format-version 1 --no-deps --locked | jq -r .target_directory)
export E2E_OUT=${E2E_OUT:-$target/e2e} E2E_VERSION=${E2E_VERSION:-0.1.0} E2E_NEXT=${E2E_NEXT:-0.2.0}
export NODES=${NODES:-3}
images=$target/images
mkdir -p "$E2E_OUT"

# RocksDB stays as it was built; what is ours is optimised.
export CARGO_FLAGS=
for name in shoal-node shoal-operator shoal-loadtest; do
    CARGO_FLAGS+=" --config profile.dev.package.$name.opt-level=3"
done

# Images of both versions and of the origin.
build() {
    # The crates' own version last: it is what other tests use.
    PROFILE=dev BUILDER=archive VERSION=$E2E_NEXT deploy/images/build.sh "$images/next"
    PROFILE=dev BUILDER=archive deploy/images/build.sh "$images/now"
    "$here/nginx.sh" "$images/nginx.tar"
}

# The proof is a test: how it is built is the tests' own matter.
driver() {
    # shellcheck disable=SC2086 # flags are words
    cargo test --workspace --locked --test proof --no-run --message-format json $CARGO_FLAGS |
        jq -r 'select(.target.name == "proof" and .executable != null).executable'
}

start() {
    "$here/cluster.sh" up
    local archives=("$images"/now/*.tar "$images/nginx.tar")
    for program in shoal shoal-operator; do
        archives+=("$images/next/$program.tar")
    done
    "$here/cluster.sh" load "${archives[@]}"
    # Others work on this machine too: what the pods get is theirs.
    local shares=/sys/fs/cgroup/cpu/${SHOAL_E2E_NAME:-shoal-e2e}/cpu.shares
    [ ! -w "$shares" ] || echo "${E2E_SHARES:-8192}" >"$shares"
}

PATH=$("$here/../control-plane/tools.sh"):$PATH
if [ "${E2E:-}" = down ]; then
    "$here/cluster.sh" down
    exit
fi
[ "${BUILD:-}" = no ] || [ -n "${KUBECONFIG:-}" ] || build
[ "${BUILD:-}" = no ] && [ -s "$E2E_OUT/driver" ] || driver >"$E2E_OUT/driver"
proof=("$(<"$E2E_OUT/driver")" --ignored --nocapture)
if [ -n "${KUBECONFIG:-}" ]; then
    exec "${proof[@]}"
fi
export E2E_PULL_POLICY=Never E2E_NGINX=nginx:proof
export E2E_RUNG="$NODES machines of operator/tests/e2e: kubelet, containerd, runc, kube-proxy"
[ -e "${SHOAL_E2E_DIR:-/var/tmp/shoal-e2e}" ] || start
status=0
"$here/cluster.sh" run "${proof[@]}" || status=$?
[ -n "${KEEP:-}" ] || "$here/cluster.sh" down
exit "$status"
