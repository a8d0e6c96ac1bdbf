#!/usr/bin/env bash
# Every test: those of single rooms on all cores, a file at a time; then whole nodes that mostly wait
# for clocks, several labs at a time; then those that measure, or look at all of this machine, one by
# one. Arguments go to pytest, which then runs once.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ $# -gt 0 ]]; then
    exec .venv/bin/python -m pytest "$@"
fi
alone=(tests/bench tests/lab tests/netns tests/runtimes)
echo "tests: rooms, on all cores"
.venv/bin/python -m pytest -m "not patient" -n auto --dist loadfile "${alone[@]/#/--ignore=}"
echo "tests: nodes that wait, four at a time"
.venv/bin/python -m pytest -m patient -n 4 --dist worksteal tests/netns
echo "tests: nodes that measure, one by one"
.venv/bin/python -m pytest -m "not patient" "${alone[@]}"
