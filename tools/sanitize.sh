#!/usr/bin/env bash
# Run the tests of the C code against the build with address and undefined-behaviour sanitizers.
# The interpreter itself is not built that way, so libasan is loaded first, and leaks are not judged
# (CPython keeps memory on purpose). Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ -e build/sanitize/.weft-native ]] || {
    echo "sanitize: run tools/setup.sh test first" >&2
    exit 1
}
libasan=$(gcc -print-file-name=libasan.so)
export PYTHONPATH=$PWD/build/sanitize
export WEFT_SANITIZED=1
export ASAN_OPTIONS=detect_leaks=0:halt_on_error=1:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export PYTHONMALLOC=malloc
echo "sanitize: native tests under ASan and UBSan"
if [[ $# -eq 0 ]]; then
    for folder in tests/native tests/crypto tests/capture tests/router tests/sim; do
        [[ ! -d $folder ]] || set -- "$@" "$folder"
    done
fi
# the allocator has no C in it, and its simulations are long
LD_PRELOAD=$(readlink -f "$libasan") .venv/bin/pytest -q -n auto --dist loadfile -m "not netns" -p no:cacheprovider \
    --ignore-glob='tests/sim/*ipam*' "$@"
