"""Prediction for photographs with an exported model: numpy and ONNX Runtime, no PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from segdet.data.images import read_image, resize
from segdet.errors import InputError
from segdet.inference import levels, sizes, tiling
from segdet.inference.detection_results import DetectionResult
from segdet.inference.results import Prediction
from segdet.inference.session import Session, open_session
from segdet.inference.windows import ArrayPicture, Picture


class Predictor:
    """An exported model, ready for images of any size.

    Args:
        model: the ONNX file, or a session that is open already (`device` and `threads` then say nothing).
        threshold: probability from which a pixel is foreground (segmentation of one class only), or confidence from which a
            box counts (detection), 0..1; None = the model's own.
        tile: "auto" (segmentation: images over 4 megapixels; detection: never, the network sees the whole image shrunk),
            "off", or the side of the tiles in pixels.
        device: auto, cpu, cuda, cuda:N, tensorrt, openvino or openvino:f32 (`session.open_session`).
        threads: of one inference (default: all cores).
        imgsz: longer side of the images as the network (or its tiles) sees them, for segmentation; answers come at the
            images' own size. None: their own size.
        down_to: longer side of the smallest of the coarser looks at large images (`levels`), segmentation of one class; 0: no
            such looks; None: as the model says. Pictures predicted in `bands` are seen at their own size only.

    Raises:
        InputError: an unusable file, device, threshold, tile, imgsz or down_to.
    """

    def __init__(
        self,
        model: str | Path | Session,
        threshold: float | None = None,
        tile: str | int = "auto",
        device: str = "auto",
        threads: int | None = None,
        imgsz: int | None = None,
        down_to: int | None = None,
    ) -> None:
        self.session: Session = model if isinstance(model, Session) else open_session(Path(model), device, threads)
        if threshold is not None and not 0.0 <= threshold <= 1.0:
            raise InputError(f"--conf {threshold}: a probability lies between 0 and 1")
        metadata = self.session.metadata
        self.detects = metadata.task == "detection"
        has_threshold = self.detects or len(metadata.classes) == 1
        if threshold is not None and not has_threshold:
            raise InputError(
                f"--conf {threshold}: {self.session.path} has several classes and picks the likeliest; leave it out"
            )
        own = 0.5 if metadata.threshold is None else metadata.threshold
        self.threshold = (own if threshold is None else threshold) if has_threshold else None
        self.tile = None if self.detects and tile == "auto" else _tile(tile)
        if imgsz is not None and self.detects:
            raise InputError(
                f"--imgsz {imgsz}: {self.session.path} detects boxes and has its size inside; leave it out"
            )
        if imgsz is not None and not sizes.SMALLEST <= imgsz <= sizes.LARGEST:
            raise InputError(f"--imgsz {imgsz}: say {sizes.SMALLEST} to {sizes.LARGEST} pixels")
        self.imgsz = imgsz
        if down_to and (self.detects or not has_threshold):
            raise InputError(f"--down-to {down_to}: only for segmentation models of one class; leave it out")
        if down_to and down_to < sizes.SMALLEST:
            raise InputError(f"--down-to {down_to}: at least {sizes.SMALLEST} pixels, or 0 for no coarser looks")
        stored = 0 if self.detects or not has_threshold else metadata.down_to or 0
        self.down_to = stored if down_to is None else down_to
        self.whole = tiling.WHOLE if tile == "auto" else 0  # pixels up to which an image is not tiled

    def predict(self, image: str | Path | bytes | np.ndarray, name: str | None = None) -> Prediction | DetectionResult:
        """Predict for a path, encoded bytes, or RGB uint8 `[H, W, 3]`.

        Returns:
            `Prediction` from a segmentation model, `DetectionResult` from a detection model.

        Raises:
            InputError: an image that cannot be used.
        """
        pixels = image if isinstance(image, np.ndarray) else read_image(image, name)
        return self.predict_batch([_checked(pixels, name)])[0]

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[Prediction | DetectionResult]:
        """Predict for RGB uint8 `[H, W, 3]` arrays of one size; they go through the network together."""
        if self.imgsz is None:
            return self._predict(images)
        size = sizes.resized(images[0].shape[:2], self.imgsz)
        found = self._predict([resize(image, *size) for image in images])
        return [self._restored(*pair) for pair in zip(images, found, strict=True)]

    def _predict(self, images: Sequence[np.ndarray]) -> list[Prediction | DetectionResult]:
        found = self._at_once(images)
        if not levels.sides(images[0].shape[:2], self.down_to):
            return found
        return [self._again(one) for one in found]

    def _again(self, found: Prediction | DetectionResult) -> Prediction:
        """With what coarser looks add."""
        assert isinstance(found, Prediction) and self.threshold is not None
        image = found.image
        confidence = levels.looked_again(image, found.confidence, self.down_to, self._look)
        return self._mask(image, (confidence >= np.float32(self.threshold)).view(np.uint8), confidence)

    def _look(self, image: np.ndarray) -> np.ndarray:
        (found,) = self._at_once([image])
        assert isinstance(found, Prediction)
        return found.confidence

    def _at_once(self, images: Sequence[np.ndarray]) -> list[Prediction | DetectionResult]:
        if self._tile_at(images[0].shape[:2]):
            return [self._detect_tiled(one) if self.detects else self._segment_tiled(one) for one in images]
        stack = images[0][None] if len(images) == 1 else np.stack(images)
        outputs = self.session.run(stack) if self.detects else self.session.run(stack, self.threshold)
        rows = zip(images, *outputs, strict=True)
        return [self._boxes(*row) if self.detects else self._mask(*row) for row in rows]

    def bands(self, picture: Picture) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Segmentation of a picture that is never held whole: (top, image, mask, confidence) of each band of rows."""
        return tiling.bands(self.session, picture, self._cut, self.tile or tiling.TILE, self.batch)

    def boxes_of(self, picture: Picture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Detection, in tiles, of a picture that is never held whole: boxes, scores and labels as in `DetectionResult`."""
        assert self.threshold is not None
        return tiling.detect_tiled(self.session, picture, self.threshold, self.tile or tiling.TILE)

    @property
    def batch(self) -> int:
        """Images worth giving to the network at once: several bring nothing on a processor."""
        return 8 if self.session.on_gpu else 1

    def tile_for(self, size: tuple[int, ...]) -> int | None:
        """Side of the tiles for an image of this (height, width); None when it is predicted whole."""
        return self._tile_at(size if self.imgsz is None else sizes.resized(size, self.imgsz))

    def _tile_at(self, size: tuple[int, ...]) -> int | None:
        large = self.tile is not None and tiling.is_large(size, self.tile, self.whole)
        return self.tile if large else None

    @property
    def _cut(self) -> float:
        """For tiles, which with several classes do not look at it."""
        return 0.5 if self.threshold is None else self.threshold

    def _mask(self, image: np.ndarray, mask: np.ndarray, confidence: np.ndarray) -> Prediction:
        return Prediction(image, mask, confidence, self.session.metadata.classes, self.threshold)

    def _restored(self, image: np.ndarray, found: Prediction | DetectionResult) -> Prediction:
        assert isinstance(found, Prediction)
        return self._mask(image, *sizes.restored(found.mask, found.confidence, image.shape[:2], self.threshold))

    def _segment_tiled(self, image: np.ndarray) -> Prediction:
        tile = self.tile or tiling.TILE
        return self._mask(image, *tiling.run_tiled(self.session, image, self._cut, tile, self.batch))

    def _boxes(self, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> DetectionResult:
        assert self.threshold is not None
        kept = scores >= self.threshold
        height, width = image.shape[:2]
        inside = boxes[kept].clip(0, np.array([width, height, width, height], np.float32))
        classes = self.session.metadata.classes
        return DetectionResult(image, inside, scores[kept], labels[kept], classes, self.threshold)

    def _detect_tiled(self, image: np.ndarray) -> DetectionResult:
        return self._boxes(image, *self.boxes_of(ArrayPicture(image)))


def _checked(pixels: np.ndarray, name: str | None) -> np.ndarray:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise InputError(
            f"{name or 'image'}: an array must be RGB uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}"
        )
    return pixels


def _tile(tile: str | int) -> int | None:
    if tile == "off":
        return None
    if tile == "auto":
        return tiling.TILE
    if not str(tile).isdigit() or int(tile) < tiling.SMALLEST:
        raise InputError(f"--tile {tile}: say auto, off, or a side of at least {tiling.SMALLEST} pixels")
    return int(tile)
