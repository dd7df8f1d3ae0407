"""Large images in overlapping tiles: masks blended so that no seam shows, boxes merged so that nothing is counted twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from segdet.inference.backends.session import Session
from segdet.inference.io.raster import ArrayPicture, Picture

TILE = 1024  # side of a tile, in pixels
MARGIN = 128  # overlap of neighbours: wide enough for the network to see what surrounds a pixel
BAND = 256  # rows that are handed on at once
STEP = 32  # the networks' coarsest stride
SMALLEST = 128  # side of the smallest tile
WHOLE = 4_000_000  # pixels up to which an image is predicted whole
LONG = 4  # tiles: a strip with a longer side goes through in tiles, however few pixels it has
SAME = 0.5  # IoU from which boxes of different tiles are one object
INSIDE = 0.6  # share of a cut box that lies in the box of another tile when both are one object
EDGE = 0.01  # share of a tile within which a box that ends at its border counts as cut, 2 pixels at least


class Segmenting(Protocol):
    """What segments images: a `Session`, or a network in PyTorch. one_class: whether there is one foreground class."""

    @property
    def one_class(self) -> bool: ...
    def run(self, images: np.ndarray, /) -> tuple[np.ndarray, ...]:
        """Images uint8 `[N, H, W, C]` -> mask uint8 and confidence float32, both `[N, H, W]`."""


def is_large(size: tuple[int, ...], tile: int = TILE, whole: int = WHOLE) -> bool:
    """Whether an image of this (height, width) goes through a network in tiles.

    `whole` bounds the memory of the others. A strip of more than `LONG` tiles costs no more time in tiles, and a fifth of the memory.
    """
    return max(size) > tile and (size[0] * size[1] > whole or max(size) > LONG * tile)


def answers(session: Segmenting, images: np.ndarray, threshold: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Masks and confidences `[N, H, W]` of images of one size, in tiles where they are large."""
    if is_large(images.shape[1:3]):
        masks, confidences = zip(*(run_tiled(session, image, threshold) for image in images), strict=True)
        return np.stack(masks), np.stack(confidences)
    mask, confidence = session.run(images)
    return mask, confidence


