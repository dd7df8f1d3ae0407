"""The error browser of a report: every kind of mistake with pictures, largest first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from segdet.data.images import encode_jpeg, read_image, resize
from segdet.data.records import Record
from segdet.drawing import agreement
from segdet.evaluation.mask_errors import MaskError, largest
from segdet.reporting import page

SHOWN = 24  # pictures of each kind
_SIDE = 180  # pixels of a picture on the page
_LEAST = 80  # pixels of the photograph it shows at least, so that the surroundings are seen

# kind -> title with one class, title with several, and what it means
EXPLAINED = {
    "missed": ("Missed", "Missed", "labelled, and nothing is marked near: an end, a stretch or all of it"),
    "false": ("False alarm", "False alarm", "marked, and nothing is labelled near: a joint, a shadow, a stain, or a label that is missing"),
    "broken": ("Broken", "Broken", "a gap in what is one connected line in the labels"),
    "too_wide": ("Too wide", "Too large", "found, but drawn more than 1.5 times as wide as labelled, and by more than 2 px"),
    "too_thin": ("Too thin", "Too small", "found, but labelled more than 1.5 times as wide as drawn, and by more than 2 px"),
}  # fmt: skip
_COLOURS = {"false": "#dc2828", "too_wide": "#dc2828"}

Masks = Callable[[int], tuple[np.ndarray, np.ndarray]]  # index of a record -> prediction and target, uint8 [H, W]


def overview(summary: Mapping[str, Mapping[str, int]], one_class: bool) -> str:
    """A table of the kinds: how many, and how many pixels they get wrong."""
    most = max(1, *(row["pixels"] for row in summary.values()))
    rows = [
        f"<tr><th>{titles[0] if one_class else titles[1]}<td class=n>{summary[kind]['count']}<td class=n>"
        f"{summary[kind]['pixels']:,}<td style='width:22%'><span class=bar style='width:"
        f"{100 * summary[kind]['pixels'] / most:.0f}%;background:{_COLOURS.get(kind, '#1e5adc')}'></span>"
        f"<td class=why>{page.escape(titles[2])}"
        for kind, titles in EXPLAINED.items()
    ]
    return page.table(("Kind", "Number", "Wrong pixels", "", "Meaning"), rows)


def browser(errors: Sequence[MaskError], records: Sequence[Record], masks: Masks, classes: Sequence[str]) -> list[str]:
    """A folded gallery for each kind that occurs: photograph and difference side by side, largest first."""
    shown = {kind: largest(errors, kind)[:SHOWN] for kind in EXPLAINED}
    drawn: dict[int, str] = {}  # by identity; one photograph is open at a time, they may be large
    for index in sorted({error.image for some in shown.values() for error in some}):
        image = read_image(records[index].image)
        pictures = image, agreement(image, *masks(index))
        for error in (error for some in shown.values() for error in some if error.image == index):
            drawn[id(error)] = _shown(error, records[index], pictures, classes)
    out: list[str] = []
    for kind, titles in EXPLAINED.items():
        if not shown[kind]:
            continue
        title = titles[0] if len(classes) == 1 else titles[1]
        count = sum(error.kind == kind for error in errors)
        more = f", the {SHOWN} largest of them" if count > SHOWN else ""
        gallery = "".join(drawn[id(error)] for error in shown[kind])
        out.append(
            f"<details{' open' if not out else ''}><summary><b>{title}</b>{count} times{more}</summary>"
            f"<div class='grid crops'>{gallery}</div></details>"
        )
    return out or ["<p>No error of 30 pixels or more.</p>"]


def _shown(error: MaskError, record: Record, pictures: tuple[np.ndarray, np.ndarray], classes: Sequence[str]) -> str:
    part = _window(error.box, record.size)
    tiles = [_framed(picture, part, error.box) for picture in pictures]
    gap = np.full((tiles[0].shape[0], 4, 3), 128, np.uint8)
    x, y = (error.box[0] + error.box[2]) // 2, (error.box[1] + error.box[3]) // 2
    name = "" if len(classes) == 1 else f"{classes[error.label]}, "
    caption = (
        f"{name}{error.pixels} wrong pixels over a length of {error.length} px; "
        f"image {_short(record.image.name)}, around x {x}, y {y}"
    )
    return page.figure(encode_jpeg(np.concatenate([tiles[0], gap, tiles[1]], axis=1), 80), "jpeg", caption)


def _window(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[slice, slice]:
    """A square part of the image around a box, with a margin, and not smaller than `_LEAST`."""
    side = max(_LEAST, round(1.3 * max(box[2] - box[0], box[3] - box[1])))
    parts = []
    for low, high, length in ((box[1], box[3], size[0]), (box[0], box[2], size[1])):
        extent = min(side, length)
        start = min(max(0, (low + high - extent) // 2), length - extent)
        parts.append(slice(start, start + extent))
    return parts[0], parts[1]


def _framed(picture: np.ndarray, part: tuple[slice, slice], box: tuple[int, int, int, int]) -> np.ndarray:
    """A part of a picture in the page's size, with a frame around the error: several may lie in one part."""
    seen = np.ascontiguousarray(picture[part])
    scale = _SIDE / max(seen.shape[:2])
    tile = resize(seen, *(max(1, round(length * scale)) for length in seen.shape[:2])).copy()
    corner = np.array([part[1].start, part[0].start])
    low, high = ((np.array(point) - corner) * scale for point in (box[:2], box[2:]))
    ends = [tuple(int(value) for value in np.round(point)) for point in (low - 3, high + 3)]
    cv2.rectangle(tile, ends[0], ends[1], (255, 255, 255), 2)
    cv2.rectangle(tile, ends[0], ends[1], (20, 20, 20), 1)
    return tile


def _short(name: str) -> str:
    stem = name.split(".rf.")[0]  # the hash of an export says nothing to a reader
    return stem if len(stem) <= 40 else f"{stem[:18]}…{stem[-18:]}"


def rows(errors: Sequence[MaskError], records: Sequence[Record], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Every error as plain values, largest first: what `errors.csv` holds."""
    return [
        {"image": records[e.image].image.name, "class": classes[e.label], "kind": e.kind, "pixels": e.pixels, "length": e.length,
         **dict(zip(("x1", "y1", "x2", "y2"), e.box, strict=True))}
        for e in sorted(errors, key=lambda error: -error.pixels)
    ]  # fmt: skip
