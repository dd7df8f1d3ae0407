"""Prediction for photographs with an exported model: numpy and ONNX Runtime, no PyTorch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from segdet.data.images import read_image, resize
from segdet.errors import InputError, InvalidOption
from segdet.inference.backends.select import open_session
from segdet.inference.backends.session import Session
from segdet.inference.io.raster import ArrayPicture, Picture
from segdet.inference.predict import multiscale, sizes, tiling
from segdet.inference.predict.results import DetectionResult, SegmentationResult


def open_predictor(
    model: str | Path | Session,
    threshold: float | None = None,
    tile: str | int = "auto",
    device: str = "auto",
    threads: int | None = None,
    imgsz: int | None = None,
    multiscale_to: int | None = None,
) -> Predictor:
    """Open an exported model, ready for images of any size.

    Args:
        model: the ONNX file, or a session that is open already (`device` and `threads` are then ignored).
        threshold: probability at or above which a pixel is foreground (segmentation of one class only), or confidence at
            or above which a box counts (detection), 0..1; None: the model's own.
        tile: "auto" (segmentation: images over 4 megapixels; detection: never, the network sees the whole image shrunk),
            "off", or the side of the tiles in pixels.
        device: auto, cpu, cuda, cuda:N, tensorrt, openvino or openvino:f32 (`session.open_session`).
        threads: of one inference (default: all cores).
        imgsz: longer side of the images as the network (or its tiles) sees them, for segmentation; results have the
            images' own size. None: their own size.
        multiscale_to: longer side of the smallest scale at which large images are predicted as well (`levels`), for
            segmentation of one class; 0: one scale; None: as the model says. Pictures that are predicted in `bands` are
            predicted at their own size only.

    Returns:
        The predictor of the model's task.

    Raises:
        InputError: the file or device cannot be used.
        InvalidOption: a threshold, tile, imgsz or multiscale_to that this model cannot use.
    """
    session: Session = model if isinstance(model, Session) else open_session(Path(model), device, threads)
    return PREDICTORS[session.metadata.task](session, threshold, tile, imgsz, multiscale_to)


class Predictor(ABC):
    """An open model and how it is used. `open_predictor` makes the one for the model's task.

    Attributes:
        session: the open model.
        threshold: at or above which a pixel or box counts, 0..1; None for segmentation of several classes.
        tile: side of the tiles in pixels; None when images are never tiled.
        imgsz: longer side of the images as the network sees them; None for their own size.
        multiscale_to: longer side of the smallest further scale; 0 for one scale.
        whole: pixels up to which an image is not tiled.
    """

    tiles_by_default = True

    def __init__(
        self,
        session: Session,
        threshold: float | None,
        tile: str | int,
        imgsz: int | None,
        multiscale_to: int | None,
    ) -> None:
        self.session = session
        if threshold is not None and not 0.0 <= threshold <= 1.0:
            raise InvalidOption("threshold", threshold, "must be between 0 and 1")
        metadata = session.metadata
        if threshold is not None and not metadata.has_threshold:
            reason = f"{session.path} has several classes and picks the likeliest"
            raise InvalidOption("threshold", threshold, reason, "remove the setting")
        chosen = metadata.decision_threshold if threshold is None else threshold
        self.threshold = chosen if metadata.has_threshold else None
        self.tile = None if tile == "auto" and not self.tiles_by_default else _tile(tile)
        self.whole = tiling.WHOLE if tile == "auto" else 0
        self.imgsz = imgsz
        if multiscale_to and not metadata.is_binary:
            reason = "only segmentation models of one class predict at several scales"
            raise InvalidOption("multiscale_to", multiscale_to, reason, "remove the setting")
        if multiscale_to and multiscale_to < sizes.SMALLEST:
            reason = f"must be at least {sizes.SMALLEST} pixels, or 0 for one scale"
            raise InvalidOption("multiscale_to", multiscale_to, reason)
        stored = metadata.down_to or 0 if metadata.is_binary else 0
        self.multiscale_to = stored if multiscale_to is None else multiscale_to

    def predict(
        self, image: str | Path | bytes | np.ndarray, name: str | None = None
    ) -> SegmentationResult | DetectionResult:
        """Predict for a path, encoded bytes, or RGB uint8 `[H, W, 3]`.

        Returns:
            `SegmentationResult` from a segmentation model, `DetectionResult` from a detection model.

        Raises:
            InputError: an image that cannot be used.
        """
        pixels = image if isinstance(image, np.ndarray) else read_image(image, name)
        return self.predict_batch([_checked(pixels, name)])[0]

    @abstractmethod
    def predict_batch(self, images: Sequence[np.ndarray]) -> Sequence[SegmentationResult | DetectionResult]:
        """Predict for RGB uint8 `[H, W, 3]` arrays of one size; they go through the network together."""

    @property
    def batch(self) -> int:
        """Images worth giving to the network at once: several bring nothing on a processor."""
        return 8 if self.session.on_gpu else 1

    def tile_for(self, size: tuple[int, ...]) -> int | None:
        """Side of the tiles for an image of this (height, width); None when it is predicted whole."""
        size = size if self.imgsz is None else sizes.resized(size, self.imgsz)
        large = self.tile is not None and tiling.is_large(size, self.tile, self.whole)
        return self.tile if large else None

    def needs_bands(self, size: tuple[int, ...], most: int) -> bool:
        """Whether the result for an image of this (height, width) is too large to be held whole.

        Args:
            most: pixels of an image whose result is held whole.
        """
        return False


class SegmentationPredictor(Predictor):
    """Masks: images at their own size or resized, in tiles where they are large, and at several scales."""

    def __init__(
        self,
        session: Session,
        threshold: float | None,
        tile: str | int,
        imgsz: int | None,
        multiscale_to: int | None,
    ) -> None:
        if imgsz is not None and not sizes.SMALLEST <= imgsz <= sizes.LARGEST:
            raise InvalidOption("imgsz", imgsz, f"must be {sizes.SMALLEST} to {sizes.LARGEST} pixels")
        super().__init__(session, threshold, tile, imgsz, multiscale_to)

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[SegmentationResult]:
        """Predict for RGB uint8 `[H, W, 3]` arrays of one size; they go through the network together."""
        own = images[0].shape[:2]
        network_images = self._preprocess(images)
        pairs = self._forward(network_images)
        if multiscale.sides(network_images[0].shape[:2], self.multiscale_to):
            pairs = [self._multiscale(*row) for row in zip(network_images, pairs, strict=True)]
        if network_images[0].shape[:2] != own:
            pairs = [sizes.restored(mask, confidence, own, self.threshold) for mask, confidence in pairs]
        return [self._result(image, *pair) for image, pair in zip(images, pairs, strict=True)]

    def bands(self, picture: Picture) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Predict a picture that is never held whole: (top, image, mask, confidence) of each band of rows."""
        return tiling.bands(self.session, picture, self._cut, self.tile or tiling.TILE, self.batch)

    def needs_bands(self, size: tuple[int, ...], most: int) -> bool:
        """As in `Predictor`; an image that is resized has a small result first."""
        return self.imgsz is None and size[0] * size[1] > most and self.tile_for(size) is not None

    def _preprocess(self, images: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        if self.imgsz is None:
            return images
        size = sizes.resized(images[0].shape[:2], self.imgsz)
        return [resize(image, *size) for image in images]

    def _forward(self, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Mask and confidence of each image at one scale."""
        height, width = images[0].shape[:2]
        if self.tile is not None and tiling.is_large((height, width), self.tile, self.whole):
            return [tiling.run_tiled(self.session, one, self._cut, self.tile, self.batch) for one in images]
        stack = images[0][None] if len(images) == 1 else np.stack(images)
        return list(zip(*self.session.run(stack, self.threshold), strict=True))

    def _multiscale(self, image: np.ndarray, pair: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Mask and confidence with what smaller scales add."""
        confidence = multiscale.multiscale_confidence(
            image, pair[1], self.multiscale_to, lambda smaller: self._forward([smaller])[0][1]
        )
        return (confidence >= np.float32(self._cut)).view(np.uint8), confidence

    @property
    def _cut(self) -> float:
        """Threshold of tiles; those of several classes ignore it."""
        return 0.5 if self.threshold is None else self.threshold

    def _result(self, image: np.ndarray, mask: np.ndarray, confidence: np.ndarray) -> SegmentationResult:
        return SegmentationResult(image, mask, confidence, self.session.metadata.classes, self.threshold)


class DetectionPredictor(Predictor):
    """Boxes: images whole, which the network shrinks, or in tiles."""

    tiles_by_default = False

    def __init__(
        self,
        session: Session,
        threshold: float | None,
        tile: str | int,
        imgsz: int | None,
        multiscale_to: int | None,
    ) -> None:
        if imgsz is not None:
            reason = f"{session.path} detects boxes and has its size inside"
            raise InvalidOption("imgsz", imgsz, reason, "remove the setting")
        super().__init__(session, threshold, tile, imgsz, multiscale_to)

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[DetectionResult]:
        """Predict for RGB uint8 `[H, W, 3]` arrays of one size; they go through the network together."""
        if self.tile_for(images[0].shape[:2]):
            return [self._result(image, *self.boxes_of(ArrayPicture(image))) for image in images]
        stack = images[0][None] if len(images) == 1 else np.stack(images)
        return [self._result(*row) for row in zip(images, *self.session.run(stack), strict=True)]

    def boxes_of(self, picture: Picture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Detect in tiles of a picture that is never held whole: boxes, scores and labels as in `DetectionResult`."""
        return tiling.detect_tiled(self.session, picture, self._cut, self.tile or tiling.TILE)

    @property
    def _cut(self) -> float:
        return self.session.metadata.decision_threshold if self.threshold is None else self.threshold

    def _result(self, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> DetectionResult:
        kept = scores >= self._cut
        height, width = image.shape[:2]
        inside = boxes[kept].clip(0, np.array([width, height, width, height], np.float32))
        classes = self.session.metadata.classes
        return DetectionResult(image, inside, scores[kept], labels[kept], classes, self._cut)


PREDICTORS: dict[str, type[Predictor]] = {"segmentation": SegmentationPredictor, "detection": DetectionPredictor}


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
        reason = f"must be auto, off, or a side of at least {tiling.SMALLEST} pixels"
        raise InvalidOption("tile", tile, reason)
    return int(tile)