def bands(
    session: Segmenting, picture: Picture, threshold: float, tile: int = TILE, batch: int = 1
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """The answer for a picture of any size, in bands from top to bottom: (top, image `[h, W, 3]`, mask `[h, W]`,
    confidence `[h, W]`), of at most `BAND` rows each. Memory is that of one row of tiles.

    With one class, confidences are averaged with weights that fall towards a tile's edge; with several, the tile in which
    a pixel lies farthest from the edge decides. Tiles start on multiples of `STEP`, where the network's own grid lies when
    it sees the whole picture.
    """
    height, width = picture.size
    margin = min(MARGIN, tile // 4)
    rows, columns = _aligned(height, tile, margin), _aligned(width, tile, margin)
    across = {column.start: share for column, share in zip(columns, _shares(columns, width, margin), strict=True)}
    tallest = max(row.stop - row.start for row in rows)
    answer = (_Mean if session.one_class else _Nearest)(tallest, width)
    for number, (row, down) in enumerate(zip(rows, _shares(rows, height, margin), strict=True)):
        image = picture.read(row.start, row.stop)
        for column, found in _columns(session, image, columns, batch):
            answer.add(column, found, down[:, None] * across[column.start])
        done = (rows[number + 1].start if number + 1 < len(rows) else height) - row.start
        for top in range(0, done, BAND):
            part = slice(top, min(top + BAND, done))
            yield row.start + top, image[part], *answer.take(part, threshold)
        answer.move(done)


class _Mean:
    """One class: the weighted mean of what tiles say, and whether it reaches the threshold."""

    def __init__(self, height: int, width: int) -> None:
        self._confidence = np.zeros((height, width), np.float32)

    def add(self, column: slice, found: Sequence[np.ndarray], weight: np.ndarray) -> None:
        self._confidence[: len(weight), column] += found[1] * weight

    def take(self, part: slice, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        confidence = self._confidence[part].copy()
        return (confidence >= np.float32(threshold)).view(np.uint8), confidence

    def move(self, done: int) -> None:
        _shift(self._confidence, done)


class _Nearest:
    """Several classes: what the tile says in which a pixel weighs most."""

    def __init__(self, height: int, width: int) -> None:
        self._confidence, self._weights = (np.zeros((height, width), np.float32) for _ in range(2))
        self._mask = np.zeros((height, width), np.uint8)

    def add(self, column: slice, found: Sequence[np.ndarray], weight: np.ndarray) -> None:
        size = len(weight)
        nearer = weight > self._weights[:size, column]
        for whole, new in ((self._mask, found[0]), (self._confidence, found[1]), (self._weights, weight)):
            whole[:size, column][nearer] = new[nearer]

    def take(self, part: slice, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        return self._mask[part].copy(), self._confidence[part].copy()

    def move(self, done: int) -> None:
        for buffer in (self._mask, self._confidence, self._weights):
            _shift(buffer, done)


def _shift(buffer: np.ndarray, done: int) -> None:
    """Rows from `done` on come first, zeros behind them: what the next row of tiles adds to."""
    rest = len(buffer) - done
    for start in range(0, rest, max(1, done)):  # in pieces that do not overlap: no copy of the whole is needed
        piece = buffer[done + start : min(2 * done + start, len(buffer))]
        buffer[start : start + len(piece)] = piece
    buffer[rest:] = 0


def _shares(windows: Sequence[slice], length: int, margin: int) -> list[np.ndarray]:
    """Weights float32 of each window along a side, which sum to 1 at every pixel."""
    weights = [_weight(window, length, margin) for window in windows]
    total = np.zeros(length, np.float32)
    for window, weight in zip(windows, weights, strict=True):
        total[window] += weight
    return [weight / total[window] for window, weight in zip(windows, weights, strict=True)]


def _columns(
    session: Segmenting, image: np.ndarray, columns: Sequence[slice], batch: int
) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """Answers of a row of tiles, `batch` of one size at a time."""
    for _, group in itertools.groupby(columns, lambda column: column.stop - column.start):
        same = list(group)
        for start in range(0, len(same), batch):
            some = same[start : start + batch]
            outputs = session.run(np.stack([image[:, column] for column in some]))
            for index, column in enumerate(some):
                yield column, [output[index] for output in outputs]


def run_tiled(
    session: Segmenting, image: np.ndarray, threshold: float, tile: int = TILE, batch: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """As `Session.run` for one image uint8 `[H, W, C]`, tile by tile -> (mask `[H, W]`, confidence `[H, W]`)."""
    mask, confidence = np.empty(image.shape[:2], np.uint8), np.empty(image.shape[:2], np.float32)
    for top, _, marked, band in bands(session, ArrayPicture(image), threshold, tile, batch):
        mask[top : top + len(marked)], confidence[top : top + len(marked)] = marked, band
    return mask, confidence


def detect_tiled(
    session: Session, image: np.ndarray | Picture, threshold: float, tile: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes float32 `[K, 4]`, falling scores float32 `[K]` and labels int64 `[K]` of one image, tile by tile.

    Within a tile nothing is dropped. Of two boxes of one class from different tiles one goes when they are the same
    object: at IoU `SAME` or more, or when a box that was cut by a tile's border lies to `INSIDE` or more in the other. Whole
    boxes stay before cut ones, then higher scores before lower ones. Neighbours overlap by a quarter of a tile or 256
    pixels, so an object larger than that may come out in parts: use larger tiles for it.
    """
    picture = ArrayPicture(image) if isinstance(image, np.ndarray) else image
    height, width = picture.size
    found: list[tuple[np.ndarray, ...]] = []
    band, seen = np.empty((0, width, 3), np.uint8), slice(0, 0)
    for number, (rows, columns) in enumerate(_windows(height, width, tile, min(MARGIN, tile // 8))):
        if rows != seen:
            band, seen = picture.read(rows.start, rows.stop), rows
        boxes, scores, labels = (output[0] for output in session.run(np.ascontiguousarray(band[None, :, columns])))
        kept = scores >= threshold
        corner = np.array([columns.start, rows.start] * 2, np.float32)
        inner = np.array([columns.start > 0, rows.start > 0, columns.stop < width, rows.stop < height])
        ends = np.array([0, 0, columns.stop - columns.start, rows.stop - rows.start], np.float32)
        cut = ((np.abs(boxes[kept] - ends) < max(2.0, EDGE * tile)) & inner).any(axis=1)
        found.append((boxes[kept] + corner, scores[kept], labels[kept], cut, np.full(int(kept.sum()), number)))
    boxes, scores, labels, cut, tiles = (np.concatenate(parts) for parts in zip(*found, strict=True))
    chosen = _merged(boxes, scores, labels, cut, tiles)
    return boxes[chosen], scores[chosen], labels[chosen]


def _merged(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, cut: np.ndarray, tiles: np.ndarray
) -> np.ndarray:
    """Indices of the boxes that stay, highest score first."""
    area = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
    kept: list[int] = []
    for index in np.lexsort((-scores, cut)):
        rivals = [k for k in kept if labels[k] == labels[index] and tiles[k] != tiles[index]]
        low, high = np.maximum(boxes[rivals, :2], boxes[index, :2]), np.minimum(boxes[rivals, 2:], boxes[index, 2:])
        both = (high - low).clip(0).prod(axis=1)
        same = both >= SAME * np.maximum(area[rivals] + area[index] - both, 1e-9)
        inside = both >= INSIDE * max(float(area[index]), 1e-9)
        if not (same | (inside & bool(cut[index]))).any():
            kept.append(int(index))
    return np.array(sorted(kept, key=lambda k: -scores[k]), np.int64)


def _windows(height: int, width: int, tile: int, margin: int) -> Iterator[tuple[slice, slice]]:
    for top in _starts(height, tile, margin):
        for left in _starts(width, tile, margin):
            yield slice(top, min(top + tile, height)), slice(left, min(left + tile, width))


def _aligned(length: int, tile: int, margin: int) -> list[slice]:
    """Tiles that overlap by at least `2 * margin` and start on multiples of `STEP`; the last ends with the picture and may be
    shorter by that."""
    last = -(-max(0, length - tile) // STEP) * STEP
    stride = max(STEP, (tile - 2 * margin) // STEP * STEP)
    return [slice(start, min(start + tile, length)) for start in [*range(0, last, stride), last]]


def _starts(length: int, tile: int, margin: int) -> list[int]:
    """Evenly spread tile starts, overlapping by at least `2 * margin`."""
    if length <= tile:
        return [0]
    count = int(np.ceil((length - tile) / (tile - 2 * margin))) + 1
    return [round(start) for start in np.linspace(0, length - tile, count)]


def _weight(window: slice, length: int, margin: int) -> np.ndarray:
    """float32 `[window]`: 1 inside, falling to almost 0 over the margin at edges that are not the image's own."""
    size = window.stop - window.start
    distance = np.full(size, np.inf)
    if window.start > 0:
        distance = np.minimum(distance, np.arange(size) + 0.5)
    if window.stop < length:
        distance = np.minimum(distance, np.arange(size)[::-1] + 0.5)
    # The outermost half of the margin, where the network saw least, hardly counts.
    return np.clip((distance - margin / 2) / margin, 1e-3, 1.0).astype(np.float32)
