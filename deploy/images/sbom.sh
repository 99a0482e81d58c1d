#!/usr/bin/env bash
# Prints a program's bill of materials, CycloneDX 1.5 in JSON: sbom.sh PROGRAM FILE.... The crates
# that cargo resolves for it on this machine's kind, from Cargo.lock, and the Debian packages that
# the files come from.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name=$1
shift
cd "$here/../.."

triple=$(rustc -vV | sed -n 's/^host: //p')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo metadata --format-version 1 --locked --offline --filter-platform "$triple" >"$work/crates"

# A library may be known to dpkg by the path without /usr, or with it.
for file in "$@"; do
    for path in "$file" "/usr$file" "$(readlink -f "$file")"; do
        owner=$(dpkg-query -S "$path" 2>/dev/null | head -n 1 | cut -d: -f1) && [ -n "$owner" ] &&
            break
    done
    # The bundle of authorities is written by its package, and not part of it.
    [ -n "$owner" ] || { [[ $file != *ca-certificates* ]] || owner=ca-certificates; }
    [ -n "$owner" ] || continue
    dpkg-query -W -f '${source:Package} ${Package} ${Version} ${Architecture}\n' "$owner" |
        head -n 1
done | sort -u >"$work/packages"

# The newest change of the sources, so that the same sources give the same bill.
time=$(git log -1 --format=%cI 2>/dev/null || date -u -d @0 +%Y-%m-%dT%H:%M:%SZ)
distribution=$(. /etc/os-release && printf '%s' "$ID")
jq -n --arg name "$name" --arg time "$time" --arg distribution "$distribution" \
    --slurpfile crates "$work/crates" --rawfile packages "$work/packages" '
    ($crates[0]) as $meta
    | ($meta.packages | map({key: .id, value: .}) | from_entries) as $by_id
    | ($meta.resolve.nodes | map({key: .id, value: [.deps[]
        | select(any(.dep_kinds[]; .kind == null)) | .pkg]}) | from_entries) as $needs
    | ($meta.packages[] | select(any(.targets[]; .name == $name and .kind == ["bin"]))) as $own
    | def reach($seen; $next): if $next == [] then $seen else
        ($seen + $next | unique) as $all
        | reach($all; ([$next[] | $needs[.][]] | unique) - $all) end;
    (reach([]; [$own.id]) - [$own.id]) as $used
    | {bomFormat: "CycloneDX", specVersion: "1.5", version: 1,
       metadata: {timestamp: $time, component: {type: "application", name: $name,
           version: $own.version, licenses: [{expression: $own.license}]}},
       components: (
         [$used[] | $by_id[.] | {type: "library", name, version,
             purl: "pkg:cargo/\(.name)@\(.version)"}
             + (if .license then {licenses: [{expression: (.license | gsub("/"; " OR "))}]}
                else {} end)]
         + [$packages | split("\n")[] | select(. != "") | split(" ") | {type: "library",
             name: .[1], version: .[2],
             purl: "pkg:deb/\($distribution)/\(.[1])@\(.[2] | @uri)?arch=\(.[3])"}]
         | sort_by(.purl))}'
