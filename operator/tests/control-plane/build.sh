#!/usr/bin/env bash
# Builds a real Kubernetes control plane for tests with the ordinary Go client, from the modules
# beside this file, and prints the folder with the programs. What is there already is not built
# again; two runs at a time wait for one another. All talk goes to standard error.
#
#   build.sh                                etcd, API server, controller manager, scheduler, kubectl
#   build.sh kubelet kube-proxy coredns     these, for a whole cluster
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/shoal

give_up() {
    printf 'control-plane/build.sh: %s\n' "$*" >&2
    exit 69
}

programs=("$@")
[ "$#" -gt 0 ] ||
    programs=(etcd kube-apiserver kube-controller-manager kube-scheduler kubectl)
for program in "${programs[@]}"; do
    case $program in
    etcd | kube-apiserver | kube-controller-manager | kube-scheduler | kubectl) ;;
    kubelet | kube-proxy | coredns) ;;
    *) give_up "no such program: $program" ;;
    esac
done

hash=$(cd "$here" && cat {etcd,kubernetes,coredns}/go.{mod,sum} | sha256sum | cut -c1-12)
folder=$cache/control-plane-$hash

all_there() {
    local program
    for program in "${programs[@]}"; do
        [ -x "$folder/$program" ] || return 1
    done
}

# The version that clients see: without it an API server calls itself v0.0.0.
version() {
    local v major minor
    v=$(cd "$here/kubernetes" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
    IFS=. read -r major minor _ <<<"${v#v}"
    local p package
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        for p in "gitVersion=$v" "gitMajor=$major" "gitMinor=$minor" gitTreeState=clean; do
            printf -- '-X %s.%s ' "$package" "$p"
        done
    done
}

# build PROGRAM: a program appears whole under its name, or not at all.
build() {
    local module=kubernetes package=k8s.io/kubernetes/cmd/$1 flags="-s -w "
    case $1 in
    etcd) module=etcd package=go.etcd.io/etcd/server/v3 ;;
    coredns) module=coredns package=. ;;
    *) flags+=$(version) ;;
    esac
    printf 'control-plane/build.sh: building %s\n' "$1" >&2
    (cd "$here/$module" && CGO_ENABLED=0 GOWORK=off GOFLAGS="-mod=readonly -trimpath -buildvcs=false" \
        go build -ldflags "$flags" -o "$folder/.$1.new" "$package") >&2
    mv "$folder/.$1.new" "$folder/$1"
}

if ! all_there; then
    command -v go >/dev/null 2>&1 || PATH=$PATH:/usr/local/go/bin
    command -v go >/dev/null 2>&1 ||
        give_up "go is missing: install Go 1.25 or newer (Debian: golang-go), or add it to PATH"
    mkdir -p "$folder"
    exec 9>"$cache/control-plane.lock"
    flock 9
    # Go's own cache of this build is some 3 GB and of no use afterwards; that of a build that
    # failed is kept for the next try.
    export GOCACHE=$cache/control-plane-go-build
    for program in "${programs[@]}"; do
        [ -x "$folder/$program" ] || build "$program"
    done
    rm -rf "$GOCACHE"
    exec 9>&-
fi
printf '%s\n' "$folder"
