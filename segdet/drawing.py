"""Painting masks and boxes onto photographs, the same way in predictions, samples and reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Colour-blind safe (Okabe & Ito 2008), strongest against grey walls first; RGB.
PALETTE = ((230, 30, 60), (0, 158, 230), (240, 228, 66), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))


_READABLE = 640  # pixels on the longer side from which names on boxes can be read


def colour_of(label: int) -> tuple[int, int, int]:
    """RGB colour of class `label` (0-based); colours repeat after the palette's end."""
    return PALETTE[label % len(PALETTE)]


def overlay(image: np.ndarray, mask: np.ndarray, opacity: float = 0.55) -> np.ndarray:
    """Colour the labelled pixels and outline them.

    Args:
        image: RGB uint8 `[H, W, 3]`. mask: class indices uint8 `[H, W]`, 0 = background.

    Returns:
        RGB uint8 `[H, W, 3]`.
    """
    out = image.copy()
    thickness = max(1, round(max(image.shape[:2]) / 1000))
    for value in np.unique(mask):
        if value == 0:
            continue
        inside = mask == value
        colour = np.array(colour_of(int(value) - 1), np.float32)
        out[inside] = (image[inside] * (1 - opacity) + colour * opacity).astype(np.uint8)
        contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, contours, -1, tuple(int(c) for c in colour), thickness)
    return out


def agreement(image: np.ndarray, prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Where two masks agree: found green, false red, missed blue, over a greyed photograph. RGB uint8 `[H, W, 3]`."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    pale = (np.arange(256) * 0.6 + 90).clip(0, 255).astype(np.uint8)[grey]
    out = cv2.cvtColor(pale, cv2.COLOR_GRAY2RGB)
    rows, columns = np.nonzero((prediction > 0) | (target > 0))
    marked, labelled = prediction[rows, columns], target[rows, columns]
    kind = np.where(marked == 0, 2, np.where(marked == labelled, 0, 1))
    out[rows, columns] = np.array([(0, 150, 80), (220, 40, 40), (30, 90, 220)], np.uint8)[kind]
    return out


def boxes(
    image: np.ndarray,
    corners: np.ndarray,
    colours: Sequence[tuple[int, int, int]],
    captions: Sequence[str] | None = None,
    letters: int = 55,
) -> np.ndarray:
    """Draw boxes, the first on top, each with its caption (unless empty) on a plate of its colour.

    Args:
        image: RGB uint8 `[H, W, 3]`. corners: `[K, 4]` (x1, y1, x2, y2) in pixels.
        letters: how many times the height of the captions the picture's longer side is.

    Returns:
        RGB uint8: the image's size, or a whole multiple of it when the longer side is under 640 pixels, so that lines and
        captions stay small beside the objects.
    """
    factor = -(-_READABLE // max(image.shape[:2]))
    picture = Image.fromarray(np.repeat(np.repeat(image, factor, axis=0), factor, axis=1))
    pen = ImageDraw.Draw(picture)
    side = max(picture.size)
    line = max(2, round(side / (6 * letters)))
    font = ImageFont.load_default(max(12, round(side / letters)))
    for k in reversed(range(len(corners))):
        x1, y1, x2, y2 = (float(value) * factor for value in corners[k])
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colours[k], width=line)
        if captions is not None and captions[k]:
            _plate(pen, captions[k], (x1, y1), colours[k], font, picture.size, line)
    return np.asarray(picture)


def _plate(
    pen: ImageDraw.ImageDraw,
    text: str,
    at: tuple[float, float],
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
    line: int,
) -> None:
    """A caption over the box's corner (left, top), or inside it where there is no room above, never off the picture."""
    left, _, right, _ = pen.textbbox((0, 0), text, font=font)
    _, top, _, bottom = pen.textbbox((0, 0), "Ag", font=font)  # plates of one height, with or without descenders
    width, height = right - left + 2 * line, bottom - top + 2 * line
    # Whole pixels: Pillow cuts letters off that start at a fraction above the picture.
    x = round(max(0.0, min(at[0], size[0] - width)))
    y = round(at[1] - height if at[1] >= height else max(0.0, min(at[1], size[1] - height)))
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    pen.text((x + line - left, y + line - top), text, fill=(0, 0, 0) if bright else (255, 255, 255), font=font)


def grid(pictures: Iterable[np.ndarray], columns: int, side: int = 320) -> np.ndarray:
    """Pictures RGB uint8 of any size in rows of `columns`, each fitted into `side` pixels on white.

    They are taken one by one: give an iterator where they are large.
    """
    from segdet.data.images import resize

    fitted = []
    for picture in pictures:
        scale = side / max(picture.shape[:2])
        fitted.append(resize(picture, *(max(1, round(length * scale)) for length in picture.shape[:2])))
    bands = []
    for row in (fitted[start : start + columns] for start in range(0, len(fitted), columns)):
        band = np.full((max(len(picture) for picture in row) + 4, columns * (side + 4) + 4, 3), 255, np.uint8)
        for column, picture in enumerate(row):
            x = column * (side + 4) + 4
            band[4 : 4 + picture.shape[0], x : x + picture.shape[1]] = picture
        bands.append(band)
    return np.concatenate([*bands, np.full((4, columns * (side + 4) + 4, 3), 255, np.uint8)])
