"""Heads, starting points and resolutions side by side on one dataset, each with the same training time.

    python scripts/bench_heads.py heads --data crack --time-budget 5m

Runs that are there already are kept, so it can be stopped and started again. Prints a Markdown table: scores on validation
(IoU with its 95 % interval, F1 within 2 pixels), parameters, training images a second, and the latency of the exported file
(median of interleaved rounds, one image at a time).
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segdet.data.catalog import cards
from segdet.data.catalog.splits import limited
from segdet.data.images import read_image
from segdet.inference.backends.select import open_session

LITE = ["--backbone", "efficientnet_lite0"]
SERIES: dict[str, dict[str, list[str]]] = {
    # efficientnet_lite0 because its ImageNet weights come by pip; a plain transformer has none there and starts at random.
    "heads": {
        "fcn": ["fcn", *LITE],
        "unet": ["unet", *LITE],
        "deeplabv3": ["deeplabv3", *LITE],
        "deeplabv3plus": ["deeplabv3plus", *LITE],
        "segmenter": ["segmenter", "--backbone", "vit_tiny_patch16_224", "--weights", "none"],
    },
    "transfer": {
        "frozen": ["unet", "--freeze", "backbone"],
        "partly-frozen": ["unet", "--freeze", "3"],
        "layer-decay": ["unet", "--layer-decay", "0.7"],
        "fine-tuned": ["unet"],
        "scratch": ["unet", "--weights", "none"],
    },
    "detail": {
        "fcn-8": ["fcn", *LITE],
        "fcn-8-upscale-2": ["fcn", *LITE, "--input-scale", "2"],
        "deeplabv3plus-16": ["deeplabv3plus", *LITE],
        "deeplabv3plus-16-upscale-2": ["deeplabv3plus", *LITE, "--input-scale", "2"],
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", choices=SERIES)
    parser.add_argument("--data", default="crack")
    parser.add_argument("--time-budget", default="5m")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--figure", type=Path, help="PNG to write: IoU with its interval, and the training speed")
    parser.add_argument("rest", nargs="*", help="further options of `segdet train`, behind --")
    options = parser.parse_args()
    names = list(SERIES[options.series])
    for name in names:
        prepare(options.out / name, [*SERIES[options.series][name], "--data", options.data], options)
    latencies = measure([options.out / name / "model.onnx" for name in names], options.data)
    print(table([options.out / name for name in names], latencies))
    if options.figure:
        draw([options.out / name for name in names], options.figure)


def prepare(run: Path, arguments: Sequence[str], options: argparse.Namespace) -> None:
    """Train and export unless that was done before."""
    if not (run / "metrics.json").is_file():
        segdet(
            "train",
            *arguments,
            "--time-budget",
            options.time_budget,
            "--out",
            run.parent,
            "--name",
            run.name,
            *options.rest,
        )
    if not (run / "model.onnx").is_file():
        segdet("export", run, "--out", run / "model.onnx")


def segdet(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "segdet", *map(str, arguments)], check=True)


def measure(models: Sequence[Path], data: str, rounds: int = 15) -> list[float]:
    """Milliseconds of one image in each model: the models take turns, so that noise of the machine hits all alike."""
    dataset = limited(cards.load(data), rounds)
    images = [read_image(record.image)[None] for record in dataset.splits["val"]]
    sessions = [open_session(path, "cpu") for path in models]
    for session in sessions:
        session.run(images[0])
    taken = np.zeros((len(images), len(models)))
    for row, image in enumerate(images):
        for column, session in enumerate(sessions):
            began = time.perf_counter()
            session.run(image)
            taken[row, column] = 1000 * (time.perf_counter() - began)
    return np.median(taken, axis=0).tolist()


def table(runs: Sequence[Path], latencies: Sequence[float]) -> str:
    lines = [
        "| | IoU | F1@2px | clDice | M parameters | epochs | images/s | ONNX ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run, latency in zip(runs, latencies, strict=True):
        metrics = json.loads((run / "metrics.json").read_text())
        history = list(csv.DictReader((run / "results.csv").open()))
        low, high = metrics["ci95"]["iou"]
        lines.append(
            f"| {run.name} | {metrics['iou']:.3f} ({low:.3f} to {high:.3f}) | {metrics['f1_2px']:.3f} | {metrics['cldice']:.3f} "
            f"| {parameters(run):.1f} | {len(history)} | {rate(run):.1f} | {latency:.0f} |"
        )
    return "\n".join(lines)


def draw(runs: Sequence[Path], path: Path) -> None:
    """Bars of IoU with 95 % intervals, each labelled with its training speed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 0.6 * len(runs) + 1.2), layout="constrained")
    for place, run in enumerate(reversed(runs)):
        metrics = json.loads((run / "metrics.json").read_text())
        low, high = metrics["ci95"]["iou"]
        value = metrics["iou"]
        axis.barh(place, value, color="#4c8bb5", height=0.6)
        axis.plot([low, high], [place, place], color="#1b1f24", linewidth=1.5)
        axis.text(0.01, place, f"{value:.3f}   {rate(run):.1f} images/s", va="center", color="white", fontsize=9)
    axis.set_yticks(range(len(runs)), [run.name for run in reversed(runs)])
    axis.set(xlabel="IoU on the validation photographs, 95 % interval", xlim=(0, None))
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def rate(run: Path) -> float:
    """Training images a second, median over epochs."""
    history = csv.DictReader((run / "results.csv").open())
    return statistics.median(float(row["images_per_second"]) for row in history)


def parameters(run: Path) -> float:
    """Millions of parameters that answer, without auxiliary heads: those of the exported file."""
    import onnx

    graph = onnx.load(run / "model.onnx").graph
    return sum(np.prod(tensor.dims) for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT) / 1e6


if __name__ == "__main__":
    main()
