"""Augmentation for detection: crops, turns and light, with the boxes moved along.

Boxes are float32 `[K, 4]` (x1, y1, x2, y2) in pixels. A box stays when its centre lies in the crop, cut to the crop; one that
is then thinner than `THINNEST` pixels at the size the network sees is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from segdet.data.images import crop_resize
from segdet.data.loading.augment import Strength, relit

THINNEST = 1.0
_GREY = (114, 114, 114)
_RESIZES = tuple(range(480, 801, 32))  # DETR's shorter sides, for an image size of 800
_LONGEST = 1333 / 800

Sample = tuple[np.ndarray, np.ndarray, np.ndarray]  # image uint8 [H, W, 3], boxes float32 [K, 4], labels int64 [K]
Window = tuple[float, float, float, float]


@dataclass(frozen=True)
class SquareAugment:
    """For networks that see squares (D-FINE): a part of the image or the image made smaller, stretched to a square.

    quarter_turns: flips and quarter turns in all eight ways; else only left-right flips.
    strength: of the change of light; "none" shows whole images only, as they are.
    """

    quarter_turns: bool = False
    strength: Strength = "standard"

    def __call__(self, sample: Sample, side: int, calm: bool, rng: np.random.Generator) -> Sample:
        """`side`: of the square. `calm`: whole images and no change of light, as at prediction time (last epochs)."""
        image, boxes, labels = sample if self.strength == "none" else turned(sample, rng, self.quarter_turns)
        if not calm and self.strength != "none":
            image = relit(image, rng, self.strength)
            if rng.random() < 0.2:
                image, boxes = zoomed_out(image, boxes, rng)
            elif rng.random() < 0.6:
                return cropped((image, boxes, labels), _part(image, boxes, rng), side, side)
        return cropped((image, boxes, labels), (0.0, 0.0, image.shape[1], image.shape[0]), side, side)


@dataclass(frozen=True)
class AspectAugment:
    """DETR's own: flips, and half the time a crop, then a random size with the aspect kept.

    The size scales with `side` / 800; how much of the image a crop shows does not depend on it.

    strength: "robust" changes the light too; "none" shows whole images only, as they are.
    """

    quarter_turns: bool = False
    strength: Strength = "standard"

    def __call__(self, sample: Sample, side: int, calm: bool, rng: np.random.Generator) -> Sample:
        """`side`: of the largest shorter side. `calm`: no crop and no change of size, as at prediction time."""
        image, boxes, labels = sample if self.strength == "none" else turned(sample, rng, self.quarter_turns)
        window: Window = (0.0, 0.0, image.shape[1], image.shape[0])
        shorter = float(side)
        if not calm and self.strength != "none":
            if self.strength == "robust":
                image = relit(image, rng, self.strength)
            shorter = side * float(rng.choice(_RESIZES)) / 800
            if rng.random() < 0.5:
                window = self._crop(image, rng)
        height, width = aspect_size(window[3] - window[1], window[2] - window[0], shorter)
        return cropped((image, boxes, labels), window, height, width)

    @staticmethod
    def _crop(image: np.ndarray, rng: np.random.Generator) -> Window:
        """384 to 600 pixels each way of the image resized to a shorter side of 400, 500 or 600."""
        height, width = image.shape[:2]
        scale = float(rng.choice((400, 500, 600))) / min(height, width)
        h, w = (min(length, float(rng.uniform(384, 600)) / scale) for length in (height, width))
        x, y = float(rng.uniform(0, width - w)), float(rng.uniform(0, height - h))
        return x, y, x + w, y + h


def aspect_size(height: float, width: float, shorter: float) -> tuple[int, int]:
    """(height, width) with the aspect kept: the shorter side as given, the longer one at most 1333/800 of it."""
    scale = min(shorter / min(height, width), shorter * _LONGEST / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def turned(sample: Sample, rng: np.random.Generator, quarter_turns: bool) -> Sample:
    """One of the eight ways to lay a square, or only the two of left and right."""
    image, boxes, labels = sample
    turns = int(rng.integers(4)) if quarter_turns else 0
    for _ in range(turns):  # counter-clockwise: (x, y) -> (y, width - x)
        width = image.shape[1]
        image = np.rot90(image)
        x1, y1, x2, y2 = boxes.T
        boxes = np.stack([y1, width - x2, y2, width - x1], axis=1)
    if rng.random() < 0.5:
        width = image.shape[1]
        image = image[:, ::-1]
        x1, y1, x2, y2 = boxes.T
        boxes = np.stack([width - x2, y1, width - x1, y2], axis=1)
    return np.ascontiguousarray(image), boxes, labels


def zoomed_out(image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The image somewhere on a grey sheet up to 1.6 times its size each way: objects become small."""
    height, width = image.shape[:2]
    factor = float(rng.uniform(1.0, 1.6))
    down, right = int(height * (factor - 1.0)), int(width * (factor - 1.0))
    y, x = int(rng.integers(down + 1)), int(rng.integers(right + 1))
    sheet = cv2.copyMakeBorder(image, y, down - y, x, right - x, cv2.BORDER_CONSTANT, value=_GREY)
    return sheet, boxes + np.array([x, y, x, y], boxes.dtype)


def cropped(sample: Sample, window: Window, height: int, width: int) -> Sample:
    """The window (x1, y1, x2, y2) of the image, resized (antialiased) to height x width, with its boxes."""
    image, boxes, labels = sample
    x1, y1, x2, y2 = window
    image = crop_resize(image, window, height, width)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = (centre >= (x1, y1)).all(1) & (centre <= (x2, y2)).all(1)
    scale = np.array([width / (x2 - x1), height / (y2 - y1)] * 2, np.float32)
    boxes = (boxes - np.array([x1, y1, x1, y1], np.float32)) * scale
    boxes = boxes.clip(0, np.array([width, height, width, height], np.float32)).astype(np.float32)
    kept = inside & ((boxes[:, 2:] - boxes[:, :2]) >= THINNEST).all(1)
    return image, boxes[kept], labels[kept]


def _part(image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> Window:
    """A window of 40 to 100 % of each side with an object in it if the image has one (whole image when none is found)."""
    height, width = image.shape[:2]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    for _ in range(10):
        h, w = (float(rng.uniform(0.4, 1.0)) * length for length in (height, width))
        if not 0.5 <= (h / height) / (w / width) <= 2.0:
            continue
        x, y = float(rng.uniform(0, width - w)), float(rng.uniform(0, height - h))
        if not len(boxes) or ((centre >= (x, y)) & (centre <= (x + w, y + h))).all(1).any():
            return x, y, x + w, y + h
    return 0.0, 0.0, float(width), float(height)
