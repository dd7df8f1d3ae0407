"""The files `segdet predict` can write for each task."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np

from segdet.errors import InputError, InvalidOption
from segdet.files import replacing, write_bytes, write_json, write_text
from segdet.inference.io import serialize
from segdet.inference.io.coco_ids import ImageKey
from segdet.inference.io.manifest import JOB_FILES, Ledger
from segdet.inference.io.sources import Source
from segdet.inference.predict.predictor import Predictor
from segdet.inference.predict.results import DetectionResult, LargeSegmentationResult, SegmentationResult
from segdet.text import ESCAPE

KINDS = {
    "segmentation": ("overlay", "mask", "confidence", "json", "csv", "coco", "geojson", "yolo"),
    "detection": ("overlay", "json", "csv", "coco", "geojson", "yolo"),
}
_NAMES = {
    "overlay": "{}_overlay.png",
    "mask": "{}_mask.png",
    "confidence": "{}_confidence.png",
    "geojson": "{}.geojson",
    "yolo": "labels/{}.txt",
}
_USUAL = {"segmentation": ("overlay", "mask", "json"), "detection": ("overlay", "json")}

Files = dict[str, Path]  # by kind


def kinds_of(save: str | None, task: str) -> tuple[str, ...]:
    """The kinds of files that the setting `save` names (None: the usual ones), checked against what a model of this task can write.

    Raises:
        InputError: nothing, or something it cannot write.
    """
    if save is None:
        return _USUAL[task]
    asked = tuple(dict.fromkeys(kind.strip() for kind in save.split(",") if kind.strip()))
    unknown = [kind for kind in asked if kind not in KINDS[task]]
    if unknown or not asked:
        value = ",".join(unknown) or repr(save)
        raise InvalidOption("save", value, f"a {task} model writes any of {','.join(KINDS[task])}")
    return asked


def names_of(source: Source, kinds: Sequence[str]) -> list[str]:
    """The files, named from the folder of the results, that a source may get; of a video's frames the first one's."""
    name = Path(source.name).as_posix()
    if source.is_video:
        frame = [_NAMES[kind].format(f"{name}/000001") for kind in kinds if kind in _NAMES and kind != "overlay"]
        return [*frame, f"{name}_overlay.mp4"] if "overlay" in kinds else frame
    names = [_NAMES[kind].format(name) for kind in kinds if kind in _NAMES]
    if source.path.suffix.lower() in (".tif", ".tiff"):  # a large one's are TIFFs
        names += [f"{name}_{kind}.tif" for kind in ("mask", "confidence") if kind in kinds]
    return names


def write_image(result: SegmentationResult | DetectionResult, folder: Path, name: str, kinds: Sequence[str]) -> Files:
    """Write the files of one image, and return them by kind."""
    files: Files = {}
    if "overlay" in kinds:
        files["overlay"] = save_picture(folder / f"{name}_overlay", result.overlay())
    if isinstance(result, SegmentationResult):
        for kind, content in (("mask", result.mask_png), ("confidence", result.confidence_png)):
            if kind in kinds:
                files[kind] = folder / f"{name}_{kind}.png"
                write_bytes(files[kind], content(), durable=False)
    return {**files, **write_texts(result, folder, name, kinds)}


def row_of(
    result: SegmentationResult | LargeSegmentationResult | DetectionResult,
    kinds: Sequence[str],
    path: Path,
    key: ImageKey,
) -> dict[str, Any]:
    """What the job's own files need of one image: outlines only where one of them holds them, for finding them takes time."""
    row = {"image": str(path), **(result.to_dict() if {"json", "csv"} & {*kinds} else result.summary())}
    if "coco" in kinds:
        row["coco"] = key.complete(result.to_coco())
    return row


def brief(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without its long lists."""
    return {key: value for key, value in row.items() if key not in ("regions", "coco")}


def write_texts(
    result: SegmentationResult | LargeSegmentationResult | DetectionResult,
    folder: Path,
    name: str,
    kinds: Sequence[str],
) -> Files:
    """Write the files of one image that hold outlines or boxes."""
    files = {}
    if "geojson" in kinds:
        files["geojson"] = folder / f"{name}.geojson"
        write_json(files["geojson"], result.to_geojson(), indent=None)
    if "yolo" in kinds:
        files["yolo"] = folder / "labels" / f"{name}.txt"
        write_text(files["yolo"], result.to_yolo())
    return files


def write_job(
    folder: Path, predictor: Predictor, ledger: Ledger, skipped: dict[str, str], kinds: Sequence[str]
) -> None:
    """Write the files that hold the whole job, a row at a time."""
    if "json" in kinds:
        session = predictor.session
        metadata = session.metadata
        about = {
            "model": str(session.path),
            "device": session.device,
            "arch": metadata.arch,
            "backbone": metadata.backbone,
            "classes": metadata.classes,
            **({} if predictor.imgsz is None else {"imgsz": predictor.imgsz}),
            **({"down_to": predictor.multiscale_to} if predictor.multiscale_to else {}),
        }
        rows = ({key: value for key, value in row.items() if key != "coco"} for row in ledger.rows())
        with _text_file(folder / JOB_FILES["json"]) as stream:
            stream.write(_json(about)[:-1] + ', "images": [')
            _write_joined(stream, rows)
            stream.write('], "skipped": ' + _json(skipped) + "}\n")
    if "csv" in kinds:
        with _text_file(folder / JOB_FILES["csv"]) as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(serialize.COLUMNS)
            for row in ledger.rows():
                table.writerows(serialize.csv_rows(row))
    if "coco" in kinds:
        with _text_file(folder / JOB_FILES["coco"]) as stream:
            stream.write("[")
            _write_joined(stream, (found for row in ledger.rows() for found in row.get("coco", ())))
            stream.write("]\n")


def save_picture(path: Path, picture: np.ndarray) -> Path:
    """Write RGB uint8 `[H, W, 3]` as PNG; `path` has no ending yet, the one with it is returned.

    Lightly compressed, which takes a fifth of the usual time; thin lines stay exact, as they would not in a JPEG.
    """
    path = path.with_name(path.name + ".png")
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_FILTERED]
    written, encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), settings)
    if not written:
        raise InputError(f"{path}: a picture of {picture.shape[1]}x{picture.shape[0]} pixels cannot be written as PNG")
    write_bytes(path, encoded.tobytes(), durable=False)
    return path


def _json(content: Any) -> str:
    return json.dumps(content, allow_nan=False, ensure_ascii=False)


def _write_joined(stream: TextIO, items: Iterable[Any]) -> None:
    for number, item in enumerate(items):
        stream.write((", " if number else "") + _json(item))


@contextmanager
def _text_file(path: Path) -> Iterator[TextIO]:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", errors=ESCAPE, newline="") as stream:
        yield stream
