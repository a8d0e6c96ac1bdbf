#!/usr/bin/env bash
# Style, format and types of everything in the tree. Needs tools/setup.sh first.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/ruff check --quiet .
.venv/bin/ruff format --quiet --check . || {
    .venv/bin/ruff format --check . >&2
    exit 1
}
.venv/bin/mypy
