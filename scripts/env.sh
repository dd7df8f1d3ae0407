#!/usr/bin/env bash
# Makes the environment and prints nothing but progress; afterwards .venv/bin/segdet and .venv/bin/python are ready.
#
# The packages (about 6 GB) lie in the user's cache, keyed by the Python version and a hash of pyproject.toml and
# constraints.txt, so that a second checkout installs nothing; .venv only points there and to this checkout.
# SEGDET_CACHE chooses another cache folder, PYTHON another interpreter.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"

python=""
for candidate in ${PYTHON:-} python3.13 python3.12 python3.11 python3 python; do
  if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python="$(command -v "$candidate")"
    break
  fi
done
if [ -z "$python" ]; then
  echo "env.sh: Python 3.11 or newer is needed; install it or set PYTHON" >&2
  exit 2
fi

version="$("$python" -c 'import platform; print(platform.python_version())')"
# Settings of tools are left out: they change no package.
key="$version-$(sed '/^\[tool\./q' pyproject.toml | cat - constraints.txt | sha256sum | cut -c1-16)"
cache="${SEGDET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/segdet}"
shared="$cache/env-$key"
mkdir -p "$cache"

make_shared() {
  rm -rf "$shared"
  if ! "$python" -m venv "$shared" >/dev/null 2>&1; then # Debian splits venv from Python
    if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
      apt-get update -qq && apt-get install -y -qq python3-venv
      rm -rf "$shared"
      "$python" -m venv "$shared"
    else
      echo "env.sh: python3 -m venv does not work; install the package python3-venv" >&2
      exit 2
    fi
  fi
  echo "installing packages into $shared (about 6 GB; once)" >&2
  "$shared/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt ".[all,dev]"
  "$shared/bin/python" -m pip uninstall --quiet --yes --disable-pip-version-check segdet
  touch "$shared/.ready"
}

(
  flock 9 # two checkouts may start at once
  [ -e "$shared/.ready" ] || make_shared
) 9>"$cache/env-$key.lock"

if [ "$(cat .venv/.key 2>/dev/null)" != "$shared:$root" ]; then
  rm -rf .venv
  "$shared/bin/python" -m venv --without-pip .venv
  site="$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
  "$shared/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/segdet.pth"
  echo "$root" >>"$site/segdet.pth"
  for tool in ruff mypy pytest lint-imports; do ln -s "$shared/bin/$tool" ".venv/bin/$tool"; done
  printf '#!/bin/sh\nexec "%s/.venv/bin/python" -m segdet "$@"\n' "$root" >.venv/bin/segdet
  chmod +x .venv/bin/segdet
  echo "$shared:$root" >.venv/.key
fi
