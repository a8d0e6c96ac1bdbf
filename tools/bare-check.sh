#!/usr/bin/env bash
# Prove that a fresh clone needs nothing but its own set-up: run make targets in a bare Debian.
#
#   tools/bare-check.sh [TARGET...]        (default: demo test)
#
# Makes a minimal Debian of this machine's release with git, make and CA certificates in a temporary
# folder, clones the committed tree into it, and runs each target there as root, with that folder as
# root file system. Everything is gone afterwards, however it ends. Takes this machine's apt mirror, apt and
# pip configuration, CA bundle and proxy variables along; BARE_BIND names further folders to be seen
# inside read-only (a local package index, say), separated by spaces. Needs root and debootstrap.
set -euo pipefail

die() {
    printf 'bare-check: %s\n' "$*" >&2
    exit 1
}

[[ $(id -u) -eq 0 ]] || die "needs root"
command -v debootstrap >/dev/null || die "install debootstrap"

# All mounts live in a namespace of this process, so that none can outlive it.
if [[ ${BARE_CHECK_INSIDE:-} != yes ]]; then
    target=$(mktemp -d "${TMPDIR:-/tmp}/bare.XXXXXX")
    trap 'rm -rf --one-file-system "$target"' EXIT
    BARE_CHECK_INSIDE=yes unshare --mount --propagation private "$0" "$target" "$@"
    exit
fi

source_root=$(cd "$(dirname "$0")/.." && pwd)
target=$1
shift
[[ $# -gt 0 ]] || set -- demo test

release=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
    awk -v release="$release" '$1 == release { print $2; exit }')
[[ -n $mirror ]] || die "no apt source for $release on this machine"

echo "bare-check: debootstrap $release"
debootstrap --variant=minbase --include=git,make,ca-certificates "$release" "$target/root" \
    "$mirror" >"$target/debootstrap.log" 2>&1 || {
    tail -n 20 "$target/debootstrap.log" >&2
    die "debootstrap failed"
}
root=$target/root
mount --bind "$root" "$root" # pivot_root below wants a mount

# ---- this machine's way to its packages ----------------------------------------------------------
take() { # copy a file or folder to the same place inside
    [[ -e $1 ]] || return 0
    mkdir -p "$root$(dirname "$1")"
    cp -aL "$1" "$root$(dirname "$1")/"
}
rm -f "$root/etc/apt/sources.list"
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    if [[ -e $file ]] && grep -qF "${mirror%/}" "$file"; then take "$file"; fi
done
for file in /etc/apt/apt.conf /etc/apt/apt.conf.d/*; do
    if [[ -e $file ]] && grep -q '^Acquire::' "$file"; then take "$file"; fi
done
for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt \
    /usr/local/share/ca-certificates /etc/pip.conf /etc/xdg/pip "$HOME/.config/pip" "$HOME/.pip"; do
    take "$file"
done

# ---- run -----------------------------------------------------------------------------------------
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
for folder in ${BARE_BIND:-}; do
    mkdir -p "$root$folder"
    mount --bind -o ro "$folder" "$root$folder"
done
git clone --quiet "file://$source_root" "$root/weftnet"

keep=()
while IFS= read -r name; do
    keep+=("$name=${!name}")
done < <(compgen -e | grep -E '^(PIP_|SSL_CERT_|REQUESTS_CA_|CURL_CA_|GIT_SSL_)|_(proxy|PROXY)$' || true)

# Not chroot: whoever enters a mount namespace, as the lab does, leaves a chroot by that.
read -r -d '' enter <<'SH' || true
cd "$1"
pivot_root . mnt
exec chroot . /bin/bash -ec 'umount -l /mnt; exec make -C /weftnet "$1"' make "$2"
SH

status=0
for make_target in "$@"; do
    echo "bare-check: make $make_target"
    start=$SECONDS
    env -i "${keep[@]}" HOME=/root TERM=dumb LANG=C.UTF-8 CI=true \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        unshare --mount --propagation private bash -ec "$enter" enter "$root" "$make_target" \
        </dev/null || {
        status=1
        echo "bare-check: make $make_target FAILED"
    }
    echo "bare-check: make $make_target took $((SECONDS - start)) s"
done
cd /
umount -R -l "$root"
exit "$status"
