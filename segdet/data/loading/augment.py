"""Augmentation for segmentation: what may happen to a photograph without changing what a person would label.

The only module that imports albumentations (2.0.8, MIT, the last free release). Scaling is done by the project's own
antialiased resize; albumentations does flips, quarter turns, light, blur and compression, none of which resample masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import albumentations as A
import cv2
import numpy as np

from segdet.data.images import crop_resize

Strength = Literal["none", "standard", "robust"]
"""How much is changed: nothing but the crop, what a camera does, or what photographs taken anywhere by anyone show."""


@dataclass(frozen=True)
class SegmentationAugment:
    """Random crop at a random scale, turns, light, blur and JPEG; the same seed gives the same sample.

    size: side of the square crop, in pixels.
    quarter_turns: flips and quarter turns in all eight ways (surfaces, aerial views); else only left-right flips.
    soft: the target is coverage (resized smoothly); else class indices (resized to the nearest).
    scale: smallest and largest enlargement. stretch: largest change of the sides' ratio, as a logarithm.
    strength: "none" leaves turns, light, blur and JPEG out; "robust" makes them stronger.
    calm: share of the samples that are only turned: their scale, light and sharpness stay as they are.
    """

    size: int
    quarter_turns: bool = True
    soft: bool = True
    scale: tuple[float, float] = (0.7, 1.4)
    stretch: float = 0.1
    strength: Strength = "standard"
    calm: float = 0.0

    @classmethod
    def named(
        cls, strength: Strength, size: int, quarter_turns: bool, soft: bool,
        calm: float = 0.0, enlarge: float | None = None,
    ) -> SegmentationAugment:  # fmt: skip
        """The augmentation of that strength, with the scales that belong to it; `enlarge`: another largest scale."""
        low, high, stretch = (0.5, 2.0, 0.25) if strength == "robust" else (0.7, 1.4, 0.1)
        return cls(size, quarter_turns, soft, (low, enlarge or high), stretch, strength, calm)

    def __call__(self, image: np.ndarray, target: np.ndarray, seed: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """image uint8 `[H, W, 3]`, target uint8 `[H, W]` -> the same at `[size, size]`."""
        rng = np.random.default_rng(seed)
        calm = self.calm > 0 and rng.random() < self.calm
        image, target = self._crop(image, target, rng, as_is=calm or self.strength == "none")
        if self.strength == "none":
            return np.ascontiguousarray(image), np.ascontiguousarray(target)
        pipeline = _pipeline("all" if self.quarter_turns else "flip", "none" if calm else self.strength)
        pipeline.set_random_seed(int(rng.integers(2**31)))
        out = pipeline(image=image, mask=target)
        return np.ascontiguousarray(out["image"]), np.ascontiguousarray(out["mask"])

    def _crop(
        self, image: np.ndarray, target: np.ndarray, rng: np.random.Generator, as_is: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        # Images smaller than the crop are mirrored outwards: a black border would teach the network edges.
        short = min(image.shape[:2])
        scale = aspect = 1.0
        if not as_is:
            low = max(self.scale[0], min(1.0, self.size / short))
            scale = float(np.exp(rng.uniform(np.log(low), np.log(max(self.scale[1], low)))))
            aspect = float(np.exp(rng.uniform(-self.stretch, self.stretch) / 2))
        height = min(self.size / (scale * aspect), float(max(image.shape[0], self.size)))
        width = min(self.size / (scale / aspect), float(max(image.shape[1], self.size)))
        bottom = max(0, int(np.ceil(height)) - image.shape[0])
        right = max(0, int(np.ceil(width)) - image.shape[1])
        if bottom or right:
            image, target = (_mirror(array, bottom, right) for array in (image, target))
        x = float(rng.uniform(0, image.shape[1] - width)) if image.shape[1] > width else 0.0
        y = float(rng.uniform(0, image.shape[0] - height)) if image.shape[0] > height else 0.0
        if as_is:
            x, y = float(int(x)), float(int(y))  # whole pixels: nothing is resampled
        box = (x, y, min(x + width, image.shape[1]), min(y + height, image.shape[0]))
        image = crop_resize(image, box, self.size, self.size)
        return image, crop_resize(target, box, self.size, self.size) if self.soft else _nearest(target, box, self.size)


def _mirror(array: np.ndarray, bottom: int, right: int) -> np.ndarray:
    """Extend by reflection; cv2 repeats the reflection when the border is wider than the image."""
    return cv2.copyMakeBorder(
        array, 0, bottom, 0, right, cv2.BORDER_REFLECT_101 if min(array.shape[:2]) > 1 else cv2.BORDER_REPLICATE
    )


def _nearest(index: np.ndarray, box: tuple[float, float, float, float], size: int) -> np.ndarray:
    x1, y1, x2, y2 = box
    columns = np.clip(x1 + (np.arange(size) + 0.5) * (x2 - x1) / size, 0, index.shape[1] - 1).astype(int)
    rows = np.clip(y1 + (np.arange(size) + 0.5) * (y2 - y1) / size, 0, index.shape[0] - 1).astype(int)
    return np.asarray(index[rows[:, None], columns[None, :]])


_PIPELINES: dict[tuple[str, Strength], A.Compose] = {}


def relit(image: np.ndarray, rng: np.random.Generator, strength: Strength = "standard") -> np.ndarray:
    """RGB uint8 `[H, W, 3]` with other light, colours, blur, noise or compression; nothing moves."""
    pipeline = _pipeline("none", strength)
    pipeline.set_random_seed(int(rng.integers(2**31)))
    return np.ascontiguousarray(pipeline(image=image)["image"])


def _pipeline(turns: str, strength: Strength) -> A.Compose:
    """`turns`: "all" eight, "flip" from left to right, or "none"; strength "none": nothing but them.

    Built once a process: building costs more than a sample.
    """
    if (turns, strength) not in _PIPELINES:
        moves = {"all": [A.D4(p=1.0)], "flip": [A.HorizontalFlip(p=0.5)], "none": []}[turns]
        light = {"none": list, "standard": _light, "robust": _hard_light}[strength]()
        _PIPELINES[turns, strength] = A.Compose([*moves, *light])
    return _PIPELINES[turns, strength]


def _light() -> list[A.BasicTransform | A.BaseCompose]:
    return [
        A.OneOf(
            [
                A.RandomBrightnessContrast(brightness_limit=0.25, contrast_limit=0.25),
                A.RandomGamma(gamma_limit=(70, 140)),
                A.HueSaturationValue(hue_shift_limit=10, sat_shift_limit=30, val_shift_limit=25),
                A.ToGray(),
            ],
            p=0.6,
        ),
        A.RandomShadow(p=0.05),
        A.OneOf(
            [
                A.GaussianBlur(sigma_limit=(0.3, 1.5)),
                A.MotionBlur(blur_limit=(3, 5)),
                A.GaussNoise(std_range=(0.01, 0.04)),
            ],
            p=0.2,
        ),
        A.ImageCompression(quality_range=(50, 95), p=0.2),
    ]


def _hard_light() -> list[A.BasicTransform | A.BaseCompose]:
    # A third of the samples keep their sharpness: most photographs are sharp, and hairlines need to be learnt.
    return [
        A.OneOf(
            [
                A.RandomBrightnessContrast(brightness_limit=(-0.45, 0.25), contrast_limit=0.35),
                A.RandomBrightnessContrast(brightness_limit=(-0.35, -0.1), contrast_limit=0.1),
                A.RandomGamma(gamma_limit=(55, 180)),
                A.HueSaturationValue(hue_shift_limit=15, sat_shift_limit=40, val_shift_limit=30),
                A.RandomToneCurve(scale=0.2),
                A.ToGray(),
            ],
            p=0.75,
        ),
        A.RandomShadow(shadow_intensity_range=(0.25, 0.65), num_shadows_limit=(1, 3), p=0.15),
        A.OneOf(
            [
                A.GaussianBlur(sigma_limit=(0.3, 2.6)),
                A.MotionBlur(blur_limit=(3, 9)),
                A.Downscale(
                    scale_range=(0.35, 0.9),
                    interpolation_pair={"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR},
                ),
            ],
            p=0.4,
        ),
        A.GaussNoise(std_range=(0.01, 0.07), p=0.2),
        A.ImageCompression(quality_range=(30, 95), p=0.3),
    ]
