"""Whether OpenVINO agrees with ONNX Runtime: decided once for each model file and machine, on the user's own images.

OpenVINO in bfloat16 is about twice as fast on processors that have it, and rounds differently. Before `auto` takes it, both
have answered some of the images to be predicted; what they said is compared, and the verdict is kept in the cache folder
under the model's hash, the processor and both versions.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import platform
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segdet.errors import SegdetError
from segdet.files import sha256_of, write_json
from segdet.machine import processor
from segdet.places import cache_folder
from segdet.text import encoded

if TYPE_CHECKING:
    from segdet.inference.backends.session import Session

IMAGES = 6  # looked at for a verdict
WORTH = 24  # images from which looking costs less than it saves
PIXELS = 0.001  # share of an image's pixels that may get another class
OVERLAP = 0.97  # IoU, over all images, that the two foregrounds must reach
MOVED = 0.9  # IoU of a box with its twin; SURE: by how much its score may differ
SURE = 0.05


def installed() -> bool:
    """Whether OpenVINO is installed (it is not imported)."""
    return importlib.util.find_spec("openvino") is not None


def verdict(model: Path) -> bool | None:
    """Whether OpenVINO was found to agree on this model here; None when they were not compared yet."""
    file = _file(model) if installed() else None
    if file is None or not file.is_file():
        return None
    with suppress(OSError, ValueError, KeyError, TypeError):
        return bool(json.loads(file.read_bytes())["agrees"])
    return None


def remember(model: Path, found: dict[str, Any]) -> None:
    """Keep a verdict. Without a folder to write to, the next job compares again."""
    with suppress(SegdetError, OSError):
        write_json(_file(model), found)


def compare(ours: Session, theirs: Session, images: Sequence[np.ndarray]) -> dict[str, Any]:
    """What differs between two sessions of one model on `images`."""
    if ours.metadata.task == "detection":
        return _compare_boxes(ours, theirs, images)
    threshold = ours.metadata.threshold if ours.metadata.is_binary else None
    worst, both, either = 0.0, 0, 0
    for image in images:
        a, b = (session.run(image[None], threshold)[0][0] for session in (ours, theirs))
        differ = int((a != b).sum())
        marked = (a > 0) | (b > 0)
        worst = max(worst, differ / a.size)
        either += int(marked.sum())
        both += int((marked & (a == b)).sum())
    overlap = both / either if either else 1.0
    agrees = worst <= PIXELS and overlap >= OVERLAP
    return {"agrees": agrees, "images": len(images), "pixels": worst, "iou": overlap}


def _compare_boxes(ours: Session, theirs: Session, images: Sequence[np.ndarray]) -> dict[str, Any]:
    threshold = ours.metadata.decision_threshold
    alone, seen = 0, 0
    for image in images:
        first, second = ([output[0] for output in session.run(image[None])] for session in (ours, theirs))
        for (boxes, scores, labels), (others, rated, named) in ((first, second), (second, first)):
            for k in np.flatnonzero(scores >= threshold + SURE):  # those at the threshold may fall to either side
                near = (named == labels[k]) & (np.abs(rated - scores[k]) <= SURE)
                seen += 1
                alone += not (_iou(boxes[k], others[near]) >= MOVED).any()
    return {"agrees": alone == 0, "images": len(images), "boxes": alone, "compared": seen}


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    both = (high - low).clip(0).prod(axis=1)
    area = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return np.asarray(both / np.maximum(area - both, 1e-9))


def _file(model: Path) -> Path:
    versions = [importlib.metadata.version("openvino"), *_onnxruntime(), platform.machine(), processor()]
    known = "\n".join([sha256_of(model), *versions, str((PIXELS, OVERLAP, MOVED, SURE))])
    key = hashlib.sha256(encoded(known)).hexdigest()
    return cache_folder() / "parity" / f"{key[:24]}.json"


def _onnxruntime() -> list[str]:
    with suppress(importlib.metadata.PackageNotFoundError):
        return [importlib.metadata.version("onnxruntime")]
    return []
