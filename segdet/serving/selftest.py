"""What a model must get right before anybody's image is given to it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from segdet.data.images import read_image
from segdet.errors import InputError
from segdet.inference.backends.session import Session

SAMPLE = Path(__file__).parent / "page" / "sample.jpg"
_SIDE = 416


@cache
def sample() -> np.ndarray:
    """The middle of the stored photograph: RGB uint8 `[416, 416, 3]`."""
    whole = read_image(SAMPLE)
    top, left = (length // 2 - _SIDE // 2 for length in whole.shape[:2])
    return np.ascontiguousarray(whole[top : top + _SIDE, left : left + _SIDE])


def check(session: Session) -> None:
    """Run stored images of two sizes and judge the answers by the contract (docs/contract.md).

    Raises:
        InputError: the model fails to run, or its answers cannot be right; one line that says how.
    """
    for image in (sample(), sample()[:301, :187]):
        try:
            outputs = session.run(np.ascontiguousarray(image[None]))
        except InputError:
            raise
        except Exception as error:  # ONNX Runtime's own exception classes have no common public base
            raise InputError(
                f"{session.path}: fails on a {_size(image)} image: {str(error).splitlines()[0][:160]}"
            ) from error
        wrong = _wrong(session, image, outputs)
        if wrong:
            raise InputError(f"{session.path}: fails its self-test on a {_size(image)} image: {wrong}; export it again")


def _wrong(session: Session, image: np.ndarray, outputs: tuple[np.ndarray, ...]) -> str | None:
    """What is wrong with the answers; None when nothing is."""
    classes = len(session.metadata.classes)
    height, width = image.shape[:2]
    if session.metadata.task == "detection":
        boxes, scores, labels = outputs
        if boxes.shape != (1, scores.shape[-1], 4) or scores.shape != labels.shape or len(scores) != 1:
            return f"shapes {boxes.shape}, {scores.shape}, {labels.shape}"
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            return "boxes or scores that are not numbers"
        if scores.size and (scores.min() < 0 or scores.max() > 1 or (np.diff(scores[0]) > 0).any()):
            return "scores that are not sorted probabilities"
        return "labels beyond its classes" if labels.size and (labels.min() < 0 or labels.max() >= classes) else None
    mask, confidence = outputs
    if mask.shape != (1, height, width) or confidence.shape != mask.shape:
        return f"a mask of {list(mask.shape)}"
    if not np.isfinite(confidence).all() or confidence.min() < 0 or confidence.max() > 1:
        return "confidences that are not probabilities"
    return f"class {mask.max()} of {classes}" if mask.max() > classes else None


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
