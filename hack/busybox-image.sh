#!/bin/bash
# hack/busybox-image.sh FILE: writes the root file system of a busybox image, as a tar file.
#
# Debian's static busybox, a link for each of its commands, and the few files and
# directories that programs expect. The same busybox gives the same bytes.
set -euo pipefail
file=${1:?usage: hack/busybox-image.sh FILE}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

umask 022
mkdir -p "$root"/{bin,dev,etc,home,proc,root,run,sys,tmp,usr/bin,usr/sbin,var/log,var/tmp}
chmod 755 "$root"
chmod 700 "$root/root"
chmod 1777 "$root/tmp" "$root/var/tmp"
ln -s bin "$root/sbin"
install -m 755 "$(command -v busybox)" "$root/bin/busybox"
for applet in $(busybox --list); do
	[ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
# Where scripts look for it.
ln -s ../../bin/env "$root/usr/bin/env"
cat >"$root/etc/passwd" <<'EOT'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
EOT
cat >"$root/etc/group" <<'EOT'
root:x:0:
daemon:x:1:
tty:x:5:
users:x:100:
nogroup:x:65534:
EOT

tar --create --file "$file.new" --directory "$root" --format=posix \
	--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f \
	--sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner .
mv "$file.new" "$file"
