"""The model card beside an exported file: what it is, what it was made from, how good it is, and where it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from segdet.data.records import Dataset, by_photograph
from segdet.evaluation.label_width import follows_names
from segdet.exporting.gate import sentence
from segdet.metadata import Metadata

_NAMES = {
    "iou": "IoU", "miou": "mean IoU", "f1": "F1", "precision": "precision", "recall": "recall", "f1_2px": "F1 within 2 px",
    "cldice": "centre-line Dice", "boundary_iou": "boundary IoU", "pixel_accuracy": "pixel accuracy", "ap": "AP",
    "ap50": "AP50", "ap75": "AP75", "ar_100": "AR (100 boxes)",
}  # fmt: skip
_NOT_SETTINGS = ("out", "name", "device", "workers")  # of the machine, not of the model
_PRECISION = {
    "fp32": "32-bit floats",
    "fp16": "16-bit floats (half the size, meant for GPUs; on a CPU it is not faster)",
    "int8": "8-bit integers (a quarter of the size, meant for CPUs with VNNI and the like)",
}


def card(
    file: Path,
    size: int,
    metadata: Metadata,
    compared: dict[str, Any],
    trained_with: Mapping[str, Any],
    dataset: Dataset,
) -> str:
    """The card as Markdown.

    Args:
        file: the model; size: its bytes. trained_with: settings of the run, empty if unknown. dataset: what it was compared on.
    """
    settings = _settings(trained_with, metadata)
    sections = {
        f"# {file.stem}": _what(size, metadata),
        "## How to use it": _use(file, metadata),
        "## Data": _data(metadata, dataset),
        "## Training": _training(file, settings),
        "## How good it is": _scores(metadata),
        "## Agreement with the PyTorch model": _agreement(file, metadata, compared),
        "## Limits": "\n".join(f"- {line}" for line in _limits(metadata, dataset, compared)),
        "## Origin": _origin(metadata),
    }
    return "\n\n".join(f"{title}\n\n{text}" for title, text in sections.items()) + "\n"


def _what(size: int, metadata: Metadata) -> str:
    finds = "Marks every pixel of" if metadata.task == "segmentation" else "Draws boxes around"
    names = ", ".join(metadata.classes[:20]) + (", ..." if len(metadata.classes) > 20 else "")
    return (
        f"{finds}: {names}. {metadata.arch} on {metadata.backbone}, {_PRECISION[metadata.precision or 'fp32']}, "
        f"{size / 1e6:.1f} MB, one ONNX file (opset {metadata.opset})."
    )


def _use(file: Path, metadata: Metadata) -> str:
    if metadata.task == "detection":
        answer = (
            "`boxes` float32 `[N, Q, 4]` (x1, y1, x2, y2 in pixels), `scores` float32 `[N, Q]`, `labels` int64 `[N, Q]`"
        )
    else:
        answer = "`mask` uint8 `[N, H, W]` and `confidence` float32 `[N, H, W]`"
    operating = ""
    if metadata.threshold is not None and metadata.has_threshold:
        where = (
            "the input `threshold` overrides it"
            if metadata.task == "segmentation"
            else "boxes below it are left to you"
        )
        operating = f" The stored threshold is {metadata.threshold:.3f}; {where}."
    if metadata.down_to is not None:
        operating += (
            f" Images with a longer side of {2 * metadata.down_to} pixels or more `segdet` looks at again at half their size, a quarter "
            f"and so on, down to {metadata.down_to}, and adds what shows only there; ONNX Runtime alone does not."
        )
    return (
        f"    segdet predict photo.jpg --model {file.name}\n\n"
        f"Or with ONNX Runtime alone: input `image` is RGB uint8 `[N, H, W, 3]` of any size, normalising happens inside; out come "
        f"{answer}.{operating}"
    )


def _data(metadata: Metadata, dataset: Dataset) -> str:
    rows = [f"- dataset: {metadata.data.name}", f"- licence: {metadata.data.licence or 'not stated'}"]
    if dataset.name == metadata.data.name:
        counts = [
            f"{len(records)} {split} ({len(by_photograph(records))} photographs)"
            for split, records in dataset.splits.items()
        ]
        sizes = np.array([record.size for records in dataset.splits.values() for record in records])
        rows.append("- images: " + ", ".join(counts))
        (low_h, low_w), (high_h, high_w) = sizes.min(axis=0), sizes.max(axis=0)
        span = f"{low_w}x{low_h}" if (sizes == sizes[0]).all() else f"{low_w}x{low_h} to {high_w}x{high_h}"
        rows.append(f"- their size: {span}")
    for name, part in (getattr(metadata.data, "mixed", None) or {}).items():
        rows.append(
            f"- mixed in: {name}, {part['share']:.0%} of every epoch; licence: {part.get('licence') or 'not stated'}"
        )
    rows.append(f"- fingerprint of the labels (SHA-256): `{metadata.data.sha256}`")
    return "\n".join(rows)


def _settings(given: Mapping[str, Any], metadata: Metadata) -> dict[str, Any]:
    """What the run was asked to do, without what belongs to the machine it ran on."""
    if not given:
        return {}
    settings = {key: value for key, value in given.items() if value is not None and key not in _NOT_SETTINGS}
    settings["data"] = metadata.data.name  # it may have been a folder of somebody's home
    if isinstance(settings.get("weights"), str):
        settings["weights"] = Path(settings["weights"]).name
    if settings.get("mix"):
        settings["mix"] = {Path(name).name: share for name, share in settings["mix"].items()}
    return settings


def _training(file: Path, settings: Mapping[str, Any]) -> str:
    if not settings:
        return "Not known: the file was exported from weights without their run folder."
    name = f"{file.stem}.yaml"
    full = yaml.safe_dump(dict(settings), sort_keys=False).strip().replace("\n", "\n    ")
    return f"Save these settings as `{name}`; then `segdet train --config {name}` trains it again.\n\n    {full}"


def _scores(metadata: Metadata) -> str:
    metrics = metadata.metrics
    known = [key for key in _NAMES if isinstance(metrics.get(key), int | float)]
    if metrics.get("labelled_images") == 0:
        return (
            f"Not measured: no object is labelled in the {metrics['images']} images of `{metrics.get('split', 'val')}`. The last weights "
            f"were kept, and the threshold {metadata.threshold} was not chosen on any image."
        )
    if not known:
        return "Not measured."
    intervals = metrics.get("ci95") or {}
    rows = ["| score | value | 95 % interval |", "|---|---|---|"]
    for key in known:
        ends = intervals.get(key)
        rows.append(f"| {_NAMES[key]} | {metrics[key]:.3f} | {'' if not ends else f'{ends[0]:.3f} to {ends[1]:.3f}'} |")
    where = f"On {metrics.get('images', '?')} images of `{metrics.get('split', 'val')}`, at their own resolution"
    how = f", masks by `{metrics['rasterizer']}`" if "rasterizer" in metrics else ""
    return (
        f"{where}{how}; measured with the PyTorch weights, intervals by bootstrap over photographs. The section below says by "
        "how much this file differs.\n\n" + "\n".join(rows)
    )


def _agreement(file: Path, metadata: Metadata, compared: dict[str, Any]) -> str:
    lines = [f"{compared['runtime']} against {compared['reference']}: {sentence(compared)}."]
    made = compared.get("quantised")
    if made:
        kept = len(made["in_float"])
        lines.append(
            f"Quantised: {made['recipe']}; {made['layers']} layers in 8 bits, {kept} in floats, ranges from "
            f"{made['calibration_images']} training images. The threshold is the one of the PyTorch model."
        )
    elif compared.get("kept_in_float32"):
        lines.append(f"Layers kept in float32 because of large values: {', '.join(compared['kept_in_float32'])}.")
    columns = (
        "PyTorch, this file"
        if metadata.task == "detection"
        else "photograph, PyTorch, this file, both (green: both, red: this file only, blue: PyTorch only)"
    )
    lines.append(
        f"Every image: `{file.stem}.parity.json`. The worst ones: `{file.stem}.worst.jpg`; from left to right {columns}."
    )
    return "\n\n".join(lines)


def _limits(metadata: Metadata, dataset: Dataset, compared: dict[str, Any]) -> Sequence[str]:
    metrics = metadata.metrics
    lines = []
    if metrics.get("split", "val") == "val" and metrics.get("labelled_images") != 0:
        lines.append(
            "The scores are of validation images, on which the best epoch and the threshold were chosen: a little too good. "
            "`segdet data check` says whether training images show the same scenes."
        )
    ends = (metrics.get("ci95") or {}).get("iou" if metadata.task == "segmentation" else "ap")
    if ends and ends[1] - ends[0] > 0.03:
        lines.append(
            f"So few images tell the score to within {ends[1] - ends[0]:.2f} only (95 %). To compare models use `segdet compare`: "
            "it pairs photographs, so smaller differences can be certain."
        )
    widths = metrics.get("label_width")
    if follows_names(widths):
        low, _, high = widths["quartiles"]
        lines.append(
            "How wide the labels are drawn changes with the order of the file names (correlation with neighbours "
            f"{widths['neighbours']:.2f}): half of them are {low:.2f} to {high:.2f} times as wide as what it marks. Its width is the "
            "middle of several ways of labelling: what is measured across an object may be off by as much."
        )
    mixed = list(getattr(metadata.data, "mixed", None) or {})
    trained = f"`{metadata.data.name}` alone" if not mixed else f"`{metadata.data.name}` and {', '.join(mixed)}"
    lines.append(
        f"Trained on {trained}, with crops or images of {metadata.imgsz} pixels. Other materials, cameras, "
        "distances and light are not measured; try it on your own labelled photographs (`segdet val FILE --data FOLDER`)."
    )
    train = dataset.splits.get("train", ()) if dataset.name == metadata.data.name else ()
    if train and not mixed and all(record.instances for record in train):
        lines.append(
            f"Every training image shows {' or '.join(metadata.classes[:3])}: false alarms on other pictures are likely."
        )
    if compared["skipped"]:
        lines.append(f"{len(compared['skipped'])} images could not be read and were not compared.")
    return lines


def _origin(metadata: Metadata) -> str:
    return (
        f"Made by `segdet export`, segdet {metadata.version}, from weights with SHA-256 `{metadata.source_sha256}`. "
        f"Licence of the data: {metadata.data.licence or 'not stated'}; segdet itself is Apache-2.0."
    )
