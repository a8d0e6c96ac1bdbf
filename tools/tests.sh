#!/usr/bin/env bash
# Every test: those without namespaces on all cores, a file at a time; those with namespaces one by
# one, since some of them measure; then those that mostly wait for clocks of running meshes, several
# at a time. Arguments go to pytest, which then runs once.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ $# -gt 0 ]]; then
    exec .venv/bin/python -m pytest "$@"
fi
echo "tests: without namespaces, on all cores"
.venv/bin/python -m pytest -m "not netns and not patient" -n auto --dist loadfile
echo "tests: with namespaces, one by one"
.venv/bin/python -m pytest -m "netns and not patient"
echo "tests: running meshes, four at a time"
.venv/bin/python -m pytest -m patient -n 4 --dist worksteal tests/netns
