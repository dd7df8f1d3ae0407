"""`segdet val`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from segdet.cli import output
from segdet.errors import InputError


def val(
    source: Path = typer.Argument(..., help="Run folder, weights (.safetensors) or exported model (.onnx)."),
    data: str | None = typer.Option(None, help="Dataset name or folder.  [default: the one it was trained on]"),
    split: str = typer.Option("val", help="val (the threshold is chosen anew) or test (the stored one is used)."),
    limit: int | None = typer.Option(None, help="At most this many images."),
    device: str = typer.Option("cpu", help="cpu, cuda or cuda:N."),
    workers: int | None = typer.Option(None, help="Loader processes.  [default: from the machine]"),
    out: Path | None = typer.Option(None, help="Also write the metrics to this JSON file."),
) -> None:
    """Measure a model at the images' own resolution, with confidence intervals."""
    from segdet.data import catalog, splits
    from segdet.files import write_json
    from segdet.models import weights
    from segdet.validation import validate

    file = source if source.suffix == ".onnx" else weights.find(source)
    dataset, _ = splits.with_validation(catalog.load(data or _trained_on(source, file)))
    dataset = splits.limited(dataset, limit)
    if not dataset.splits.get(split):
        raise InputError(f"--split {split}: {dataset.root} has no such split; it has {', '.join(dataset.splits)}")
    measured = validate(file, dataset.splits[split], split, classes=dataset.classes, device=device, workers=workers)
    metrics = {**measured.metrics, "model": str(file), "data": dataset.name}
    if out is not None:
        write_json(out, metrics)
    output.emit(metrics, _table(metrics))


def _trained_on(source: Path, file: Path) -> str:
    """The dataset a run or file names; a run remembers the path, weights and ONNX only the name."""
    import yaml

    config = source / "config.yaml"
    if config.is_file():
        return str(yaml.safe_load(config.read_text())["data"])
    if file.suffix == ".onnx":
        from segdet.inference.session import open_session

        return open_session(file, "cpu").metadata.data.name
    from segdet.models import weights

    return weights.read_metadata(file).data.name


_MASK_SCORES = (
    "iou",
    "f1",
    "precision",
    "recall",
    "iou_per_image",
    "f1_per_image",
    "f1_2px",
    "cldice",
    "boundary_iou",
    "miou",
    "pixel_accuracy",
)
_BOX_SCORES = (
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar_1",
    "ar_10",
    "ar_100",
    "f1",
    "precision",
    "recall",
)


def _table(metrics: dict[str, Any]) -> str:
    heading = f"{metrics['model']} on {metrics['data']} {metrics['split']}: {metrics['images']} images"
    if metrics["skipped"]:
        heading += f" ({metrics['skipped']} could not be read)"
    if metrics["threshold"] is not None:
        heading += f", threshold {metrics['threshold']:.3f}"
    detection = metrics["task"] == "detection"
    rows: list[tuple[str, ...]] = [("score", "value", "95 % interval")]
    for name in _BOX_SCORES if detection else _MASK_SCORES:
        if metrics.get(name) is not None:
            interval = metrics["ci95"].get(name)
            rows.append((name, f"{metrics[name]:.4f}", f"{interval[0]:.4f} .. {interval[1]:.4f}" if interval else ""))
    if len(metrics["classes"]) > 1:
        main = "ap" if detection else "iou"
        scored = {name: row[main] for name, row in metrics["classes"].items() if row[main] is not None}
        rows += [(f"{main} of {name}", f"{value:.4f}", "") for name, value in scored.items()]
    if "oracle" in metrics:
        rows.append(("oracle: ods, ois", f"{metrics['oracle']['ods']:.4f}, {metrics['oracle']['ois']:.4f}", ""))
    table = f"{heading}\n{output.table(rows)}"
    if not detection:
        return table
    told = ", ".join(f"{number} {kind}" for kind, number in metrics["errors"].items())
    return f"{table}\nat the threshold, IoU 0.5: {told}"
