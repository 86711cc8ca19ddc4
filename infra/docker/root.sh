#!/usr/bin/env bash
# Collects the root file system of an image: one program, the shared libraries that it loads, certificates, and the user
# that it runs as. No shell, no package manager, nothing else.
#   root.sh PROGRAM ROOT
set -euo pipefail
[ $# -eq 2 ] || { sed -n '4s/^# *//p' "$0" >&2; exit 2; }
PROGRAM=$1 ROOT=$2
CERTIFICATES=/etc/ssl/certs/ca-certificates.crt
die() { echo "error: $*" >&2; exit 1; }
[ -x "$PROGRAM" ] || die "$PROGRAM is no program: build it first"
[ -f "$CERTIFICATES" ] || die "$CERTIFICATES is missing: install ca-certificates"

install -d "$ROOT"/{etc/causeway,etc/ssl/certs,usr/bin}
install -d -m 1777 "$ROOT/tmp"
install -m 755 "$PROGRAM" "$ROOT/usr/bin/"
install -m 644 "$CERTIFICATES" "$ROOT$CERTIFICATES"
# Names for `id` and for getpwuid(3); the numbers are what counts.
echo 'causeway:x:65532:65532::/:/nonexistent' >"$ROOT/etc/passwd"
echo 'causeway:x:65532:' >"$ROOT/etc/group"
# glibc looks up hosts in files first and asks DNS then, also where this file is missing, but in another order.
echo 'hosts: files dns' >"$ROOT/etc/nsswitch.conf"

# ldd(1) names the loader and every library, as `name => path (address)` or `path (address)`.
LIBRARIES=$(ldd "$PROGRAM") || die "ldd cannot read $PROGRAM"
! grep -q 'not found' <<<"$LIBRARIES" || die "libraries are missing: $(grep 'not found' <<<"$LIBRARIES")"
grep -o '/[^ ]*' <<<"$LIBRARIES" | sort -u | while read -r library; do
  # The path that the loader searches, filled with what the link points to.
  install -D -m 755 "$(realpath "$library")" "$ROOT$library"
done
