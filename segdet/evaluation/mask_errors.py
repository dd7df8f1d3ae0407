"""Where a mask is wrong, piece by piece: missed and invented cracks, gaps, and lines drawn too wide or too thin.

Judged along centre lines, so that a crack that is found but drawn three pixels wider is one "too wide", not a thousand wrong
pixels. For compact objects the same words hold with "too large" and "too small" in mind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from segdet.evaluation.thin import TOLERANCE, held_by, pieces

KINDS = ("missed", "false", "broken", "too_wide", "too_thin")

LEAST = 30  # wrong pixels from which an error is reported; gaps are reported from `_GAP` pixels of centre line on
_GAP = 4
_LISTED = 1_000_000  # pixels whose places are listed at once
_RATIO, _WIDER = 1.5, 2.0  # a width is wrong when it is so many times the other, and so many pixels more

Lines = tuple[np.ndarray, np.ndarray]  # centre lines of prediction and target, bool [H, W]


@dataclass(frozen=True, slots=True)
class MaskError:
    """One error. image: index of the record. label: class, 0-based. pixels: wrong ones. length: of centre line, in pixels.

    box: (x1, y1, x2, y2) around it, in pixels of the image.
    """

    image: int
    label: int
    kind: str
    pixels: int
    length: int
    box: tuple[int, int, int, int]


def find(prediction: np.ndarray, target: np.ndarray, lines: Lines, image: int = 0, label: int = 0) -> list[MaskError]:
    """All errors between bool `[H, W]` masks of one class, given their centre lines.

    - "missed": a stretch of the labelled centre line with nothing marked within the local half width + 2 pixels;
    - "broken": such a stretch between two found ones that are not connected otherwise: a gap;
    - "false": a stretch of the marked centre line with nothing labelled there, likewise;
    - "too_wide", "too_thin": found, but more than 1.5 times as wide (or thin) as labelled, and by more than 2 pixels.

    Every wrong pixel belongs to the nearest stretch. All stretches are counted together: memory and time depend on the
    size of the image, not on the number of errors.
    """
    if not prediction.any() and not target.any():
        return []
    ours, theirs = _Side(prediction, lines[0]), _Side(target, lines[1])
    lost, invented = theirs.alone(ours), ours.alone(theirs)
    followed = theirs.line & ~lost
    missing, extra = target & ~prediction, prediction & ~target
    ours.asked_at(prediction | target)
    false = _Stretches(invented).measured(ours, extra)
    _remove_near(extra, ours, invented)
    theirs.asked_at(target | extra)  # without what is far from any label: often a small part of the image
    missed = _Stretches(lost)
    gaps = missed.joining(followed)
    errors = [
        ("broken" if gap else "missed", *row) for gap, row in zip(gaps, missed.measured(theirs, missing), strict=True)
    ]
    errors += [("false", *row) for row in false]
    if ours.line.any():
        own, other = theirs.width[followed[theirs.line]], ours.width_near(followed)
        for kind, wrong, small, large in (
            ("too_wide", extra, own, other),
            ("too_thin", missing, other, own),
        ):
            flagged = np.zeros_like(followed)
            flagged[followed] = (large >= _RATIO * small) & (large - small > _WIDER)
            errors += [(kind, *row) for row in _Stretches(flagged, 2).measured(theirs, wrong)]
    return [
        MaskError(image, label, kind, pixels, length, box)
        for kind, pixels, length, box in errors
        if pixels >= LEAST or (pixels > 0 and kind == "broken" and length >= _GAP)
    ]


def summary(errors: Iterable[MaskError]) -> dict[str, dict[str, int]]:
    """ "count" and "pixels" of each kind."""
    total = {kind: {"count": 0, "pixels": 0} for kind in KINDS}
    for error in errors:
        total[error.kind]["count"] += 1
        total[error.kind]["pixels"] += error.pixels
    return total


def largest(errors: Sequence[MaskError], kind: str) -> list[MaskError]:
    """The errors of a kind, the most wrong pixels first."""
    return sorted((error for error in errors if error.kind == kind), key=lambda error: -error.pixels)


class _Side:
    """One of the two masks, with what is asked about its centre line.

    width: local width in pixels along the line, float32 `[pixels of the line]`, row by row. pieces: of the mask, as in `thin.pieces`.
    """

    def __init__(self, mask: np.ndarray, line: np.ndarray) -> None:
        self.mask, self.line = mask, line
        self._part = slice(0, mask.shape[0]), slice(0, mask.shape[1])
        depth = np.zeros(mask.shape, np.float32)
        self.pieces = list(pieces(mask))
        for part, piece in self.pieces:
            inside = cv2.copyMakeBorder(piece.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
            found = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
            depth[part][piece] = found[piece]
        self.width = np.maximum(2 * depth[line] - 1, 0)

    def asked_at(self, pixels: np.ndarray) -> None:
        """Say where `nearest` and `width_near` will ask: bool `[H, W]`, with this line among it."""
        self._part = held_by(pixels) or self._part

    @cached_property
    def _nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """A number of the nearest pixel of the line, for every pixel of `_part`; and its place along the line, by that number."""
        line = self.line[self._part]
        _, number = cv2.distanceTransformWithLabels(
            (~line).view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        along = np.zeros(int(number.max()) + 1, np.int64)
        along[number[line]] = np.arange(len(self.width))
        return number, along

    @cached_property
    def _places(self) -> np.ndarray:
        return np.flatnonzero(self.line)

    def alone(self, other: _Side) -> np.ndarray:
        """Pixels of this line with nothing of the other mask within half the local width and the tolerance: bool `[H, W]`."""
        if not other.mask.any():
            return self.line
        reach = TOLERANCE + self.width / 2
        margin = int(np.ceil(reach.max(initial=0))) + 1
        allowed = np.zeros(self.line.shape, np.float32)
        allowed[self.line] = reach
        out = np.zeros_like(self.line)
        for part, line in _around(self, margin):
            free = (~other.mask[part]).view(np.uint8)
            away = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            out[part] |= line & (away > allowed[part])
        return out

    def nearest(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The pixel of this line that is nearest to each pixel: int64 `[K]`, index into the flattened image."""
        number, along = self._nearest
        top, left = (side.start for side in self._part)
        return np.asarray(self._places[along[number[rows - top, columns - left]]])

    def width_near(self, pixels: np.ndarray) -> np.ndarray:
        """Width of this line where it is nearest to each of `pixels` (bool `[H, W]`): float32 `[K]`."""
        number, along = self._nearest
        return np.asarray(self.width[along[number[pixels[self._part]]]])


