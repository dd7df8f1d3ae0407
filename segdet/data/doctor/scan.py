"""Every picture is opened and decoded once; what the checks need to know about it is kept, the pixels are not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from segdet.data.doctor.features import Features, extract
from segdet.data.images import Header, ImageError, header, read_image

_BLACK = 48  # brightness up to which a corner may be fill; brightening after rotation lifts it from 0
_FLAT = 10  # grey values that fill may differ by: JPEG ripples near its edge
_LEAST = 0.002  # share of the picture a black corner covers at least
_MOST = 0.4


@dataclass(frozen=True)
class Facts:
    """What one file is like.

    header: None when it could not be read. damage: why it cannot be decoded. file, pixels: digests of the bytes and of
    the decoded picture. corners: share of the picture that is flat black fill reaching into a corner.
    """

    header: Header | None
    damage: str | None
    file: str
    pixels: str
    corners: float
    features: Features | None


def scan(images: Sequence[Path], keypoints: int, advance: Callable[[], object] = lambda: None) -> dict[Path, Facts]:
    """Facts of every image.

    Args:
        keypoints: how many to keep of each picture; 0 for none.
        advance: called once for each image done.
    """

    def one(path: Path) -> Facts:
        facts = _facts(path, keypoints)
        advance()
        return facts

    # Decoding and SIFT leave the interpreter's lock alone, so threads do; more than a few would wait for each other.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(images, pool.map(one, images), strict=True))


def _facts(path: Path, keypoints: int) -> Facts:
    head: Header | None = None
    digest = ""
    try:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        head = header(content, str(path))
        image = read_image(content, str(path))
    except ImageError as error:
        return Facts(head, str(error).removeprefix(f"{path}: "), digest, "", 0.0, None)
    except OSError as error:
        return Facts(None, f"cannot be read ({error.strerror})", digest, "", 0.0, None)
    pixels = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()
    return Facts(head, None, digest, pixels, black_corners(image), extract(image, keypoints) if keypoints else None)


def black_corners(image: np.ndarray) -> float:
    """Share of RGB uint8 `[H, W, 3]` that rotation has filled with black: flat dark areas that reach into a corner.

    A photograph's own dark corner (a shadow, a vignette) is not flat. 0.0 when the whole picture is dark.
    """
    height, width = image.shape[:2]
    if min(height, width) < 16:
        return 0.0
    red, green, blue = cv2.split(image)
    brightest = cv2.max(cv2.max(red, green), blue)
    found = np.zeros((height + 2, width + 2), np.uint8)
    for x, y in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)):
        if brightest[y, x] <= _BLACK and not found[y + 1, x + 1]:
            flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (255 << 8)
            mask = np.zeros_like(found)
            area, *_ = cv2.floodFill(brightest, mask, (x, y), 0, _FLAT, _FLAT, flags)
            if area >= _LEAST * height * width and _triangle(mask[1:-1, 1:-1], area):
                found |= mask
    share = float((found[1:-1, 1:-1] == 255).mean())
    return share if share <= _MOST else 0.0


def _triangle(mask: np.ndarray, area: int) -> bool:
    """Whether a region is like the triangle that a rotation leaves in a corner; bars and shadows are not.

    It fills its convex hull, and about half of the rectangle around it.
    """
    outline, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    points = np.concatenate(outline)
    drawn = np.zeros_like(mask)
    cv2.fillConvexPoly(drawn, cv2.convexHull(points), 1)
    _, _, width, height = cv2.boundingRect(points)
    return bool(area >= 0.8 * drawn.sum() and 0.3 <= area / (width * height) <= 0.75)
