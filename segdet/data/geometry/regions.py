"""From masks to regions: connected parts with exact outlines, also of masks that arrive in bands and never exist whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from segdet.data.geometry import rle

# Outlines run this far (pixels) inside the pixels' edges: parts that touch at a corner, and holes that touch the outline
# around them, stay apart, so that every polygon is valid; and segdet's rasteriser draws the same mask back.
INSET = 0.02

Ring = np.ndarray  # int32 `[P, 2]` (x, y): corners on pixel edges, alternately joined by horizontal and vertical lines


@dataclass(frozen=True)
class Region:
    """A connected part (8-neighbourhood) of one class.

    label: the class's name. index: its place in the model's `classes`. box: (x1, y1, x2, y2) in pixels, x2 and y2
    exclusive. area: pixels. confidence: mean over them. parts: for every 4-connected part its outline and then its holes,
    along the pixels' edges; the inside is on the left when y is drawn upwards (outlines turn as RFC 7946 says).
    """

    label: str
    index: int
    box: tuple[int, int, int, int]
    area: int
    confidence: float
    parts: tuple[tuple[Ring, ...], ...]

    @cached_property
    def polygons(self) -> tuple[np.ndarray, ...]:
        """Outlines float64 `[P, 2]` in pixels ((0, 0) is the image's corner), outer ones first, then holes."""
        outer = [inset(part[0]) for part in self.parts]
        return (*outer, *(inset(hole) for part in self.parts for hole in part[1:]))

    def rle(self, height: int, width: int) -> dict[str, object]:
        """COCO's run-length encoding in an image of that size."""
        return rle.from_rings([ring for part in self.parts for ring in part], height, width)


def inset(ring: Ring) -> np.ndarray:
    """The ring moved `INSET` pixels inwards: float64 `[P, 2]`, to 1/100 pixel."""
    after = np.roll(ring, -1, axis=0) - ring
    before = np.roll(after, 1, axis=0)
    along = np.sign(after + before)  # of the two lines that meet at a corner one is horizontal, one vertical
    return np.round(ring + INSET * np.stack([-along[:, 1], along[:, 0]], axis=1), 2)


def regions_of(mask: np.ndarray, confidence: np.ndarray, classes: Sequence[str]) -> list[Region]:
    """Regions of a mask `[H, W]` (0 = background, k = `classes[k - 1]`), largest first. confidence: float `[H, W]`."""
    builder = RegionBuilder(classes, mask.shape[1])
    builder.add(mask, confidence)
    return builder.finish()


def values(mask: np.ndarray) -> list[int]:
    """The class values in a mask uint8 `[H, W]`, without 0."""
    counts = cv2.calcHist([mask], [0], None, [256], [0, 256])
    return [int(value) for value in np.flatnonzero(counts) if value]


class RegionBuilder:
    """Takes a mask in bands from top to bottom. Memory follows the length of the outlines, not the size of the image."""

    def __init__(self, classes: Sequence[str], width: int) -> None:
        self._classes = classes
        self._width = width
        self._top = 0
        self._tracers: dict[int, _Tracer] = {}

    def add(self, mask: np.ndarray, confidence: np.ndarray) -> None:
        """The next rows: mask uint8 `[h, W]` and confidence float `[h, W]`."""
        for value in {*values(mask), *self._tracers}:
            tracer = self._tracers.setdefault(value, _Tracer(self._width))
            tracer.add(mask == value, confidence, self._top)
        self._top += len(mask)

    def finish(self) -> list[Region]:
        """All regions, largest first."""
        found = []
        for value, tracer in sorted(self._tracers.items()):
            nothing = np.zeros((1, self._width), bool)
            tracer.add(nothing, nothing, self._top)
            found += list(tracer.regions(self._classes[value - 1], value - 1))
        return sorted(found, key=lambda region: -region.area)


_QUADRANTS = (
    (-1, -1),
    (-1, 0),
    (0, -1),
    (0, 0),
)  # pixels (dy, dx) around a point: left above, right above, left, right below


def _corner_table() -> list[list[tuple[int, bool, bool, bool]]]:
    """For each of the 16 ways four pixels meet: its corners as (pixel inside, line goes right, line goes down, the
    horizontal line starts here). Two pixels that meet only at a corner keep a corner each."""
    table: list[list[tuple[int, bool, bool, bool]]] = []
    for code in range(16):
        inside = [bool(code >> bit & 1) for bit in range(4)]
        if sum(inside) == 1:
            own = [inside.index(True)]
        elif sum(inside) == 3:
            own = [3 - inside.index(False)]  # the pixel across from the one outside
        elif code in (0b1001, 0b0110):
            own = [pixel for pixel in (0, 2, 1, 3) if inside[pixel]]  # the one on the left first
        else:
            own = []
        corners = []
        for pixel in own:
            convex = sum(inside) < 3
            right, down = (bool(pixel & 1) == convex), (bool(pixel & 2) == convex)
            starts = inside[3] and not inside[1] if right else inside[0] and not inside[2]
            corners.append((pixel, right, down, starts))
        table.append(corners)
    return table


_TABLE = _corner_table()
_COUNT = np.array([len(corners) for corners in _TABLE])
_FIRST = np.array([corners[0] if corners else (0, 0, 0, 0) for corners in _TABLE], np.int64)
_SECOND = np.array([corners[1] if len(corners) > 1 else (0, 0, 0, 0) for corners in _TABLE], np.int64)
_DY, _DX = np.array(_QUADRANTS).T


class _Tracer:
    """Outlines of one class."""

    def __init__(self, width: int) -> None:
        self._row = np.zeros((1, width), bool)  # the last one seen, with its labels
        self._row_labels = np.zeros((1, width), np.int64)
        self._count = 0  # 4-connected parts so far, counted again in every band
        self._corners: list[np.ndarray] = []  # int32 `[n, 6]`: y, x, label, right, down, starts
        self._same: list[np.ndarray] = []  # pairs of labels that are one part across bands
        self._touch: list[np.ndarray] = []  # pairs that meet at a corner
        self._area: list[np.ndarray] = [np.zeros(1)]
        self._sum: list[np.ndarray] = [np.zeros(1)]

    def add(self, inside: np.ndarray, confidence: np.ndarray, top: int) -> None:
        pixels = inside.view(np.uint8)
        count, found = cv2.connectedComponents(pixels, connectivity=4)
        at = np.flatnonzero(inside)
        own = found.ravel()[at]
        self._area.append(np.bincount(own, minlength=count)[1:].astype(float))
        self._sum.append(np.bincount(own, confidence.ravel()[at], minlength=count)[1:])
        first = np.where(inside[0], found[0] + self._count, 0)
        meet = inside[0] & self._row[0]
        self._same.append(np.unique(np.stack([first[meet], self._row_labels[0][meet]], axis=1), axis=0))
        code = _codes(np.concatenate([self._row.view(np.uint8), pixels]))
        mixed = np.flatnonzero(code - 1 < 14)  # neither 0 nor 15 (unsigned): not all of the four alike
        mixed = mixed[_COUNT[code.ravel()[mixed]] > 0]
        y, x = np.divmod(mixed, code.shape[1])
        kinds = code[y, x]
        twice = np.repeat(np.arange(len(y)), _COUNT[kinds])  # pinches have two corners
        second = np.concatenate([[False], twice[1:] == twice[:-1]]) if len(twice) else np.zeros(0, bool)
        rows = np.where(second[:, None], _SECOND[kinds[twice]], _FIRST[kinds[twice]])
        y, x = y[twice], x[twice]
        label = self._labels(found, y + _DY[rows[:, 0]], x + _DX[rows[:, 0]])
        corners = np.stack([y + top, x, label, rows[:, 1], rows[:, 2], rows[:, 3]], axis=1)
        self._corners.append(corners.astype(np.int32))
        self._touch.append(np.stack([label[np.flatnonzero(second) - 1], label[second]], axis=1))
        self._row, self._row_labels = inside[-1:].copy(), np.where(inside[-1:], found[-1:] + self._count, 0)
        self._count += count - 1

    def _labels(self, found: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Labels at pixels of this band, whose row -1 is the last band's last one."""
        here = found[np.maximum(y, 0), x] + self._count
        return np.where(y < 0, self._row_labels[0][x], here)

    def regions(self, label: str, index: int) -> Iterator[Region]:
        part_of = _merged(self._count + 1, np.concatenate(self._same))
        touching = np.concatenate(self._touch)
        whole_of = _merged(self._count + 1, np.concatenate([np.concatenate(self._same), touching]))
        area = np.bincount(whole_of, np.concatenate(self._area), self._count + 1)
        total = np.bincount(whole_of, np.concatenate(self._sum), self._count + 1)
        parts: dict[int, list[Ring]] = {}
        for ring, own in _rings(np.concatenate(self._corners)):
            members = parts.setdefault(int(part_of[own]), [])
            members.insert(0 if _turns_left(ring) else len(members), ring)  # the one outline before its holes
        wholes: dict[int, list[tuple[Ring, ...]]] = {}
        for own, rings in parts.items():
            wholes.setdefault(int(whole_of[own]), []).append(tuple(rings))
        for own, pieces in wholes.items():
            corners = np.concatenate([piece[0] for piece in pieces])
            (x1, y1), (x2, y2) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
            size = int(area[own])
            yield Region(label, index, (x1, y1, x2, y2), size, float(total[own] / size), tuple(pieces))


def _codes(rows: np.ndarray) -> np.ndarray:
    """uint8 0/1 `[h + 1, W]` -> which of the four pixels around each point are inside: `[h, W + 1]`, bits as `_QUADRANTS`."""
    wide = np.zeros((rows.shape[0], rows.shape[1] + 2), np.uint8)
    wide[:, 1:-1] = rows
    across = wide[:, :-1] | wide[:, 1:] << 1
    return np.asarray(across[:-1] | across[1:] << 2)


def _rings(corners: np.ndarray) -> Iterator[tuple[Ring, int]]:
    """Closed outlines of corners int32 `[n, 6]` (in the order of points, see `_Tracer`), with the label of each."""
    if not len(corners):
        return
    y, x, label, _, down, starts = corners.T
    # On every line of the grid corners come in pairs: the first of each goes right (or down), the second ends there.
    across = _partners(np.arange(len(corners)))
    upright = _partners(np.lexsort((down, y, x)))
    following = np.where(starts > 0, across, upright).tolist()
    points = np.stack([x, y], axis=1).astype(np.int32)
    seen = bytearray(len(corners))
    for start in range(len(corners)):
        if seen[start]:
            continue
        ring = []
        here = start
        while not seen[here]:
            seen[here] = 1
            ring.append(here)
            here = following[here]
        yield points[ring], int(label[start])


def _partners(order: np.ndarray) -> np.ndarray:
    partner = np.empty(len(order), np.int64)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return partner


def _turns_left(ring: Ring) -> bool:
    x, y = ring.astype(np.int64).T
    return int(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) > 0


def _merged(count: int, pairs: np.ndarray) -> np.ndarray:
    """The smallest number reachable from each of 0..count - 1 through `pairs` `[n, 2]`."""
    root = list(range(count))

    def find(number: int) -> int:
        while root[number] != number:
            root[number] = root[root[number]]
            number = root[number]
        return number

    for a, b in pairs.tolist():
        a, b = find(a), find(b)
        root[max(a, b)] = min(a, b)
    return np.array([find(number) for number in range(count)])
