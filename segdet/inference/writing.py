"""The files `segdet predict` can write for each task."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segdet.data.images import encode_png
from segdet.errors import InputError
from segdet.files import write_bytes, write_json, write_text
from segdet.inference.detection_results import DetectionResult
from segdet.inference.results import Prediction
from segdet.metadata import Metadata

KINDS = {
    "segmentation": ("overlay", "mask", "json"),
    "detection": ("overlay", "json", "csv", "coco", "yolo"),
}
_USUAL = {"segmentation": ("overlay", "mask", "json"), "detection": ("overlay", "json")}

Rows = Sequence[dict[str, Any]]  # of each image: "image" and what its result's `to_dict` says


def kinds_of(save: str | None, task: str) -> tuple[str, ...]:
    """What `--save` asks for (None: what is usual), checked against what a model of this task can write.

    Raises:
        InputError: nothing, or something it cannot write.
    """
    if save is None:
        return _USUAL[task]
    asked = tuple(dict.fromkeys(kind.strip() for kind in save.split(",") if kind.strip()))
    unknown = [kind for kind in asked if kind not in KINDS[task]]
    if unknown or not asked:
        raise InputError(
            f"--save {','.join(unknown) or repr(save)}: a {task} model writes any of {','.join(KINDS[task])}"
        )
    return asked


def write_image(result: Prediction | DetectionResult, folder: Path, name: str, kinds: Sequence[str]) -> dict[str, str]:
    """Write the files of one image, and return them by kind."""
    files: dict[str, Path] = {}
    if "overlay" in kinds:
        files["overlay"] = folder / f"{name}_overlay.png"
        write_bytes(files["overlay"], encode_png(result.overlay()))
    if "mask" in kinds and isinstance(result, Prediction):
        files["mask"] = folder / f"{name}_mask.png"
        write_bytes(files["mask"], result.mask_png())
    if "yolo" in kinds and isinstance(result, DetectionResult):
        files["yolo"] = folder / "labels" / f"{name}.txt"
        write_text(files["yolo"], yolo(result))
    return {kind: str(file) for kind, file in files.items()}


def write_job(
    folder: Path, model: Path, metadata: Metadata, images: Rows, skipped: dict[str, str], kinds: Sequence[str]
) -> None:
    """Write the files that hold the whole job."""
    if "json" in kinds:
        about = {"model": str(model), "arch": metadata.arch, "backbone": metadata.backbone, "classes": metadata.classes}
        content = {**about, "images": list(images), "skipped": skipped}
        write_json(folder / "predictions.json", content, indent=None)  # outlines are long lists of numbers
    if "csv" in kinds:
        write_text(folder / "predictions.csv", table(images))
    if "coco" in kinds:
        write_json(folder / "predictions.coco.json", coco(images), indent=None)


def yolo(result: DetectionResult) -> str:
    """YOLO rows `class cx cy w h confidence`, in shares of the image; an image without boxes has none."""
    height, width = result.size
    rows = []
    for label, score, (x1, y1, x2, y2) in zip(result.labels, result.scores, result.boxes.astype(float), strict=True):
        shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        rows.append(" ".join([str(int(label)), *(f"{share:.6f}" for share in shares), f"{score:.4f}"]) + "\n")
    return "".join(rows)


def table(images: Rows) -> str:
    """CSV with one row a box: image, class, score and corners in pixels."""
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(["image", "class", "score", "x1", "y1", "x2", "y2"])
    for image in images:
        for found in image["detections"]:
            rows.writerow([image["image"], found["class"], found["score"], *found["box"]])
    return buffer.getvalue()


def coco(images: Rows) -> list[dict[str, Any]]:
    """COCO results: `bbox` is x, y, width, height in pixels.

    `image_id` is the file name's number where it is one (COCO's own images), else the name without its ending.
    `category_id` counts the model's classes from 1.
    """
    rows = []
    for image in images:
        stem = Path(image["image"]).stem
        for found in image["detections"]:
            x1, y1, x2, y2 = found["box"]
            rows.append(
                {
                    "image_id": int(stem) if stem.isascii() and stem.isdigit() else stem,
                    "category_id": found["label"] + 1,
                    "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                    "score": found["score"],
                }
            )
    return rows
