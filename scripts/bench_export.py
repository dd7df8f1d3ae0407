"""What the precisions cost and bring: every run exported in each of them, then timed side by side.

    python scripts/bench_export.py runs/unet-crack runs/deeplabv3plus-crack --out exports/bench

Files that are there already are kept, so it can be stopped and started again. Prints a Markdown table: size, IoU (or AP) of
the file on validation and its change against PyTorch with the paired 95 % interval, and the time of one image, one at a
time, on one and on two threads: the median over interleaved rounds, wall clock and (one thread) processor. Processor time is
the steadier figure on a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segdet.data.catalog import cards
from segdet.data.catalog.splits import limited
from segdet.data.images import read_image
from segdet.exporting.gate import PRECISIONS
from segdet.inference.backends.select import open_session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--data", default="crack", help="dataset whose validation images are timed")
    parser.add_argument("--out", type=Path, default=Path("exports/bench"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--limit", type=int, help="validation images of the gate (default: as `segdet export`)")
    options = parser.parse_args()
    for run in options.runs:
        for precision in PRECISIONS:
            prepare(run, precision, options)
    print(
        "| model | precision | MB | of fp32 | IoU or AP | change (95 %) | overlap | ms, 1 thread | processor ms | ms, 2 threads |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for run in options.runs:
        files = [file_of(run, precision, options) for precision in PRECISIONS]
        present = [file for file in files if file.is_file()]
        one, processor = measure(present, options.data, 1, options.rounds)
        two, _ = measure(present, options.data, 2, options.rounds)
        for file, *times in zip(present, one, processor, two, strict=True):
            print(row(run, file, files[0], times), flush=True)


def file_of(run: Path, precision: str, options: argparse.Namespace) -> Path:
    return Path(options.out) / f"{run.name}-{precision}.onnx"


def prepare(run: Path, precision: str, options: argparse.Namespace) -> None:
    """Export unless that was done before; a file that its gate refuses is left out of the table."""
    file = file_of(run, precision, options)
    if file.is_file():
        return
    command = ["export", run, "--precision", precision, "--out", file]
    if options.limit:
        command += ["--limit", options.limit]
    subprocess.run([sys.executable, "-m", "segdet", *map(str, command)], check=False)


def measure(models: Sequence[Path], data: str, threads: int, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of one image in each model, wall clock and processor. The models take turns within a round."""
    dataset = limited(cards.load(data), rounds)
    images = [read_image(record.image)[None] for record in dataset.splits["val"]]
    sessions = [open_session(path, "cpu", threads) for path in models]
    for session in sessions:
        session.run(images[0])
    wall, processor = np.zeros((2, len(images), len(models)))
    for number, image in enumerate(images):
        for place in np.roll(np.arange(len(models)), number):
            began, worked = time.perf_counter(), time.process_time()
            sessions[place].run(image)
            wall[number, place] = 1000 * (time.perf_counter() - began)
            processor[number, place] = 1000 * (time.process_time() - worked)
    return np.median(wall, axis=0).tolist(), np.median(processor, axis=0).tolist()


def row(run: Path, file: Path, exact: Path, times: Sequence[float]) -> str:
    compared = json.loads(file.with_suffix(".parity.json").read_text())
    metric = compared.get("iou") or compared["ap"]
    size = file.stat().st_size
    share = f"{size / exact.stat().st_size:.2f}" if exact.is_file() else ""
    low, high = metric["ci95"]
    made = compared.get("quantised")
    recipe = f" ({made['recipe']})" if made else ""
    return (
        f"| {run.name} | {compared['precision']}{recipe} | {size / 1e6:.1f} | {share} | {metric['onnx']:.3f} "
        f"| {metric['delta']:+.5f} ({low:+.4f} to {high:+.4f}) | {compared['agreement']:.2%} | "
        + " | ".join(f"{value:.0f}" for value in times)
        + " |"
    )


if __name__ == "__main__":
    main()
