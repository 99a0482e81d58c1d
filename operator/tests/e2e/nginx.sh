#!/usr/bin/env bash
# Packs this machine's nginx and its libraries as an image: nginx.sh OUT.tar.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
program=$(PATH=$PATH:/usr/sbin command -v nginx)
root=$work/rootfs
mkdir -p "$root"/{etc,tmp,usr/sbin,var/log/nginx,var/lib/nginx}
cp "$program" "$root/usr/sbin/nginx"
for library in $(ldd "$program" | sed -nE 's/.* => (\/[^ ]+) .*/\1/p; s/^\t(\/[^ ]+) .*/\1/p'); do
    install -D -m 755 "$(readlink -f "$library")" "$root$library"
done
printf 'shoal:x:65532:65532::/tmp:/none\n' >"$root/etc/passwd"
printf 'shoal:x:65532:\n' >"$root/etc/group"
printf 'USER 65532:65532\nENTRYPOINT ["/usr/sbin/nginx"]\n' >"$work/recipe"
"$here/../../../deploy/images/archive.sh" "$root" nginx:proof "$1" "$work/recipe"
