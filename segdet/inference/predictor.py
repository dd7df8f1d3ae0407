"""Prediction for photographs with an exported model: numpy and ONNX Runtime, no PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segdet.data.images import read_image
from segdet.errors import InputError
from segdet.inference import tiling
from segdet.inference.detection_results import DetectionResult
from segdet.inference.results import Prediction
from segdet.inference.session import Session, open_session


class Predictor:
    """An exported model, ready for images of any size.

    Args:
        model: the ONNX file, or a session that is open already (`device` then says nothing).
        threshold: probability from which a pixel is foreground (segmentation of one class only), or confidence from which a
            box counts (detection), 0..1; None = the model's own.
        tile: "auto" (segmentation: images over 4 megapixels; detection: never, the network sees the whole image shrunk),
            "off", or the side of the tiles in pixels.
        device: auto, cpu, cuda, cuda:N or tensorrt.

    Raises:
        InputError: an unusable file, device, threshold or tile.
    """

    def __init__(
        self,
        model: str | Path | Session,
        threshold: float | None = None,
        tile: str | int = "auto",
        device: str = "auto",
    ) -> None:
        self.session: Session = model if isinstance(model, Session) else open_session(Path(model), device)
        if threshold is not None and not 0.0 <= threshold <= 1.0:
            raise InputError(f"--conf {threshold}: a probability lies between 0 and 1")
        metadata = self.session.metadata
        self.detects = metadata.task == "detection"
        has_threshold = self.detects or len(metadata.classes) == 1
        if threshold is not None and not has_threshold:
            raise InputError(
                f"--conf {threshold}: {self.session.path} has several classes and picks the likeliest; leave it out"
            )
        self.threshold = (threshold if threshold is not None else metadata.threshold or 0.5) if has_threshold else None
        self.tile = None if self.detects and tile == "auto" else _tile(tile)
        self.whole = tiling.WHOLE if tile == "auto" else 0  # pixels up to which an image is not tiled

    def predict(self, image: str | Path | bytes | np.ndarray, name: str | None = None) -> Prediction | DetectionResult:
        """Predict for a path, encoded bytes, or RGB uint8 `[H, W, 3]`.

        Returns:
            `Prediction` from a segmentation model, `DetectionResult` from a detection model.

        Raises:
            InputError: an image that cannot be used.
        """
        pixels = image if isinstance(image, np.ndarray) else read_image(image, name)
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
            raise InputError(
                f"{name or 'image'}: an array must be RGB uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}"
            )
        return self._detect(pixels) if self.detects else self._segment(pixels)

    def _segment(self, pixels: np.ndarray) -> Prediction:
        if tile := self._tile_for(pixels):
            mask, confidence = tiling.run_tiled(self.session, pixels, self.threshold or 0.5, tile)
        else:
            mask, confidence = (output[0] for output in self.session.run(pixels[None], self.threshold))
        return Prediction(pixels, mask, confidence, self.session.metadata.classes, self.threshold)

    def _detect(self, pixels: np.ndarray) -> DetectionResult:
        assert self.threshold is not None
        if tile := self._tile_for(pixels):
            boxes, scores, labels = tiling.detect_tiled(self.session, pixels, self.threshold, tile)
        else:
            boxes, scores, labels = (output[0] for output in self.session.run(pixels[None]))
            kept = scores >= self.threshold
            boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        height, width = pixels.shape[:2]
        boxes = boxes.clip(0, np.array([width, height, width, height], np.float32))
        return DetectionResult(pixels, boxes, scores, labels, self.session.metadata.classes, self.threshold)

    def _tile_for(self, pixels: np.ndarray) -> int | None:
        """Side of the tiles for this image; None when it is predicted whole."""
        height, width = pixels.shape[:2]
        large = self.tile is not None and max(height, width) > self.tile and height * width > self.whole
        return self.tile if large else None


def _tile(tile: str | int) -> int | None:
    if tile == "off":
        return None
    if tile == "auto":
        return tiling.TILE
    if not str(tile).isdigit() or int(tile) < 64:
        raise InputError(f"--tile {tile}: say auto, off, or a side of at least 64 pixels")
    return int(tile)