class _Stretches:
    """The connected parts of a line, numbered from 1 in the order of their first pixels.

    Args:
        line: bool `[H, W]`. gap: joins parts that are a few pixels apart.
    """

    def __init__(self, line: np.ndarray, gap: int = 0) -> None:
        if not line.any():
            self._count = 1
            return
        drawn = line.view(np.uint8)
        if gap:
            drawn = cv2.dilate(drawn, np.ones((2 * gap + 1,) * 2, np.uint8))
        self._count, self._number = cv2.connectedComponents(drawn, connectivity=8)
        self._number[~line] = 0
        self._lengths = np.bincount(self._number[line], minlength=self._count)

    def measured(self, side: _Side, wrong: np.ndarray) -> list[tuple[int, int, tuple[int, int, int, int]]]:
        """What is wrong along each stretch: pixels, length of the stretch, and the box around the pixels.

        Args:
            side: whose line the stretches are part of. wrong: bool `[H, W]`; a pixel belongs to the nearest stretch.
        """
        if self._count == 1:
            return []
        pixels = np.zeros(self._count, np.int64)
        low = np.full((2, self._count), np.iinfo(np.int64).max)
        high = np.zeros((2, self._count), np.int64)
        for rows, columns in _bands(wrong):
            number = self._number.ravel()[side.nearest(rows, columns)]
            pixels += np.bincount(number, minlength=self._count)
            for axis, places in enumerate((columns, rows)):
                np.minimum.at(low[axis], number, places)
                np.maximum.at(high[axis], number, places + 1)
        boxes = np.concatenate([low, high]).T.tolist()
        return [
            (int(pixels[k]), int(self._lengths[k]), (boxes[k][0], boxes[k][1], boxes[k][2], boxes[k][3]))
            for k in range(1, self._count)
        ]

    def joining(self, others: np.ndarray) -> np.ndarray:
        """Whether each stretch of some length touches two parts of `others` (bool `[H, W]`): bool `[stretches]`."""
        if self._count == 1:
            return np.zeros(0, bool)
        count, parts = cv2.connectedComponents(others.astype(np.uint8), connectivity=8)
        around = np.pad(parts, 1)
        rows, columns = np.nonzero(self._number)
        own = self._number[rows, columns].astype(np.int64)
        pairs = np.unique(
            np.concatenate([own * count + around[rows + dy, columns + dx] for dy in range(3) for dx in range(3)])
        )
        touched = np.bincount(pairs[pairs % count > 0] // count, minlength=self._count)
        return np.asarray((touched > 1) & (self._lengths >= _GAP))[1:]


def _around(side: _Side, margin: int) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """The line of a mask piece by piece, each with so much of the image around it: bool `[h, w]`."""
    for (rows, columns), piece in side.pieces:
        top, left = max(0, rows.start - margin), max(0, columns.start - margin)
        part = slice(top, rows.stop + margin), slice(left, columns.stop + margin)
        own = np.zeros_like(side.line[part])
        own[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = piece
        yield part, own & side.line[part]


def _remove_near(pixels: np.ndarray, side: _Side, stretches: np.ndarray) -> None:
    """Clear the `pixels` (bool `[H, W]`) whose nearest pixel of a line is in `stretches` (part of that line)."""
    if not stretches.any():
        return
    flat = stretches.ravel()
    for rows, columns in _bands(pixels):
        pixels[rows, columns] = ~flat[side.nearest(rows, columns)]


def _bands(mask: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of a mask's pixels, some rows of the image at a time: lists of all would outgrow the image."""
    step = max(1, _LISTED // mask.shape[1])
    for top in range(0, len(mask), step):
        rows, columns = np.nonzero(mask[top : top + step])
        yield rows + top, columns
