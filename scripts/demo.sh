#!/usr/bin/env bash
# The main job on drawn data, on a machine that has only Python: train, val, export, predict. About four minutes on two
# cores after installation. Everything it makes lies in demo/, the drawn data in datasets/crack-demo.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/scripts/env.sh"
rm -rf "$root/demo"
mkdir -p "$root/demo"
cd "$root/demo"
segdet="$root/.venv/bin/segdet"
export SEGDET_DATASETS="$root/datasets"
unset CDPATH

step() {
  echo
  echo "\$ segdet $*"
  "$segdet" "$@"
}

step data info crack-demo
step train unet --data crack-demo --epochs "${SEGDET_DEMO_EPOCHS:-8}"
step val runs/unet-crack-demo
step export runs/unet-crack-demo
# Four pictures that training has not seen.
mapfile -t pictures < <(find "$SEGDET_DATASETS/crack-demo/test" -name '*.jpg' | sort | head -4)
step predict "${pictures[@]}" --out predictions

echo
best="$("$root/.venv/bin/python" - <<'PYTHON'
import json
images = json.load(open("predictions/predictions.json"))["images"]
print(max(images, key=lambda image: image["classes"]["crack"]["share"])["files"]["overlay"])
PYTHON
)"
echo "overlay: $root/demo/$best (the picture with most crack; all are beside it)"
echo "report:  $root/demo/runs/unet-crack-demo/report.html"
echo "model:   $root/demo/exports/unet-crack-demo.onnx"
