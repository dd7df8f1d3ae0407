"""Predicting many images: read ahead, predict, write, and go on when one of them is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segdet.console import progress, say
from segdet.data.images import ImageError, read_ahead
from segdet.errors import InputError
from segdet.files import new_folder
from segdet.inference.detection_results import DetectionResult
from segdet.inference.predictor import Predictor
from segdet.inference.results import Prediction
from segdet.inference.sources import Source
from segdet.inference.writing import coco_id, write_image, write_job


@dataclass
class JobResult:
    """What was predicted and written, and what had to be skipped (path -> reason)."""

    folder: Path
    model: Path
    images: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`: the folder, the model, and per image its classes and files, without outlines."""
        brief = [
            {key: value for key, value in image.items() if key not in ("regions", "coco")} for image in self.images
        ]
        return {"out": str(self.folder), "model": str(self.model), "images": brief, "skipped": self.skipped}

    def sentence(self) -> str:
        """The result in words."""
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        if len(self.images) != 1:
            return f"{len(self.images)} images predicted with {self.model}{skipped}; results in {self.folder}"
        image = self.images[0]
        found = ", ".join(filter(None, (_found(name, row) for name, row in image["classes"].items())))
        seen = next(iter(image["files"].values()), self.folder)
        return f"{image['image']}: {found or 'nothing found'} (model {self.model}){skipped}; see {seen}"


def _found(name: str, row: int | dict[str, Any]) -> str:
    """One class in words: how many boxes, or what share of the image; empty when there is none of it."""
    if isinstance(row, int):
        return f"{row} {name}" if row else ""
    return f"{name} {row['share']:.2%} of the image" if row["pixels"] else ""


def _told(prediction: Prediction | DetectionResult, kinds: Sequence[str]) -> dict[str, Any]:
    """What the job's files need to know: outlines only where one of them holds them, for finding them takes time."""
    return prediction.to_dict() if {"json", "csv"} & {*kinds} else prediction.summary()


def run_job(predictor: Predictor, sources: Sequence[Source], out: Path | None, kinds: Sequence[str]) -> JobResult:
    """Predict every source, and write the files of each image and those of the whole job.

    Args:
        out: folder for the results; None makes a new `runs/predict`.
        kinds: of `writing.KINDS` for the model's task.

    Raises:
        InputError: none of the images could be read, or the folder cannot be written.
    """
    folder: Path | None = out
    result = JobResult(Path(), predictor.session.path)
    with progress("predicting", len(sources)) as advance:
        for source, pixels in zip(sources, read_ahead(source.path for source in sources), strict=True):
            if isinstance(pixels, ImageError):
                result.skipped[str(source.path)] = str(pixels).removeprefix(f"{source.path}: ")
                if len(sources) > 1:
                    say(f"skipped {pixels}")
            else:
                folder = folder or new_folder("runs", "predict")  # only once there is something to put into it
                prediction = predictor.predict(pixels, str(source.path))
                files = write_image(prediction, folder, source.name, kinds)
                row = {"image": str(source.path), **_told(prediction, kinds), "files": files}
                if "coco" in kinds:
                    row["coco"] = prediction.to_coco(coco_id(source.path))
                result.images.append(row)
            advance(1)
    if not result.images or folder is None:
        path, reason = next(iter(result.skipped.items()))
        raise InputError(
            f"{path}: {reason}"
            if len(sources) == 1
            else f"none of the {len(sources)} images could be read; the first: {path}: {reason}"
        )
    result.folder = folder
    write_job(folder, result.model, predictor.session.metadata, result.images, result.skipped, kinds)
    return result
