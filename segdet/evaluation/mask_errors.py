"""Where a mask is wrong, piece by piece: missed and invented cracks, gaps, and lines drawn too wide or too thin.

Judged along centre lines, so that a crack that is found but drawn three pixels wider is one "too wide", not a thousand wrong
pixels. For compact objects the same words hold with "too large" and "too small" in mind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from segdet.evaluation.thin import TOLERANCE

KINDS = ("missed", "false", "broken", "too_wide", "too_thin")

LEAST = 30  # wrong pixels from which an error is told of; gaps are told of from `_GAP` pixels of centre line on
_GAP = 4
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

    Every wrong pixel belongs to the nearest stretch.
    """
    if not prediction.any() and not target.any():
        return []
    ours, theirs = _Side(prediction, lines[0]), _Side(target, lines[1])
    lost, invented = theirs.alone(ours), ours.alone(theirs)
    pieces: list[tuple[str, np.ndarray, np.ndarray]] = []  # kind, its stretch of line, the pixels that are wrong there
    missing, extra = target & ~prediction, prediction & ~target
    for stretch in _stretches(lost):
        kind = "broken" if _joins(stretch, theirs.line & ~lost) else "missed"
        pieces.append((kind, stretch, missing & theirs.nearest_to(stretch)))
    for stretch in _stretches(invented):
        pieces.append(("false", stretch, extra & ours.nearest_to(stretch)))
    if ours.line.any():
        own, other = theirs.width, ours.width_near()
        found = theirs.line & ~lost
        near_true = ~ours.nearest_to(invented)
        for kind, wrong, small, large in (
            ("too_wide", extra & near_true, own, other),
            ("too_thin", missing, other, own),
        ):
            flagged = found & (large >= _RATIO * small) & (large - small > _WIDER)
            for stretch in _stretches(flagged, 2):
                pieces.append((kind, stretch, wrong & theirs.nearest_to(stretch)))
    return [error for piece in pieces if (error := _error(*piece, image, label)) is not None]


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

    width: float32 `[H, W]`, local width in pixels, right on the line.
    """

    def __init__(self, mask: np.ndarray, line: np.ndarray) -> None:
        self.mask, self.line = mask, line
        inside = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        self.width = np.maximum(2 * depth - 1, 0)
        if line.any():
            # For every pixel of the image: the number of the pixel of the line that is nearest.
            _, self._nearest = cv2.distanceTransformWithLabels(
                (~line).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
            )

    def alone(self, other: _Side) -> np.ndarray:
        """Pixels of this line with nothing of the other mask within half the local width and the tolerance: bool `[H, W]`."""
        if not other.mask.any():
            return self.line
        away = cv2.distanceTransform((~other.mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return np.asarray(self.line & (away > TOLERANCE + self.width / 2))

    def nearest_to(self, stretch: np.ndarray) -> np.ndarray:
        """Pixels of the image whose nearest pixel of this line is in `stretch` (part of the line): bool `[H, W]`."""
        if not stretch.any():
            return np.zeros_like(stretch)
        chosen = np.zeros(int(self._nearest.max()) + 1, bool)
        chosen[self._nearest[stretch]] = True
        return np.asarray(chosen[self._nearest])

    def width_near(self) -> np.ndarray:
        """Width of this line where it is nearest to each pixel of the image: float32 `[H, W]`."""
        of_number = np.zeros(int(self._nearest.max()) + 1, np.float32)
        of_number[self._nearest[self.line]] = self.width[self.line]
        return np.asarray(of_number[self._nearest])


def _stretches(line: np.ndarray, gap: int = 0) -> Iterable[np.ndarray]:
    """Connected parts of a line, bool `[H, W]` each; `gap` joins those that are a few pixels apart."""
    drawn = line.astype(np.uint8)
    if gap:
        drawn = cv2.dilate(drawn, np.ones((2 * gap + 1,) * 2, np.uint8))
    count, labels = cv2.connectedComponents(drawn, connectivity=8)
    for number in range(1, count):
        yield line & (labels == number)


def _joins(stretch: np.ndarray, found: np.ndarray) -> bool:
    """Whether a lost stretch touches two found ones that are not connected any other way."""
    if stretch.sum() < _GAP:
        return False
    _, labels = cv2.connectedComponents(found.astype(np.uint8), connectivity=8)
    touched = cv2.dilate(stretch.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    return len(set(np.unique(labels[touched])) - {0}) > 1


def _error(kind: str, stretch: np.ndarray, wrong: np.ndarray, image: int, label: int) -> MaskError | None:
    pixels, length = int(wrong.sum()), int(stretch.sum())
    if pixels == 0 or (pixels < LEAST and (kind != "broken" or length < _GAP)):
        return None
    rows, columns = np.flatnonzero(wrong.any(axis=1)), np.flatnonzero(wrong.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return MaskError(image, label, kind, pixels, length, box)
