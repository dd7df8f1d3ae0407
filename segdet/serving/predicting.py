"""From the bytes of an image to its result, in a worker thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from segdet.data import images
from segdet.errors import InputError, nearest
from segdet.inference.backends.onnxruntime import OutOfMemory, out_of_memory
from segdet.inference.backends.session import Session
from segdet.inference.predict import sizes, tiling
from segdet.inference.predict.predictor import open_predictor
from segdet.inference.predict.results import DetectionResult, SegmentationResult
from segdet.metadata import Metadata
from segdet.serving.models import Loaded, work_units
from segdet.serving.refusals import Refused, bad_request, refusal, too_large
from segdet.serving.scheduler import Job

Result = SegmentationResult | DetectionResult

_HANDLING = 0.1  # of the network's time for a pixel: decoding, resizing and encoding one that it does not see


@dataclass(frozen=True)
class Options:
    """What a request asks for. threshold: 0..1 or the model's. classes: only these, or all. tile, imgsz: as `open_predictor`."""

    threshold: float | None = None
    classes: tuple[str, ...] = ()
    tile: str = "auto"
    imgsz: int | None = None


@dataclass
class Answer:
    """The result of one image, or why there is none; seconds by stage."""

    name: str
    result: Result | None = None
    error: str | None = None
    status: int = 200
    timing: dict[str, float] = field(default_factory=dict)
    extra: Any = None  # what the encoder made of the result while still in the worker


class _Watched(Session):
    """A session that stops between tiles once the deadline has passed."""

    def __init__(self, session: Session, job: Job) -> None:
        self.path, self.metadata, self.device = session.path, session.metadata, session.device
        self._inner = session
        self._job = job

    def run(self, batch: np.ndarray, threshold: float | None = None) -> tuple[np.ndarray, ...]:
        self._job.check()
        return self._inner.run(batch, threshold)


def check_options(metadata: Metadata, options: Options) -> None:
    """Refuse what the model cannot do, before anything waits.

    Raises:
        Refused: 400.
    """
    unknown = [name for name in options.classes if name not in metadata.classes]
    if unknown:
        name = unknown[0][:80]
        raise bad_request(f"no class {name!r}{nearest(name, metadata.classes)}", "bad_option", "classes")
    if options.threshold is not None and not metadata.has_threshold:
        message = "this model has several classes and picks the likeliest; leave threshold out"
        raise bad_request(message, "bad_option", "threshold")
    if options.imgsz is not None and metadata.task == "detection":
        raise bad_request("a detector has its size inside; leave imgsz out", "bad_option", "imgsz")


def inspect(data: bytes, name: str, metadata: Metadata, options: Options, max_pixels: int) -> float:
    """Look at an image's header and return how much work it will be.

    Raises:
        Refused: 400 not an image that can be used, 413 too many pixels.
    """
    try:
        height, width = images.header(data, name).size
    except InputError as error:
        raise refusal(error) from error
    check_pixels(height * width, max_pixels, name)
    own = 0.0
    if options.imgsz is not None:
        own = _HANDLING * height * width / 1e6
        height, width = sizes.resized((height, width), options.imgsz)
        check_pixels(height * width, max_pixels, f"{name} at imgsz {options.imgsz}")
    return own + work_units(metadata, height, width, _tiles(height, width, options.tile))


def check_pixels(pixels: int, most: int, name: str) -> None:
    """Raises:
    Refused: 413."""
    if pixels > most:
        raise too_large(f"{name}: {pixels / 1e6:.1f} million pixels; {most / 1e6:g} million at most")


def predict(loaded: Loaded, data: bytes, name: str, options: Options, job: Job) -> Answer:
    """Decode and predict one image.

    Raises:
        Refused: 400, an image that turns out to be damaged; 504.
    """
    start = time.perf_counter()
    try:
        pixels = images.read_image(data, name)
    except InputError as error:
        raise refusal(error) from error
    decoded = time.perf_counter()
    result = predict_pixels(loaded, pixels, options, job)
    done = time.perf_counter()
    return Answer(name, result, timing={"decode": decoded - start, "predict": done - decoded})


def predict_pixels(loaded: Loaded, pixels: np.ndarray, options: Options, job: Job) -> Result:
    """Predict RGB uint8 `[H, W, 3]`.

    Raises:
        Refused: 422, an option's value; 504; 507.
    """
    try:
        predictor = open_predictor(_Watched(loaded.runner, job), options.threshold, options.tile, imgsz=options.imgsz)
        return _only(predictor.predict(pixels), options.classes)
    except InputError as error:
        raise refusal(error) from error
    except Exception as error:
        if not (isinstance(error, OutOfMemory) or out_of_memory(error)):
            raise
        sentence = "not enough memory for an image of this size; ask for tiles: tile=1024"
        raise Refused(507, "out_of_memory", sentence) from error


def _only(result: Any, classes: Sequence[str]) -> Result:
    """The result without other classes."""
    if not classes:
        return result
    wanted = [result.classes.index(name) for name in classes]
    if isinstance(result, DetectionResult):
        kept = np.isin(result.labels, wanted)
        return replace(result, boxes=result.boxes[kept], scores=result.scores[kept], labels=result.labels[kept])
    keep = np.zeros(256, np.uint8)
    keep[[index + 1 for index in wanted]] = [index + 1 for index in wanted]
    return replace(result, mask=keep[result.mask])


def _tiles(height: int, width: int, tile: str) -> int:
    """Tiles of a detector, roughly: only when a side is asked for."""
    side = int(tile) if tile.isdigit() else 0
    return max(1, round(height / side)) * max(1, round(width / side)) if side >= tiling.SMALLEST else 1
