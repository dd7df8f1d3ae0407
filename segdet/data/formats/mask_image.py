"""Mask images, file by file: their values and colours, with a plausibility test wherever a file leaves room for a guess.

What several files mean together is decided in `mask_records`. Here transparency becomes background, JPEG becomes black and
white where it is nearly that already, and wide samples become 8 bits where nothing is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segdet.data.geometry import masks
from segdet.data.geometry.rasterize import IGNORE
from segdet.data.images import ImageError, Stored, read_stored

Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)

_MOST_COLOURS = 1024  # a mask with more colours is a photograph or an overlay
_PHOTOGRAPH = 100  # under varying transparency, more colours than this are a cut-out photograph
_EXPORT = "save the masks as PNG"
_NEAR = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class MaskImage:
    """One mask image.

    regions: run-length mask of each value, or of each colour as 0xRRGGBB where the file has no values.
    colours: the colour of each key of `regions`.
    numbered: the keys are values from 0 to 255.
    palette: the values have colours of their own, which need not mean anything.
    between, inner: pixels brighter than one neighbour and darker than another; all pixels neither 0 nor 255.
    """

    size: tuple[int, int]
    regions: Mapping[int, Mapping[str, Any]]
    colours: Mapping[int, Colour]
    numbered: bool
    palette: bool
    between: int
    inner: int

    def by_colour(self) -> dict[Colour, Mapping[str, Any]]:
        """Run-length mask of each colour."""
        parts: dict[Colour, list[Mapping[str, Any]]] = {}
        for key, rle in self.regions.items():
            parts.setdefault(self.colours[key], []).append(rle)
        return {colour: some[0] if len(some) == 1 else masks.union(some) for colour, some in parts.items()}


def read(path: Path) -> MaskImage:
    """Decode one mask image.

    Raises:
        ImageError: it is not an image, is damaged, or cannot be a mask.
    """
    stored = read_stored(path)
    pixels, numbered, palette = _pixels(path, stored)
    regions = masks.regions(pixels)
    colours: dict[int, Colour] = {}
    for key in regions:
        if palette is not None:
            red, green, blue = (int(channel) for channel in palette[key])
        else:
            red, green, blue = (key, key, key) if numbered else (key >> 16, key >> 8 & 255, key & 255)
        colours[key] = (red, green, blue)
    if palette is not None:
        between, inner = 0, 0  # a palette's neighbours in number are no neighbours in brightness
    else:
        between, inner = _blended(pixels if numbered else _brightness(pixels))
    return MaskImage(pixels.shape[:2], regions, colours, numbered, palette is not None, between, inner)


def read_numbers(path: Path) -> np.ndarray:
    """int32 `[H, W]`: a mask whose values or colours only tell objects apart.

    Raises:
        ImageError: it is not an image, or is damaged.
    """
    samples = read_stored(path).samples
    return samples.astype(np.int32) if samples.ndim == 2 else _packed(samples)


def _pixels(path: Path, stored: Stored) -> tuple[np.ndarray, bool, np.ndarray | None]:
    """Values uint8 `[H, W]`, True and their palette; or colours int32 `[H, W]` (0xRRGGBB), False and None."""
    samples = stored.samples
    if stored.alpha is not None:
        marked = stored.alpha.astype(np.int32) * 2 >= max(1, int(stored.alpha.max()))
        if not marked.any():
            return np.zeros(marked.shape, np.uint8), True, None
        if not marked.all():
            return _opaque(samples, stored.palette, marked)
    if stored.lossy:
        return _black_and_white(path, samples), True, None
    if samples.ndim == 2:
        return _eight_bits(path, samples), True, stored.palette
    if (samples == samples[..., :1]).all():
        return np.ascontiguousarray(samples[..., 0]), True, None
    return _countable(path, _packed(samples)), False, None


def _opaque(
    samples: np.ndarray, palette: np.ndarray | None, marked: np.ndarray
) -> tuple[np.ndarray, bool, np.ndarray | None]:
    """As `_pixels`: transparent pixels are background; the others keep their colour where it tells them apart."""
    if palette is not None and not (marked & (samples == 0)).any():
        return np.where(marked, samples, 0), True, np.concatenate([[BLACK], palette[1:]]).astype(np.uint8)
    if palette is not None:
        colours = _packed(palette[samples])
    else:
        grey = samples if samples.dtype == np.uint8 else samples.astype(bool).astype(np.uint8) * 255
        colours = _packed(grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=2))
    seen = _distinct(colours[marked])
    if len(seen) > _PHOTOGRAPH or not seen.any():  # a cut-out photograph, or black strokes on a transparent sheet
        return np.where(marked, 255, 0).astype(np.uint8), True, None
    colours = np.where(marked, colours, 0)
    greys = np.array_equal(seen >> 16, seen & 255) and np.array_equal(seen >> 8 & 255, seen & 255)
    return ((colours & 255).astype(np.uint8), True, None) if greys else (colours, False, None)


def _black_and_white(path: Path, samples: np.ndarray) -> np.ndarray:
    """A JPEG as 0 and 255: it blends neighbours, so that it cannot hold class numbers or exact colours."""
    if samples.ndim == 3 and (np.ptp(samples, axis=2) > 64).any():
        raise ImageError(f"{path}: a coloured JPEG, whose colours are not exact; {_EXPORT}")
    grey = samples if samples.ndim == 2 else samples.mean(axis=2).astype(np.uint8)
    highest = int(grey.max())
    if 0 < highest < 128 and np.ptp(grey):
        raise ImageError(
            f"{path}: a JPEG with values from 0 to {highest}; JPEG cannot hold class numbers (nor dim masks); {_EXPORT}"
        )
    middle = (grey > 32) & (grey < 223)
    flat = middle & (cv2.dilate(grey, _NEAR) - cv2.erode(grey, _NEAR) <= 8)
    if int(np.count_nonzero(flat)) * 10 > int(np.count_nonzero(grey > 32)):
        level = int(np.median(grey[flat]))
        raise ImageError(f"{path}: a JPEG with grey areas (around {level}); JPEG cannot hold class numbers; {_EXPORT}")
    return np.where(grey >= 128, 255, 0).astype(np.uint8)


def _eight_bits(path: Path, samples: np.ndarray) -> np.ndarray:
    """Values of any type as uint8; 65535 is white (or "ignore"), as 255 is."""
    if samples.dtype in (np.uint8, bool):
        return np.ascontiguousarray(samples, np.uint8)
    low, high = samples.min(), samples.max()
    if samples.dtype.kind == "f":
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ImageError(f"{path}: holds NaN or infinity; {_EXPORT} with class numbers from 0 to 255")
        if low >= 0 and high <= 1 and (samples != samples.round()).any():  # probabilities
            return np.asarray((samples * 255).round(), np.uint8)
        if (samples != samples.round()).any():
            raise ImageError(
                f"{path}: holds fractions from {low:g} to {high:g}; {_EXPORT} with class numbers from 0 to 255"
            )
    if low >= 0 and high <= 255:
        return np.ascontiguousarray(samples, np.uint8)
    if low >= 0 and high == 65535:
        small = samples <= 255
        if (small | (samples == 65535)).all():
            return np.where(small, samples, IGNORE).astype(np.uint8)
        scaled = (samples.astype(np.float64) / 257).round()
        if (samples % 257 == 0).all() or (_blended(scaled.astype(np.uint8))[0] > 0):
            return np.asarray(scaled, np.uint8)
    raise ImageError(f"{path}: values from {low:g} to {high:g}; {_EXPORT} with class numbers from 0 to 255")


def _packed(colours: np.ndarray) -> np.ndarray:
    """uint8 `[..., 3]` -> int32 `[...]`, 0xRRGGBB."""
    wide = colours.astype(np.int32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])


def _brightness(packed: np.ndarray) -> np.ndarray:
    """The highest channel of each colour, uint8 `[H, W]`, scaled so that the brightest colour has 255."""
    highest = np.maximum(np.maximum(packed >> 16, packed >> 8 & 255), packed & 255)
    return np.asarray(highest * 255 // max(1, int(highest.max())), np.uint8)


def _countable(path: Path, packed: np.ndarray) -> np.ndarray:
    count = len(_distinct(packed))
    if count > _MOST_COLOURS:
        what = f"holds {count} colours, as a photograph or an overlay does; {_EXPORT} with one colour for each class"
        raise ImageError(f"{path}: {what}")
    return packed


def _distinct(values: np.ndarray) -> np.ndarray:
    """The different values, ascending; repetitions are dropped before anything is sorted."""
    flat = values.ravel()
    return np.unique(np.concatenate([flat[:1], flat[1:][flat[1:] != flat[:-1]]]))


def _blended(values: np.ndarray) -> tuple[int, int]:
    """How many pixels lie strictly between two neighbours in brightness, and how many are neither 0 nor 255.

    Nearly all greys on a smoothed edge lie between; those of an area with a class number hardly ever do.
    """
    inner = (values > 0) & (values < 255)
    count = int(np.count_nonzero(inner))
    if not count:
        return 0, 0
    between = inner & (cv2.erode(values, _NEAR) < values) & (values < cv2.dilate(values, _NEAR))
    return int(np.count_nonzero(between)), count
