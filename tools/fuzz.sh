#!/usr/bin/env bash
# Run every fuzz target, C (libFuzzer) and Python (Atheris), from the stored seeds.
#
# FUZZ_SECONDS is how long, shared by the targets of each language (60). The two run side by side.
# A failure prints the command that repeats it. Needs tools/setup.sh test first.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-60}
mkdir -p build/fuzz

.venv/bin/python -m tests.fuzz -s "$seconds" >build/fuzz/python.log 2>&1 &
python=$!
trap 'kill "$python" 2>/dev/null || true' EXIT

targets=(native/fuzz/*.c)
each=$((seconds / (${#targets[@]} - 1))) # replay.c is none
failed=0
native/fuzz/run.sh -s "$((each > 0 ? each : 1))" || failed=1
wait "$python" || failed=1
trap - EXIT
cat build/fuzz/python.log
exit $failed
