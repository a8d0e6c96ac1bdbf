#!/usr/bin/env bash
# Build every libFuzzer target and run each for a few seconds over its corpus.
# FUZZ_SECONDS sets how long (5).
set -euo pipefail
cd "$(dirname "$0")/.."
exec native/fuzz/run.sh -s "${FUZZ_SECONDS:-5}"
