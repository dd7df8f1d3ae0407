"""`segdet val`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from segdet.cli import output
from segdet.cli.options import from_settings
from segdet.validation.config import ValConfig


@from_settings(ValConfig)
def val(
    written: dict[str, Any],
    *,
    source: Path = typer.Argument(..., help="Run folder, weights (.safetensors) or exported model (.onnx)."),
) -> None:
    """Measure a model at the images' own resolution, with confidence intervals."""
    config = ValConfig.from_options(**written)
    from segdet.validation.evaluate import evaluate

    result = evaluate(source, config)
    output.emit(result.metrics, "\n".join([_table(result.metrics), *result.notes]))


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
    lines = [heading, output.table(rows)]
    if not metrics["labelled_images"]:
        lines = [heading, "no object is labelled in these images: nothing can be measured but false alarms"]
    if len(metrics["classes"]) > 1:
        lines.append(_classes(metrics["classes"], ("ap", "ap50") if detection else ("iou", "f1", "f1_2px", "cldice")))
    if detection:
        lines.append(
            "at the threshold, IoU 0.5: " + ", ".join(f"{number} {kind}" for kind, number in metrics["errors"].items())
        )
    else:
        lines += [
            "mistakes: " + ", ".join(f"{row['count']} {kind}" for kind, row in metrics["errors"].items()),
            _alarms(metrics["negatives"]),
            *_widths(metrics["label_width"]),
        ]
    return "\n".join(lines)


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
