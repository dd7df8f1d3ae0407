"""The files `segdet predict` can write for each task."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segdet.errors import InputError
from segdet.files import write_bytes, write_json, write_text
from segdet.inference import forms
from segdet.inference.detection_results import DetectionResult
from segdet.inference.results import Prediction
from segdet.metadata import Metadata

KINDS = {
    "segmentation": ("overlay", "mask", "confidence", "json", "csv", "coco", "geojson", "yolo"),
    "detection": ("overlay", "json", "csv", "coco", "geojson", "yolo"),
}
_USUAL = {"segmentation": ("overlay", "mask", "json"), "detection": ("overlay", "json")}

Rows = Sequence[dict[str, Any]]  # of each image: "image" and what its result's `to_dict` says
_JPEG_SIDE = 65_000  # a JPEG's sides end at 65,535 pixels


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
        picture = result.overlay()
        files["overlay"] = folder / f"{name}_overlay{'.jpg' if max(picture.shape) < _JPEG_SIDE else '.png'}"
        write_bytes(files["overlay"], _encoded(picture, files["overlay"].suffix))
    if isinstance(result, Prediction):
        for kind, content in (("mask", result.mask_png), ("confidence", result.confidence_png)):
            if kind in kinds:
                files[kind] = folder / f"{name}_{kind}.png"
                write_bytes(files[kind], content())
    if "geojson" in kinds:
        files["geojson"] = folder / f"{name}.geojson"
        write_json(files["geojson"], result.to_geojson(), indent=None)
    if "yolo" in kinds:
        files["yolo"] = folder / "labels" / f"{name}.txt"
        write_text(files["yolo"], result.to_yolo())
    return {kind: str(file) for kind, file in files.items()}


def write_job(
    folder: Path, model: Path, metadata: Metadata, images: Rows, skipped: dict[str, str], kinds: Sequence[str]
) -> None:
    """Write the files that hold the whole job."""
    if "json" in kinds:
        about = {"model": str(model), "arch": metadata.arch, "backbone": metadata.backbone, "classes": metadata.classes}
        content = {**about, "images": [_without_coco(image) for image in images], "skipped": skipped}
        write_json(folder / "predictions.json", content, indent=None)  # outlines are long lists of numbers
    if "csv" in kinds:
        buffer = io.StringIO()
        rows = csv.writer(buffer, lineterminator="\n")
        rows.writerow(forms.COLUMNS)
        for image in images:
            rows.writerows(forms.csv_rows(image))
        write_text(folder / "predictions.csv", buffer.getvalue())
    if "coco" in kinds:
        write_json(folder / "predictions.coco.json", [row for image in images for row in image["coco"]], indent=None)


def coco_id(path: Path) -> int | str:
    """The file name's number where it is one (COCO's own images), else the name without its ending."""
    return int(path.stem) if path.stem.isascii() and path.stem.isdigit() else path.stem


def _without_coco(image: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in image.items() if key != "coco"}


def _encoded(picture: np.ndarray, suffix: str) -> bytes:
    """A picture for the eye: JPEG with full colour resolution, in which thin lines keep theirs, twenty times faster than PNG."""
    buffer = io.BytesIO()
    if suffix == ".jpg":
        Image.fromarray(picture).save(buffer, "JPEG", quality=90, subsampling=0)
    else:
        Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
