#!/usr/bin/env bash
# Every check: style, walls between the rooms, types, tests. Makes its own environment first.
# Arguments go to pytest: scripts/test.sh tests/data -k yolo
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
bash scripts/env.sh
# The page is tried with a real browser; where none can be had, those tests are skipped and say so.
if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "installing chromium for the tests of the page (once)" >&2
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } >/dev/null ||
    echo "chromium could not be installed" >&2
fi
export PYTHONPATH="$root" OMP_WAIT_POLICY=PASSIVE
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/lint-imports
.venv/bin/mypy
# Files side by side: much of a test's time is starting processes and waiting for them. A file stays together, with what its tests share.
.venv/bin/python -m pytest -n "$(.venv/bin/python -c 'import os; print(min(4, os.cpu_count() or 1))')" --dist loadfile "$@"
