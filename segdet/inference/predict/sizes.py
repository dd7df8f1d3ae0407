"""Images that the network sees at another size, and its answers at the images' own."""

from __future__ import annotations

import cv2
import numpy as np

from segdet.data.images import resize

SMALLEST = 32  # pixels a side; below, nothing is left of a photograph
LARGEST = 13_000  # 169 megapixels if it is square
Size = tuple[int, int]
"""Height and width, in pixels."""


def resized(size: tuple[int, ...], imgsz: int) -> Size:
    """`size` with a longer side of `imgsz`, in proportion."""
    height, width = size
    scale = imgsz / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def restored(mask: np.ndarray, confidence: np.ndarray, size: Size, cut: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Mask uint8 and confidence float32 `[h, w]` at `size`, bilinearly.

    Args:
        cut: confidence from which a pixel is foreground (one class); None: several classes, whose numbers cannot be averaged.
    """
    height, width = size
    confidence = resize(confidence, height, width)
    if cut is not None:
        return (confidence >= np.float32(cut)).view(np.uint8), confidence
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST), confidence
