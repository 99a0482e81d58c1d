#!/usr/bin/env bash
# Installs what a build and its tests need on Debian and Ubuntu; does nothing when all is there.
# `ci/deps.sh charts` adds what looks at charts and manifests, `ci/deps.sh e2e` what a Kubernetes
# cluster of real pods needs, `ci/deps.sh swarm` what `shoal-loadtest swarm --against aria2` runs,
# `ci/deps.sh http` what the edge is measured beside and with.
# nginx is needed as a program for the tests: its service is never started.
set -euo pipefail

declare -a packages=()

# need COMMAND PACKAGE: PACKAGE is wanted when COMMAND is not found. Daemons stand where an
# ordinary user's PATH does not look.
need() {
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || packages+=("$2")
}

# RocksDB's bindings are generated at build time: that takes libclang and clang's own headers.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] ||
        { compgen -G "/usr/lib*/llvm*/lib*/libclang*.so*" &&
            compgen -G "/usr/lib*/llvm*/lib*/clang/*/include/stdbool.h"; } >/dev/null ||
        { command -v clang && ldconfig -p | grep -q 'libclang.*\.so'; } >/dev/null 2>&1
}

need g++ g++
need make make
need pkg-config pkg-config
need ccache ccache
need curl curl
need ip iproute2
need jq jq
need nginx nginx-light
# The status page is looked at in a real browser. Ubuntu has it as a snap only.
! grep -qs '^ID=debian' /etc/os-release || need chromedriver chromium-driver
has_libclang || packages+=(libclang-dev)
if [ "${1:-}" = charts ]; then
    need promtool prometheus
    need yamllint yamllint
    need pip3 python3-pip
    python3 -c 'import yaml' >/dev/null 2>&1 || packages+=(python3-yaml)
fi
if [ "${1:-}" = e2e ]; then
    need containerd containerd
    need runc runc
    need iptables iptables
    need openssl openssl
    [ -x /usr/lib/cni/bridge ] || packages+=(containernetworking-plugins)
fi
if [ "${1:-}" = swarm ]; then
    need aria2c aria2
    need opentracker opentracker
fi

if [ "${1:-}" = http ]; then
    need wrk wrk
    need h2load nghttp2-client
    need varnishd varnish
    need taskset util-linux
fi

give_up() {
    printf 'ci/deps.sh: %s\n' "$*" >&2
    exit 69
}

install_packages() {
    local -a as_root=()
    command -v apt-get >/dev/null 2>&1 ||
        give_up "this is no Debian or Ubuntu; install what these packages hold: ${packages[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 ||
            give_up "no sudo; run as root: apt-get install ${packages[*]}"
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -q
    # Debian 12 has the two small packages that suffice; the whole LLVM is ten times their size.
    if apt-cache show libclang1-14 libclang-common-14-dev >/dev/null 2>&1; then
        packages=("${packages[@]/#libclang-dev/libclang1-14}")
        [[ " ${packages[*]} " != *" libclang1-14 "* ]] || packages+=(libclang-common-14-dev)
    fi
    # A package's own script would start its service; a policy of 101 forbids it. A policy that is
    # there already is left alone: containers bring one, and an administrator means his.
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod 755 "$policy"
        # shellcheck disable=SC2064 # both are known now
        trap "${as_root[*]} rm -f $policy" EXIT
    fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "${packages[@]}"
}

[ "${#packages[@]}" -eq 0 ] || install_packages

command -v cargo >/dev/null 2>&1 ||
    give_up "cargo is missing: install Rust from https://rustup.rs, then open a new shell"
cargo --version >/dev/null ||
    give_up "the toolchain that rust-toolchain.toml names is missing: rustup toolchain install"
