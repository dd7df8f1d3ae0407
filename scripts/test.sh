#!/usr/bin/env bash
# Every check: style, walls between the rooms, types, tests. Makes its own environment first.
# Arguments go to pytest: scripts/test.sh tests/data -k yolo
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
bash scripts/env.sh
export PYTHONPATH="$root" OMP_WAIT_POLICY=PASSIVE
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/lint-imports
.venv/bin/mypy
.venv/bin/python -m pytest "$@"
