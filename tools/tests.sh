#!/usr/bin/env bash
# Every test. Those that mostly wait for clocks of running meshes go several at a time; all others
# one by one, since some of them measure. Arguments go to pytest, which then runs once.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ $# -gt 0 ]]; then
    exec .venv/bin/python -m pytest "$@"
fi
echo "tests: one by one"
.venv/bin/python -m pytest -m "not patient"
echo "tests: running meshes, four at a time"
.venv/bin/python -m pytest -m patient -n 4 --dist worksteal tests/netns
