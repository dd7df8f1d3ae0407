"""`segdet val`"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from segdet.cli import output
from segdet.errors import InputError

if TYPE_CHECKING:
    from segdet.data.records import Dataset
    from segdet.trained import Trained
    from segdet.validation import Measured


def val(
    source: Path = typer.Argument(..., help="Run folder, weights (.safetensors) or exported model (.onnx)."),
    data: str | None = typer.Option(None, help="Dataset name or folder.  \\[default: the one it was trained on]"),
    split: str = typer.Option("val", help="val (the threshold is chosen anew) or test (the stored one is used)."),
    operate: str | None = typer.Option(
        None, help="Choose the threshold by max-f1, recall=0.95 or precision=0.9 and store it in the file."
    ),
    imgsz: int | None = typer.Option(
        None,
        min=32,
        help="Resize images to this side before the network.  \\[default: their own size, or the detector's]",
    ),
    degrade: str | None = typer.Option(
        None, help="Spoil the images first: dark, blur, half, jpeg, noise, shadow, or several: dark+blur."
    ),
    unseen: bool = typer.Option(
        False, "--unseen", help="Leave out images of objects that training shows too (found by `segdet data check`)."
    ),
    limit: int | None = typer.Option(None, min=1, help="At most this many images."),
    device: str = typer.Option("cpu", help="auto, cpu, cuda or cuda:N."),
    workers: int | None = typer.Option(None, min=0, help="Loader processes.  \\[default: from the machine]"),
    out: Path | None = typer.Option(None, help="Also write the metrics to this JSON file."),
    report: Path | None = typer.Option(None, help="Also write the report to this HTML file."),
) -> None:
    """Measure a model at the images' own resolution, with confidence intervals."""
    from segdet.evaluation.operating import parse
    from segdet.files import write_json
    from segdet.trained import dataset_for, open_trained, part_of
    from segdet.validation import validate

    rule = parse(operate) if operate is not None else None
    if rule is not None and limit is not None:
        raise InputError(f"--operate {operate} with --limit {limit}: a threshold to keep is chosen on all images")
    if report is not None and report.suffix not in (".html", ".htm"):
        raise InputError(f"--report {report}: the file's name must end in .html")
    for option, path in (("--out", out), ("--report", report)):
        if path is not None:
            _check_place(option, path)
    trained = open_trained(source)
    dataset = part_of(dataset_for(trained, data, limit), split)
    if unseen:
        if rule is not None:
            raise InputError(f"--operate {operate} with --unseen: a threshold to keep is chosen on all images")
        dataset = _unseen(dataset, split)
    measured = validate(
        trained.file, dataset.splits[split], split, classes=dataset.classes, rule=rule, imgsz=imgsz, degrade=degrade,
        workers=workers, device=device,
    )  # fmt: skip
    metrics = {**measured.metrics, "model": str(trained.file), "data": dataset.name}
    told = _table(metrics)
    if rule is not None:
        told += "\n" + _keep(trained, dataset, measured, own=data is None and imgsz is None)
    if out is not None:
        write_json(out, metrics)
    if report is not None:
        from segdet.reporting import publish

        about = publish.subject(trained.name, trained.run, dataset, split, measured.metadata)
        publish.html(report, about, metrics, measured.evaluation, measured.errors)
        told += f"\nreport: {report}"
    output.emit(metrics, told)


def _check_place(option: str, path: Path) -> None:
    """Before the measurement takes its time: can a file be written there?"""
    if path.is_dir():
        raise InputError(f"{option} {path}: a folder; name a file in it")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{option} {path}: cannot write there; choose another folder")


def _unseen(dataset: Dataset, split: str) -> Dataset:
    """Without the images of `split` that show what training shows."""
    from dataclasses import replace

    from segdet.data.doctor import leaks

    known, searched = leaks.known(dataset, split)
    if not searched:
        raise InputError(
            f"--unseen: photographs of the same object have not been looked for; run `segdet data check {dataset.name}`"
        )
    seen = {leak.scored for leak in known}
    kept = tuple(record for record in dataset.splits[split] if record.image not in seen)
    if not kept:
        raise InputError(f"--unseen: every image of {split} shows something that training shows; no image is left")
    return replace(dataset, splits={**dataset.splits, split: kept})


def _keep(trained: Trained, dataset: Dataset, measured: Measured[Any], own: bool) -> str:
    """Store the threshold; when a run was measured on its own validation images, its numbers and report follow."""
    from segdet.operating import store
    from segdet.reporting import publish

    described = store(trained.file, trained.metadata, measured.metrics)
    if trained.run is not None and own and trained.file.name == "best.safetensors":
        publish.run_folder(
            trained.run, dataset, described, measured.metrics, measured.evaluation, measured.tally, measured.errors
        )
    chosen = f"threshold {measured.metrics['threshold']:.3f} ({measured.metrics['operate']}) stored in {trained.file}"
    return chosen if trained.file.suffix == ".onnx" else f"{chosen}; export again to have it in the ONNX file"


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
    "average_precision",
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
    if not detection and metrics["calibration"]:
        rows.append(("calibration error (ece)", f"{metrics['calibration']['ece']:.4f}", ""))
    if metrics.get("oracle", {}).get("ods") is not None:
        rows.append(("oracle: ods, ois", f"{metrics['oracle']['ods']:.4f}, {metrics['oracle']['ois']:.4f}", ""))
    told = [heading, output.table(rows)]
    if not metrics["labelled_images"]:
        told = [heading, "no object is labelled in these images: nothing can be measured but false alarms"]
    if len(metrics["classes"]) > 1:
        told.append(_classes(metrics["classes"], ("ap", "ap50") if detection else ("iou", "f1", "f1_2px", "cldice")))
    if detection:
        told.append(
            "at the threshold, IoU 0.5: " + ", ".join(f"{number} {kind}" for kind, number in metrics["errors"].items())
        )
    else:
        told += [
            "mistakes: " + ", ".join(f"{row['count']} {kind}" for kind, row in metrics["errors"].items()),
            _alarms(metrics["negatives"]),
            *_widths(metrics["label_width"]),
        ]
    return "\n".join(told)


def _alarms(negatives: dict[str, Any]) -> str:
    if not negatives["images"]:
        return "false alarms: no image without an object, so nothing is known about them"
    return (
        f"false alarms: something is marked on {negatives['false_positive_images']} of {negatives['images']} images without an "
        f"object, {negatives['false_positive_area']:.3%} of their area"
    )


def _widths(found: dict[str, Any] | None) -> list[str]:
    from segdet.evaluation.label_width import follows_names

    if not follows_names(found):
        return []
    low, _, high = found["quartiles"]
    return [
        f"labels: half of the photographs' are {low:.2f} to {high:.2f} times as wide as what is marked, and neighbours in the order of "
        f"names agree (correlation {found['neighbours']:.2f}): drawn in several ways? Right shapes in any one width would reach an IoU "
        f"of {found['iou_width_alone']:.2f}"
    ]


def _classes(classes: dict[str, Any], columns: tuple[str, ...]) -> str:
    rows: list[tuple[str, ...]] = [("class", *columns)]
    for name, row in classes.items():
        if row[columns[0]] is not None:
            rows.append((name, *(f"{row[column]:.4f}" for column in columns)))
    return output.table(rows)
