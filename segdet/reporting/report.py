"""`report.html`: one file without network use that says what was trained, how good it is and where it fails."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segdet.data.images import encode_jpeg
from segdet.data.records import Dataset, by_photograph
from segdet.drawing import grid
from segdet.evaluation.segmentation import Evaluation
from segdet.files import write_text
from segdet.metadata import Metadata
from segdet.reporting import page, pictures
from segdet.reporting.page import escaped

_EXPLAINED = {
    "iou": ("IoU", "of all pixels that are marked or labelled, the share that is both; over all images together"),
    "f1": ("F1 (Dice)", "harmonic mean of precision and recall of pixels, over all images together"),
    "precision": ("Precision", "of the pixels marked, the share that is labelled"),
    "recall": ("Recall", "of the labelled pixels, the share that is marked"),
    "iou_per_image": ("IoU per image", "mean over images; an image without object predicted empty counts 1"),
    "f1_per_image": ("F1 per image", "mean over images"),
    "f1_2px": ("F1 within 2 px", "a pixel counts as right when the other mask has one within 2 pixels"),
    "cldice": ("Centre-line Dice", "how much of each centre line lies inside the other mask: continuity"),
    "boundary_iou": ("Boundary IoU", "IoU of the parts near the outlines"),
    "miou": ("Mean IoU", "mean over the classes that occur, background not counted"),
    "pixel_accuracy": ("Pixel accuracy", "share of all pixels with the right class, background counted"),
}


def write(
    run: Path,
    dataset: Dataset,
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    result: Evaluation,
    metadata: Metadata,
) -> None:
    """Write `report.html` into the run folder."""
    threshold = metrics["threshold"]
    records = dataset.splits["val"]
    each = result.iou_of_each(threshold)
    worst_first = sorted(each, key=lambda index: each[index])
    body = [
        f"<h1>{escaped(run.name)}</h1>",
        f"<p class=sub>{escaped(metadata.arch)} on {escaped(metadata.backbone)}, trained on {escaped(dataset.name)}: "
        f"{_counts(dataset)}</p>",
        _headline(metrics),
        "<h2>Scores on the validation images</h2>",
        f"<p class=sub>{metrics['images']} images at their own resolution; masks drawn as {escaped(metrics['rasterizer'])}. "
        "Intervals are 95 % bootstrap over photographs.</p>",
        _table(metrics),
        "<h2>Where it fails and where it works</h2>",
        "<p>Photograph, labels, prediction, and the difference:<span class=k style='background:#009650'></span>found"
        "<span class=k style='background:#dc2828'></span>marked but not labelled"
        "<span class=k style='background:#1e5adc'></span>missed.</p>",
    ]
    for title, chosen in (("The worst", worst_first[:6]), ("The best", worst_first[::-1][:3])):
        for index in chosen:
            tiles = grid(pictures.comparison(records[index], result, index, threshold), 4, 300)
            body.append(
                page.figure(
                    encode_jpeg(tiles, 85), "jpeg", f"{title}: {records[index].image.name}, IoU {each[index]:.3f}"
                )
            )
    if threshold is not None:
        body += [
            "<h2>Threshold</h2>",
            page.figure(pictures.png(pictures.curve_figure(result, threshold)), "png", _threshold_note(metrics)),
        ]
    body += [
        "<h2>Training</h2>",
        page.figure(
            pictures.png(pictures.results_figure(history)),
            "png",
            f"{len(history)} epochs, {history[-1]['time'] / 60:.1f} minutes",
        ),
        "<h2>How to get this again</h2>",
        _provenance(run, metadata),
    ]
    write_text(run / "report.html", page.document(run.name, body))


def _headline(metrics: Mapping[str, Any]) -> str:
    shown = [name for name in ("iou", "f1", "f1_2px", "cldice", "miou") if name in metrics]
    cards = []
    for name in shown[:4]:
        interval = metrics["ci95"].get(name)
        small = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "&nbsp;"
        cards.append(f"<div>{escaped(_EXPLAINED[name][0])}<b>{metrics[name]:.3f}</b>{small}</div>")
    return f"<div class=big>{''.join(cards)}</div>"


def _table(metrics: Mapping[str, Any]) -> str:
    rows = []
    for name, (title, why) in _EXPLAINED.items():
        if name in metrics:
            interval = metrics["ci95"].get(name)
            span = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""
            rows.append(f"<tr><th>{title}<td class=n>{metrics[name]:.4f}<td class=n>{span}<td class=why>{escaped(why)}")
    if len(metrics["classes"]) > 1:
        for name, row in sorted(metrics["classes"].items(), key=lambda item: item[1]["iou"]):
            rows.append(
                f"<tr><th>{escaped(name)}<td class=n>{row['iou']:.4f}<td><td class=why>IoU of this class, {row['pixels']} labelled pixels"
            )
    return f"<table><tr><th>Score<th>Value<th>95 % interval<th>Meaning{''.join(rows)}</table>"


def _threshold_note(metrics: Mapping[str, Any]) -> str:
    oracle = metrics["oracle"]
    return (
        f"A pixel counts as object from probability {metrics['threshold']:.3f} on: the value with the best F1 on "
        f"these images, stored in the weights and the exported file. Looking at the answers of each image would give "
        f"F1 {oracle['ois']:.3f} (oracle, OIS)."
    )


def _provenance(run: Path, metadata: Metadata) -> str:
    rows = {
        "Command": f"segdet train --config {run / 'config.yaml'}",
        "Dataset": f"{metadata.data.name}, licence: {metadata.data.licence or 'not stated'}, sha256 {metadata.data.sha256}",
        "segdet": metadata.version,
        "Python": f"{sys.version.split()[0]} on {platform.platform()}",
    }
    return f"<table>{''.join(f'<tr><th>{k}<td><code>{escaped(v)}</code>' for k, v in rows.items())}</table>"


def _counts(dataset: Dataset) -> str:
    train, val = dataset.splits["train"], dataset.splits["val"]
    return f"{len(train)} training images of {len(by_photograph(train))} photographs, {len(val)} validation images"
