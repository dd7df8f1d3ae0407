"""Prediction for photographs with an exported model: numpy and ONNX Runtime, no PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segdet.data.images import read_image
from segdet.errors import InputError
from segdet.inference import tiling
from segdet.inference.results import Prediction
from segdet.inference.session import Session, open_session


class Predictor:
    """An exported model, ready for images of any size.

    Args:
        model: the ONNX file.
        threshold: probability from which a pixel is foreground, 0..1 (one class only); None = the model's own.
        tile: "auto" (images over 4 megapixels), "off", or the side of the tiles in pixels.
        device: auto, cpu, cuda, cuda:N or tensorrt.

    Raises:
        InputError: an unusable file, device, threshold or tile.
    """

    def __init__(
        self, model: str | Path, threshold: float | None = None, tile: str | int = "auto", device: str = "auto"
    ) -> None:
        self.session: Session = open_session(Path(model), device)
        if threshold is not None and not 0.0 <= threshold <= 1.0:
            raise InputError(f"--conf {threshold}: a probability lies between 0 and 1")
        one = len(self.session.metadata.classes) == 1
        if threshold is not None and not one:
            raise InputError(f"--conf {threshold}: {model} has several classes and picks the likeliest; leave it out")
        self.threshold = (
            (threshold if threshold is not None else self.session.metadata.threshold or 0.5) if one else None
        )
        self.tile = _tile(tile)
        self.whole = tiling.WHOLE if tile == "auto" else 0  # pixels up to which an image is not tiled

    def predict(self, image: str | Path | bytes | np.ndarray, name: str | None = None) -> Prediction:
        """Predict for a path, encoded bytes, or RGB uint8 `[H, W, 3]`.

        Raises:
            InputError: an image that cannot be used.
        """
        pixels = image if isinstance(image, np.ndarray) else read_image(image, name)
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
            raise InputError(
                f"{name or 'image'}: an array must be RGB uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}"
            )
        height, width = pixels.shape[:2]
        if self.tile is not None and max(height, width) > self.tile and height * width > self.whole:
            mask, confidence = tiling.run_tiled(self.session, pixels, self.threshold or 0.5, self.tile)
        else:
            mask, confidence = (output[0] for output in self.session.run(pixels[None], self.threshold))
        return Prediction(pixels, mask, confidence, self.session.metadata.classes, self.threshold)


def _tile(tile: str | int) -> int | None:
    if tile == "off":
        return None
    if tile == "auto":
        return tiling.TILE
    if not str(tile).isdigit() or int(tile) < 64:
        raise InputError(f"--tile {tile}: say auto, off, or a side of at least 64 pixels")
    return int(tile)
