#!/usr/bin/env bash
# Everything around scripts/bench_gpu.py on a GPU machine that may lack a package index (docs/gpu.md).
#
#   scripts/gpu.sh fetch                 where there is an index: put the wheels of gpu_wheels.txt into .whl/
#   scripts/gpu.sh split FILE [MB]       cut a large wheel (onnxruntime-gpu) into pieces of at most MB (default 40)
#   scripts/gpu.sh keep FOLDER           on the GPU machine: move what lies in .whl/ to FOLDER, for a later `run`
#   scripts/gpu.sh run OUT [OPTION...]   on the GPU machine: install the wheels beside Python, measure, write OUT/gpu.jsonl,
#                                        gpu.md and gpu.png; options go to bench_gpu.py
#
# WHEELS names another folder of wheels for `run`; it may be the one that `keep` filled.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"

fetch() {
  mkdir -p .whl
  local platforms=()
  for version in 34 31 28 27 24 17; do platforms+=(--platform "manylinux_2_${version}_x86_64"); done
  python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    "${platforms[@]}" --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --dest .whl -r scripts/gpu_wheels.txt
  du -sh .whl
}

split_file() {
  local megabytes="${2:-40}"
  mkdir -p .whl
  split --bytes "${megabytes}M" --numeric-suffixes --suffix-length 2 "$1" ".whl/$(basename "$1").part-"
  ls -l .whl/"$(basename "$1")".part-*
}

keep() {
  mkdir -p "$1"
  mv .whl/* "$1"/
  ls -l "$1"
}

install() { # wheels beside the Python that is there, which stays as it is
  local wheels="${WHEELS:-.whl}" site="${SITE:-/tmp/segdet-site}" joined
  [ -d "$wheels" ] || return 0
  for first in "$wheels"/*.part-00; do
    [ -e "$first" ] || continue
    joined="${TMPDIR:-/tmp}/$(basename "${first%.part-00}")"
    cat "${first%.part-00}".part-* >"$joined"
    python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" "$joined"
    rm "$joined"
  done
  if compgen -G "$wheels/*.whl" >/dev/null; then
    python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" "$wheels"/*.whl
  fi
  export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
}

run() {
  local out="$1" code=0
  shift
  mkdir -p "$out"
  install
  PYTHONUNBUFFERED=1 python3 scripts/bench_gpu.py --out "$out/gpu.jsonl" "$@" || code=$?
  python3 scripts/bench_gpu.py --table "$out/gpu.jsonl" --plot "$out/gpu.png" | tee "$out/gpu.md"
  return "$code"
}

case "${1:-}" in
  fetch) fetch ;;
  split) split_file "${@:2}" ;;
  keep) keep "${2:?name a folder}" ;;
  run) run "${@:2}" ;;
  *)
    sed -n '2,12p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
