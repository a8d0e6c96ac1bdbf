#!/usr/bin/env bash
# Everything that one make target needs: Debian packages, .venv, the compiled module.
#
#   tools/setup.sh demo|lint|test|bench
#
# The second run finds its stamps and takes a fraction of a second. Packages are installed only when
# root and only the missing ones; otherwise one line says which to install. Python packages come
# from wherever this machine's pip is set up to look.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:?usage: tools/setup.sh demo|lint|test|bench}
root=$PWD

die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

say() {
    printf 'setup: %s\n' "$*"
}

# ---- one set-up at a time -----------------------------------------------------------------------
mkdir -p build
exec 9>build/.setup.lock
flock 9

# ---- Debian packages ----------------------------------------------------------------------------
packages=(python3 python3-venv python3-dev gcc libc6-dev make libsodium-dev libssl-dev)
case $target in
demo) packages+=(iproute2 iputils-ping iperf3 ethtool nftables) ;;
bench) packages+=(iproute2 iputils-ping iperf3 ethtool nftables containernetworking-plugins) ;;
test) packages+=(git curl iproute2 iputils-ping iperf3 ethtool iptables nftables tcpdump procps clang
    containernetworking-plugins containerd podman runc) ;;
lint) ;;
*) die "unknown target $target" ;;
esac

missing_packages() {
    local name
    for name in "$@"; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || echo "$name"
    done
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    [[ $(id -u) -eq 0 ]] || die "missing Debian packages, as root: apt-get install ${missing[*]}"
    say "apt-get install ${missing[*]}"
    if [[ -z ${apt_updated:-} ]]; then
        apt-get -qq update >build/apt.log 2>&1 || {
            tail -n 20 build/apt.log >&2
            die "apt-get update failed"
        }
        apt_updated=yes
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 install \
        --no-install-recommends "${missing[@]}" >>build/apt.log 2>&1 </dev/null || {
        tail -n 20 build/apt.log >&2
        die "apt-get install failed"
    }
}

# What makes it faster and may be missing: a failure is no error.
install_optional() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [[ ${#missing[@]} -gt 0 && $(id -u) -eq 0 ]] || return 0
    (install_packages "$@") 2>/dev/null || say "goes on without ${missing[*]}"
}

if command -v dpkg-query >/dev/null; then
    install_packages "${packages[@]}"
    [[ $(dpkg --print-architecture) != amd64 ]] || install_optional libipsec-mb-dev
    if [[ $target == test ]]; then
        # libFuzzer lives in clang's runtime package, which is named after clang's major version
        clang_version=$(clang -dumpversion)
        install_packages "libclang-rt-${clang_version%%.*}-dev"
    fi
else
    say "no dpkg here: expecting the programs of ${packages[*]}"
fi

# ---- Python -------------------------------------------------------------------------------------
usable_python() {
    "$1" - >/dev/null 2>&1 <<'PY'
import ensurepip, os, sys, sysconfig, venv
sys.exit(not (sys.version_info >= (3, 11)
              and os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))))
PY
}

python=
for candidate in /usr/bin/python3 python3; do
    if usable_python "$candidate"; then
        python=$(command -v "$candidate")
        break
    fi
done
[[ -n $python ]] || die "no Python >= 3.11 with venv and headers (packages python3-venv, python3-dev)"

digest() { # of the files named on standard input and the words given
    { printf '%s\n' "$root" "$("$python" -VV)" "$@" && xargs -r cat; } | sha256sum | cut -c1-32
}

# ---- virtual environment ------------------------------------------------------------------------
extras=dev
[[ $target != bench && ! -e .venv/.weft-bench ]] || extras=dev,bench
environment=$(printf '%s\n' pyproject.toml setup.py | digest "$extras")
native_files() {
    find native -path native/fuzz -prune -o \( -name '*.[ch]' -o -name build.py \) \
        ! -name _datapath.c -print | LC_ALL=C sort
}
ipsec_mb=without
! echo '#include <intel-ipsec-mb.h>' | gcc -E - >/dev/null 2>&1 || ipsec_mb=with
native=$(native_files | digest "$ipsec_mb IPsec-MB")

stamp_is() {
    [[ -e $1 && $(<"$1") == "$2" ]]
}

if ! .venv/bin/python -c '' 2>/dev/null || ! stamp_is .venv/.weft-venv "$environment"; then
    say "virtual environment .venv with [$extras], by $python"
    if ! stamp_is .venv/.weft-root "$root"; then
        "$python" -m venv --clear .venv
        echo "$root" >.venv/.weft-root
    fi
    rm -f .venv/.weft-native native/_datapath*.so
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
    echo "$environment" >.venv/.weft-venv
    echo "$native" >.venv/.weft-native
    [[ $extras == dev ]] || touch .venv/.weft-bench
fi

# ---- compiled module ----------------------------------------------------------------------------
if ! stamp_is .venv/.weft-native "$native" || ! compgen -G 'native/_datapath*.so' >/dev/null; then
    say "building native/_datapath"
    .venv/bin/python native/build.py
    echo "$native" >.venv/.weft-native
fi
if [[ $target == test ]]; then
    if ! stamp_is build/sanitize/.weft-native "$native"; then
        say "building native/_datapath with the address and undefined-behaviour sanitizers"
        WEFT_SANITIZE=address,undefined .venv/bin/python native/build.py
        echo "$native" >build/sanitize/.weft-native
    fi
fi

# ---- the executable that a container runtime calls ------------------------------------------------
stub=$(find cni/stub -name '*.[ch]' -o -path cni/stub/build.py | LC_ALL=C sort | digest stub)
if ! stamp_is build/.weft-stub "$stub" || [[ ! -x cni/stub/weft-cni ]]; then
    say "building cni/stub/weft-cni"
    .venv/bin/python cni/stub/build.py
    echo "$stub" >build/.weft-stub
fi
