#!/usr/bin/env bash
# Gathers what an image holds: rootfs.sh PROGRAM FOLDER. That is the program, stripped, the
# libraries that it names, the certificate authorities of this machine, an account without rights,
# its bill of materials and the licence. There is no shell and no package manager. Nothing is
# fetched: libraries are the ones that the program was built with.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
program=$1 root=$2
name=$(basename "$program")

give_up() {
    printf 'images/rootfs.sh: %s\n' "$*" >&2
    exit 69
}

[ -x "$program" ] || give_up "$program is no program: build it first"
authorities=/etc/ssl/certs/ca-certificates.crt
[ -s "$authorities" ] || give_up "$authorities is missing: apt-get install ca-certificates"

umask 022
rm -rf "$root"
mkdir -p "$root"/{etc/ssl/certs,tmp,usr/bin,usr/share/"$name",var/lib/shoal}
chmod 1777 "$root/tmp" "$root/var/lib/shoal"

strip -o "$root/usr/bin/$name" "$program"
chmod 755 "$root/usr/bin/$name"

# Every library stands where the loader looks for it; the loader stands where the program says.
libraries=$(ldd "$program" | sed -nE 's/.* => (\/[^ ]+) .*/\1/p; s/^\t(\/[^ ]+) .*/\1/p')
for library in $libraries; do
    install -D -m 755 "$(readlink -f "$library")" "$root$library"
done

cp "$authorities" "$root/etc/ssl/certs/"
printf 'shoal:x:65532:65532::/var/lib/shoal:/none\n' >"$root/etc/passwd"
printf 'shoal:x:65532:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
cp "$here/../../LICENSE" "$root/usr/share/$name/LICENSE"
# shellcheck disable=SC2086 # one argument a library
"$here/sbom.sh" "$name" $libraries "$authorities" >"$root/usr/share/$name/sbom.cdx.json"

# The loader and all libraries are where they have to be: the program says its version in there.
if [ "$(id -u)" -eq 0 ]; then
    chroot "$root" "/usr/bin/$name" --version >/dev/null ||
        give_up "$name does not start in $root"
fi
