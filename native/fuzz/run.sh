#!/bin/sh
# Build every fuzz target and run each for a while, one after the other.
#
#   native/fuzz/run.sh [-s SECONDS] [-b] [TARGET...]
#
#   -s SECONDS  time for each target (default 60)
#   -b          build only
#
# Needs clang with its libFuzzer. Writes below build/fuzz only: programs, the grown corpora
# (corpus/TARGET) and the inputs that failed (failed/TARGET-...). Exit code 1 if any target failed.
set -eu

seconds=60
build_only=
while getopts s:b option; do
    case $option in
    s) seconds=$OPTARG ;;
    b) build_only=yes ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
out=build/fuzz
clang=${CLANG:-clang}
flags="-std=gnu11 -O2 -g -fno-omit-frame-pointer -fno-sanitize-recover=all -Wall -Wextra -Werror \
-Inative/include -Inative/src -Inative/fuzz"
libraries="-pthread -lsodium -lcrypto"
if echo '#include <intel-ipsec-mb.h>' | "$clang" -E - >/dev/null 2>&1; then
    flags="$flags -DWEFT_IPSEC_MB"
    libraries="$libraries -lIPSec_MB"
fi
mkdir -p "$out/obj" "$out/failed"

if [ $# -eq 0 ]; then
    for file in native/fuzz/*.c; do
        [ "$(basename "$file")" = replay.c ] || set -- "$@" "$(basename "$file" .c)"
    done
fi

objects=
for file in native/src/*.c; do
    object=$out/obj/$(basename "$file" .c).o
    "$clang" $flags -fsanitize=fuzzer-no-link,address,undefined -c "$file" -o "$object"
    objects="$objects $object"
done
for target in "$@"; do
    # comparisons in the oracles would only slow the run down; those in our code guide it
    "$clang" $flags -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-coverage=trace-cmp \
        -c "native/fuzz/$target.c" -o "$out/obj/target_$target.o"
    "$clang" -fsanitize=fuzzer,address,undefined "$out/obj/target_$target.o" $objects $libraries \
        -o "$out/$target"
done
[ -z "$build_only" ] || exit 0

failed=0
for target in "$@"; do
    mkdir -p "$out/corpus/$target" "native/fuzz/corpus/$target"
    echo "== $target, $seconds s"
    log=$out/$target.log
    "$out/$target" -max_total_time="$seconds" -timeout=120 -rss_limit_mb=2048 -max_len=66000 \
        -len_control=20 -print_final_stats=1 -artifact_prefix="$out/failed/$target-" \
        "$out/corpus/$target" "native/fuzz/corpus/$target" >"$log" 2>&1 || {
        failed=1
        tail -n 40 "$log"
        for input in $(ls -t "$out/failed" | grep "^$target-" | head -n 1); do
            echo "again: $out/$target $out/failed/$input"
        done
    }
    grep -E "^stat::(number_of_executed|average_exec|new_units)|DONE.*cov:" "$log" || true
done
exit $failed
