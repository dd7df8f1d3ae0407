"""Memory and time of `segdet val` on large photographs with many mistakes, and of the last step of `segdet train`.

    python scripts/bench_memory.py                       # 20 photographs of 20 megapixels, 500 mistakes each
    python scripts/bench_memory.py --mistakes 50         # the same memory
    python scripts/bench_memory.py --train unet          # a real network: one epoch, then `val` of its weights

Draws a set in which every photograph has one labelled crack and many dark specks that nobody labelled. `val` measures a file whose
network calls everything dark a crack, so the number of mistakes is known and the network costs next to nothing: what is left is decoding,
measuring and, with `--report`, the report's pictures. Memory is the peak over the command with its loader processes, shared pages
counted once (Linux: PSS). Prints Markdown.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import psutil

from segdet.metadata import KEY, DataSource, Metadata

_DARK = """
<ir_version: 9, opset_import: ["" : 18]>
dark (uint8[N,H,W,3] image, float threshold) => (uint8[N,H,W] mask, float[N,H,W] confidence)
<float threshold = {0.5}> {
  channels = Constant<value = int64[1] {3}>()
  white = Constant<value = float {255.0}>()
  one = Constant<value = float {1.0}>()
  bright = Cast<to = 1>(image)
  mean = ReduceMean<keepdims = 0>(bright, channels)
  share = Div(mean, white)
  confidence = Sub(one, share)
  crack = GreaterOrEqual(confidence, threshold)
  mask = Cast<to = 2>(crack)
}
"""
_SPECK = 15  # side in pixels: over the 30 wrong pixels from which a mistake is listed


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--photographs", type=int, default=20)
    options.add_argument("--megapixels", type=float, default=20.0)
    options.add_argument("--mistakes", type=int, default=500, help="specks on each photograph")
    options.add_argument("--report", action="store_true", help="also write the report of `val`")
    options.add_argument("--train", metavar="ARCH", help="also train for one epoch, and measure the weights")
    options.add_argument("--weights", default="imagenet", help="of --train")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "specks", asked.photographs, asked.megapixels, asked.mistakes)
        dark_file(folder / "dark.onnx")
        report = ["--report", "report.html"] if asked.report else []
        print(f"{asked.photographs} photographs of {asked.megapixels:g} megapixels, {asked.mistakes} specks each\n")
        print("| command | seconds | processor seconds | processor seconds a photograph | peak memory (GB) |")
        print("|---|---|---|---|---|", flush=True)

        def row(title: str, *command: str) -> None:
            seconds, busy, peak = measured(folder, *command)
            each = busy / asked.photographs
            print(f"| {title} | {seconds:.1f} | {busy:.1f} | {each:.2f} | {peak / 1e9:.2f} |", flush=True)

        row("val, network for free", "val", "dark.onnx", "--data", "specks", "--split", "test", *report)
        if asked.train:
            training = ["train", asked.train, "--data", "specks", "--epochs", "1", "--weights", asked.weights]
            row(f"train {asked.train}, one epoch", *training, "--name", "run")
            row(f"val of {asked.train}", "val", "runs/run", *report)
            row(f"export of {asked.train}", "export", "runs/run", "--limit", "4")
            row(f"predict with {asked.train}", "predict", "specks/images/val", "--out", "found")


def draw(folder: Path, photographs: int, megapixels: float, mistakes: int) -> None:
    """A YOLO folder: `photographs` for validation, the first two of them for training too."""
    width, height = round((megapixels * 1.25e6) ** 0.5), round((megapixels * 0.8e6) ** 0.5)
    for number in range(photographs + 2):
        rng = np.random.default_rng(number)
        split = "train" if number >= photographs else "val"
        image = np.full((height, width, 3), 190, np.uint8) + rng.integers(0, 20, (height, width, 1), np.uint8)
        along = np.linspace(0.05, 0.95, 40)
        down = 0.5 + 0.02 * rng.standard_normal(40).cumsum().clip(-15, 15)
        thick = 4 / height
        outline = np.concatenate([np.stack([along, down], 1), np.stack([along, down + thick], 1)[::-1]])
        cv2.fillPoly(image, [(outline * [width, height]).round().astype(np.int32)], (40, 40, 40))
        for y, x in zip(rng.integers(0, height - 30, mistakes), rng.integers(0, width - 30, mistakes), strict=True):
            image[y : y + _SPECK, x : x + _SPECK] = 40
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "images" / split / f"{number}.jpg"), image)
        row = " ".join(f"{value:.6f}" for value in outline.clip(0, 1).ravel())
        (folder / "labels" / split / f"{number}.txt").write_text(f"0 {row}\n")
    (folder / "data.yaml").write_text(
        "path: .\ntrain: images/train\nval: images/val\ntest: images/val\nnames: [crack]\n"
    )


def dark_file(path: Path) -> None:
    """An ONNX file whose confidence is 1 - brightness."""
    model = onnx.parser.parse_model(_DARK)
    about = Metadata(
        schema=1, task="segmentation", arch="dark", backbone="none", classes=["crack"], imgsz=64, mean=[0.5] * 3,
        std=[0.5] * 3, threshold=0.5, data=DataSource(name="dark", sha256="0" * 64), version="0",
    )  # fmt: skip
    model.metadata_props.add(key=KEY, value=about.to_json())
    onnx.save(model, path)


def measured(folder: Path, *command: str) -> tuple[float, float, int]:
    """Seconds, seconds of all processors (its start included) and peak bytes of a command of segdet.

    Raises:
        SystemExit: the command fails.
    """
    began, busy, peak = time.perf_counter(), _busy(), 0
    with (folder / "output.txt").open("w+") as output:
        process = subprocess.Popen([sys.executable, "-m", "segdet", *command], cwd=folder, stdout=output, stderr=output)
        while process.poll() is None:
            peak = max(peak, _memory(psutil.Process(process.pid)))
            time.sleep(0.2)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"segdet {' '.join(command)}: exit code {process.returncode}\n{output.read()[-2000:]}")
    return time.perf_counter() - began, _busy() - busy, peak


def _busy() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _memory(root: psutil.Process) -> int:
    total = 0
    try:
        for process in (root, *root.children(recursive=True)):
            total += getattr(process.memory_full_info(), "pss", 0)
    except psutil.Error:  # it has just ended
        pass
    return total


if __name__ == "__main__":
    main()
