#!/usr/bin/env bash
# Builds the images: build.sh OUT_FOLDER [PROGRAM...]. With docker or buildah they land in its
# store, and as archives in OUT_FOLDER; with neither, as archives alone, packed without a container
# tool. PROFILE=dev takes the binaries of `make build` in place of a release build; REGISTRY goes
# before the names; BUILDER is docker, buildah or archive. VERSION is what the images and the programs
# say of themselves in the place of the crates' version; CARGO_FLAGS are further flags of cargo build.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$1
shift
programs=("$@")
[ "$#" -gt 0 ] || programs=(shoal shoal-operator shoal-loadtest)
profile=${PROFILE:-release}
registry=${REGISTRY:+${REGISTRY%/}/}
cd "$here/../.."
version=${VERSION:-}
export SHOAL_VERSION=$version
[ -n "$version" ] || unset SHOAL_VERSION
[ -n "$version" ] || version=$(sed -n '0,/^version = /s/^version = "\(.*\)"/\1/p' Cargo.toml)

builder=${BUILDER:-}
if [ -z "$builder" ]; then
    builder=archive
    if docker info >/dev/null 2>&1; then
        builder=docker
    elif command -v buildah >/dev/null 2>&1; then
        builder=buildah
    fi
fi

folder=$profile
[ "$profile" != dev ] || folder=debug
# shellcheck disable=SC2086 # flags are words
cargo build --workspace --bins --locked --profile "$profile" ${CARGO_FLAGS:-}
binaries=$(cargo metadata --format-version 1 --no-deps --locked | jq -r .target_directory)/$folder

mkdir -p "$out"
for program in "${programs[@]}"; do
    name=$registry$program:$version
    context=$out/$program
    "$here/rootfs.sh" "$binaries/$program" "$context/rootfs"
    cp "$context/rootfs/usr/share/$program/sbom.cdx.json" "$out/$program.cdx.json"
    recipe=$here/$program/Containerfile
    archive=$out/$program.tar
    rm -f "$archive"
    case $builder in
    docker)
        docker build --quiet --network none --file "$recipe" --tag "$name" "$context" >/dev/null
        docker save --output "$archive" "$name"
        ;;
    buildah)
        buildah build --quiet --network none --timestamp 0 --file "$recipe" --tag "$name" \
            "$context" >/dev/null
        buildah push --quiet "$name" "docker-archive:$archive:$name"
        ;;
    archive) "$here/archive.sh" "$context/rootfs" "$name" "$archive" "$recipe" ;;
    *)
        printf 'images/build.sh: BUILDER is docker, buildah or archive, not %s\n' "$builder" >&2
        exit 64
        ;;
    esac
    rm -rf "$context"
    printf '%s by %s: %s (%s MiB)\n' "$name" "$builder" "$archive" \
        "$(($(stat -c %s "$archive") >> 20))"
done
