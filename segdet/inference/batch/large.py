"""Pictures that are never held whole: predicted, written and measured band by band."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segdet import drawing
from segdet.data.geometry.regions import RegionBuilder
from segdet.data.tiff import TiffPicture
from segdet.files import replacing
from segdet.inference.batch.writers import Files, save_picture, write_texts
from segdet.inference.io import png
from segdet.inference.io.raster import Picture
from segdet.inference.predict.predictor import DetectionPredictor, Predictor, SegmentationPredictor
from segdet.inference.predict.results import DetectionResult, LargeSegmentationResult, areas

HELD = 64_000_000  # pixels up to which a picture and its answer are held whole
_OVERLAY = 4096  # longer side of the overlay, in pixels; a larger one opens in few programs
_BLOCK = 256  # side of the tiles in a TIFF
_OUTLINED = {"json", "csv", "coco", "geojson", "yolo"}


def write_large(
    predictor: Predictor, picture: Picture, folder: Path, name: str, kinds: Sequence[str]
) -> tuple[LargeSegmentationResult | DetectionResult, Files]:
    """Predict a large picture and write its files: a full-size mask, and an overlay of at most 4096 pixels a side.

    The mask of a TIFF is a TIFF, which programs read in windows too, with its place on the map; any other is a PNG.
    """
    if isinstance(predictor, DetectionPredictor):
        return _detect(predictor, picture, folder, name, kinds)
    if not isinstance(predictor, SegmentationPredictor):
        raise TypeError(f"no way to write large results of {type(predictor).__name__}")
    metadata = predictor.session.metadata
    height, width = picture.size
    shrunk = _Shrunk(picture.size)
    builder = RegionBuilder(metadata.classes, width) if _OUTLINED & {*kinds} else None
    found = dict.fromkeys(metadata.classes, 0)
    files: Files = {}
    with ExitStack() as stack:
        sinks: dict[str, Any] = {}
        for kind in ("mask", "confidence"):
            if kind in kinds:
                tiff = isinstance(picture, TiffPicture)
                files[kind] = folder / f"{name}_{kind}{'.tif' if tiff else '.png'}"
                classes = len(metadata.classes) if kind == "mask" else None
                open_sink: Any = _tiff if tiff else _png
                sinks[kind] = stack.enter_context(open_sink(files[kind], picture, classes))
        for _, image, mask, confidence in predictor.bands(picture):
            for label, area in areas(mask, metadata.classes).items():
                found[label] += area
            if "mask" in sinks:
                sinks["mask"].write(mask)
            if "confidence" in sinks:
                sinks["confidence"].write((confidence * np.float32(255) + np.float32(0.5)).astype(np.uint8))
            if builder is not None:
                builder.add(mask, confidence)
            if "overlay" in kinds:
                shrunk.add(drawing.overlay(image, mask))
    regions = None if builder is None else builder.finish()
    result = LargeSegmentationResult((height, width), found, regions, metadata.classes, predictor.threshold)
    if "overlay" in kinds:
        files["overlay"] = save_picture(folder / f"{name}_overlay", shrunk.finish())
    return result, {**files, **write_texts(result, folder, name, kinds)}


def _detect(
    predictor: DetectionPredictor, picture: Picture, folder: Path, name: str, kinds: Sequence[str]
) -> tuple[DetectionResult, Files]:
    boxes, scores, labels = predictor.boxes_of(picture)
    height, width = picture.size
    boxes = boxes.clip(0, np.array([width, height, width, height], np.float32))
    assert predictor.threshold is not None
    classes = predictor.session.metadata.classes
    empty = np.broadcast_to(np.zeros(3, np.uint8), (height, width, 3))  # takes no memory; nothing below looks at it
    result = DetectionResult(empty, boxes, scores, labels, classes, predictor.threshold)
    files: Files = {}
    if "overlay" in kinds:
        shrunk = _Shrunk(picture.size)
        for top in range(0, height, 1024):
            shrunk.add(picture.read(top, min(top + 1024, height)))
        small = DetectionResult(shrunk.finish(), boxes / shrunk.factor, scores, labels, classes, predictor.threshold)
        files["overlay"] = save_picture(folder / f"{name}_overlay", small.overlay())
    return result, {**files, **write_texts(result, folder, name, kinds)}


class _Shrunk:
    """A picture that arrives in bands, averaged over squares of whole pixels until its sides are at most `_OVERLAY`."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.factor = max(1, -(-max(size) // _OVERLAY))
        self._rest = np.zeros((0, size[1], 3), np.uint8)
        self._bands: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> None:
        rows = np.concatenate([self._rest, rows])
        whole = len(rows) // self.factor * self.factor
        self._shrink(rows[:whole])
        self._rest = rows[whole:].copy()

    def finish(self) -> np.ndarray:
        self._shrink(self._rest)
        return np.concatenate(self._bands)

    def _shrink(self, rows: np.ndarray) -> None:
        if len(rows):
            height, width = (max(1, round(side / self.factor)) for side in rows.shape[:2])
            self._bands.append(cv2.resize(rows, (width, height), interpolation=cv2.INTER_AREA))


@contextmanager
def _png(path: Path, picture: Picture, classes: int | None) -> Iterator[png.Writer]:
    with replacing(path) as temporary, temporary.open("wb") as stream:
        writer = png.Writer(stream, *picture.size, classes)
        yield writer
        writer.close()


@contextmanager
def _tiff(path: Path, picture: TiffPicture, classes: int | None) -> Iterator[_TiffWriter]:
    with replacing(path) as temporary:
        writer = _TiffWriter(temporary, picture, classes)
        try:
            yield writer
            writer.close()
        finally:
            writer.discard()


class _TiffWriter:
    """Writes a tiled, deflated TIFF of class values (with a palette) or grey, in bands of rows."""

    def __init__(self, path: Path, picture: TiffPicture, classes: int | None) -> None:
        self._height, self._width = picture.size
        self._rest = np.zeros((0, self._width), np.uint8)
        self._path, self._picture, self._classes = path, picture, classes
        self._store = path.with_name(path.name + ".pieces").open("w+b")  # packed tiles until their number is known
        self._sizes: list[int] = []

    def write(self, rows: np.ndarray) -> None:
        rows = np.concatenate([self._rest, rows])
        whole = len(rows) // _BLOCK * _BLOCK
        self._pack(rows[:whole])
        self._rest = rows[whole:].copy()

    def close(self) -> None:
        """Put the packed tiles together."""
        import tifffile

        self._pack(self._rest)
        colours = png.palette16() if self._classes is not None else None
        self._store.seek(0)
        tifffile.imwrite(
            self._path,
            (self._store.read(size) for size in self._sizes),
            shape=(self._height, self._width),
            dtype=np.uint8,
            tile=(_BLOCK, _BLOCK),
            compression="zlib",
            bigtiff=sum(self._sizes) > 3_000_000_000,
            extratags=self._picture.georeference(),
            metadata=None,
            photometric="minisblack" if colours is None else "palette",
            colormap=colours,
        )

    def discard(self) -> None:
        """Remove what was only needed on the way."""
        self._store.close()
        Path(self._store.name).unlink(missing_ok=True)

    def _pack(self, rows: np.ndarray) -> None:
        for top in range(0, len(rows), _BLOCK):
            for left in range(0, self._width, _BLOCK):
                tile = np.zeros((_BLOCK, _BLOCK), np.uint8)
                part = rows[top : top + _BLOCK, left : left + _BLOCK]
                tile[: part.shape[0], : part.shape[1]] = part
                packed = zlib.compress(tile.data, 1)
                self._store.write(packed)
                self._sizes.append(len(packed))
