#!/usr/bin/env bash
# Packs a folder as an image archive that docker, podman and containerd load, without any of them:
# archive.sh FOLDER NAME:TAG OUT.tar [CONTAINERFILE]. USER, ENTRYPOINT and LABEL are read from the
# Containerfile, each on one line; the same folder gives the same archive, byte for byte.
set -euo pipefail

folder=$1 name=$2 out=$3 recipe=${4:-/dev/null}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pack() {
    tar --format=gnu --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$1" -cf "$2" .
}

mkdir "$work/image"
pack "$folder" "$work/image/layer.tar"
layer=$(sha256sum "$work/image/layer.tar" | cut -d' ' -f1)

user=$(sed -n 's/^USER //p' "$recipe")
entrypoint=$(sed -n 's/^ENTRYPOINT //p' "$recipe")
labels=$(sed -n 's/^LABEL //p' "$recipe" | jq -R 'capture("^(?<key>[^=]+)=\"?(?<value>[^\"]*)\"?$")' |
    jq -s from_entries)
case $(uname -m) in
x86_64) machine=amd64 ;;
aarch64) machine=arm64 ;;
*) machine=$(uname -m) ;;
esac
jq -cn --arg layer "sha256:$layer" --arg user "$user" --arg machine "$machine" \
    --argjson entrypoint "${entrypoint:-null}" --argjson labels "$labels" '{
        architecture: $machine, os: "linux", created: "1970-01-01T00:00:00Z",
        config: {User: $user, Entrypoint: $entrypoint, Labels: $labels,
            Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        rootfs: {type: "layers", diff_ids: [$layer]}}' >"$work/config.json"
config=$(sha256sum "$work/config.json" | cut -d' ' -f1)
mv "$work/config.json" "$work/image/$config.json"
jq -cn --arg config "$config.json" --arg name "$name" \
    '[{Config: $config, RepoTags: [$name], Layers: ["layer.tar"]}]' >"$work/image/manifest.json"
pack "$work/image" "$out"
