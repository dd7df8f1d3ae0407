"""What bad light, cheap lenses and messengers do to a photograph, always in the same way: the setting `degrade`.

Every function takes and returns RGB uint8 `[H, W, 3]`; nothing moves, so labels stay true.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from segdet.data.images import encode_jpeg, read_image, resize
from segdet.errors import InvalidOption, nearest

Degrade = Callable[[np.ndarray], np.ndarray]


def dark(image: np.ndarray) -> np.ndarray:
    """50 grey levels less."""
    return cv2.subtract(image, np.full_like(image, 50))


def blur(image: np.ndarray) -> np.ndarray:
    """A Gaussian of 9 pixels (sigma 1.7)."""
    return cv2.GaussianBlur(image, (9, 9), 0)


def half(image: np.ndarray) -> np.ndarray:
    """Half as many pixels a side, and back."""
    height, width = image.shape[:2]
    small = resize(image, max(1, round(height / 2)), max(1, round(width / 2)))
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def jpeg(image: np.ndarray) -> np.ndarray:
    """JPEG of quality 20."""
    return read_image(encode_jpeg(image, 20))


def noise(image: np.ndarray) -> np.ndarray:
    """Sensor noise of deviation 12, the same for the same image."""
    rng = np.random.default_rng(int(image.sum()))
    grain = 12 * rng.standard_normal((*image.shape[:2], 1), dtype=np.float32)
    return np.asarray(np.clip(np.round(image + grain), 0, 255), np.uint8)


def shadow(image: np.ndarray) -> np.ndarray:
    """The lower left half at half the light, with an edge of 3 pixels."""
    height, width = image.shape[:2]
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    side = (y / height - x / width) * min(height, width) / np.sqrt(2)
    light = 1 - 0.5 * np.clip(side / 3 + 0.5, 0, 1)
    return np.asarray(np.round(image * light[..., None]), np.uint8)


KINDS: dict[str, Degrade] = {f.__name__: f for f in (dark, blur, half, jpeg, noise, shadow)}


def named(text: str) -> Degrade:
    """One kind, or several one after another: "dark+blur".

    Raises:
        InvalidOption: an unknown one.
    """
    kinds = text.split("+")
    for kind in kinds:
        if kind not in KINDS:
            reason = f"no such kind{nearest(kind, KINDS) or '.'} Use one of {', '.join(KINDS)}, or several: dark+blur"
            raise InvalidOption("degrade", text, reason)

    def chain(image: np.ndarray) -> np.ndarray:
        for kind in kinds:
            image = KINDS[kind](image)
        return image

    return chain
