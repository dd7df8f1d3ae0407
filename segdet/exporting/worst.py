"""A picture of the images on which an exported file differs most from its source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import nn

from segdet.data.images import ImageError, encode_jpeg, read_image
from segdet.data.records import Record
from segdet.drawing import agreement, boxes, colour_of, grid, overlay
from segdet.errors import SegdetError
from segdet.exporting.parity import session_reference, torch_reference
from segdet.inference.backends.session import Session
from segdet.metadata import Metadata
from segdet.models.detector import Detector, detect

SHOWN = 4
_SIDE = 360
_QUALITY = 82

Columns = Callable[[np.ndarray], list[np.ndarray]]


def picture(
    model: nn.Module, session: Session, metadata: Metadata, records: Sequence[Record], compared: dict[str, Any]
) -> bytes:
    """JPEG: a row for each of the worst images. Masks: photograph, PyTorch, the file, and where they differ (green: both,
    red: the file only, blue: PyTorch only). Boxes: PyTorch, the file.

    Args:
        records: what was compared; rows of `compared` tell their places in it.

    Raises:
        SegdetError: none of them can be read any more.
    """
    show = _boxes(model, session, metadata) if metadata.task == "detection" else _masks(model, session, metadata)
    rows: list[np.ndarray] = []  # a grid each: photographs may be large
    for row in compared["worst"][:SHOWN]:
        try:
            tiles = show(read_image(records[row["index"]].image))
        except ImageError:  # gone since it was compared
            continue
        rows.append(grid(tiles, len(tiles), _SIDE))
    if not rows:
        raise SegdetError(
            "the images that differ most cannot be read any more; are they still there? Then export again"
        )
    edge = [row[:-4] for row in rows[:-1]]  # two grids would have two edges between them
    return encode_jpeg(np.concatenate([*edge, rows[-1]]), _QUALITY)


def _masks(model: nn.Module, session: Session, metadata: Metadata) -> Columns:
    reference, exported = torch_reference(model, metadata), session_reference(session)

    def show(image: np.ndarray) -> list[np.ndarray]:
        theirs, _ = reference(image)
        ours, _ = exported(image)
        return [image, overlay(image, theirs), overlay(image, ours), agreement(image, ours, theirs)]

    return show


def _boxes(model: nn.Module, session: Session, metadata: Metadata) -> Columns:
    detector = Detector(model, metadata.mean, metadata.std, metadata.damp_duplicates).eval()
    threshold = metadata.decision_threshold

    def show(image: np.ndarray) -> list[np.ndarray]:
        tiles = []
        for corners, scores, labels in (
            detect(detector, image[None])[0],
            [part[0] for part in session.run(image[None])],
        ):
            shown = scores >= threshold
            names = [f"{metadata.classes[k]} {s:.2f}" for k, s in zip(labels[shown], scores[shown], strict=True)]
            tiles.append(boxes(image, corners[shown], [colour_of(int(k)) for k in labels[shown]], names))
        return tiles

    return show
