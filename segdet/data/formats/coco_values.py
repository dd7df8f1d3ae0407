"""Values of COCO files as tools write them: ids as text or 1.0, outlines in several nestings, run lengths as text or floats."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from segdet.data.formats.class_names import whole
from segdet.data.geometry import masks
from segdet.data.records import Fault

Rle = Mapping[str, Any]


class Outline(NamedTuple):
    """A `segmentation`: its polygons float64 `[2 P]`, its run-length mask, and what is wrong with either."""

    polygons: list[np.ndarray]
    rle: Rle | None
    fault: Fault | None


def identity(value: Any) -> int | None:
    """An id as a whole number (7, 7.0, "7", "000007"), else None."""
    return whole(value) if isinstance(value, (int, float, str)) else None


def flag(value: Any) -> bool:
    """`iscrowd`: anything that is not false or 0, or text for these."""
    return bool(value) and str(value).strip().lower() not in ("", "0", "0.0", "false", "none", "null", "no")


def side(value: Any) -> int | None:
    """A declared width or height; None where it says nothing (0 or missing).

    Raises:
        ValueError: it is not a whole number.
    """
    if value is None or value == "":
        return None
    number = identity(value)
    if number is None:
        raise ValueError
    return number or None


def outline(value: Any, width: int, height: int) -> Outline:
    """The shapes of an annotation's `segmentation`, for an image of this size."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return Outline(
                [], None, Fault("shape", "its segmentation is text, neither an outline nor a run-length mask")
            )
    if isinstance(value, dict):
        return _masks([value], width, height)
    if not isinstance(value, list):
        return Outline([], None, None)
    if value and all(isinstance(part, dict) for part in value):
        return _masks(value, width, height)
    polygons: list[np.ndarray] = []
    fault: Fault | None = None
    for part in _parts(value):
        flat = numbers(part)
        if flat is None or len(flat) % 2:
            fault = Fault("shape", "an outline is not a list of x, y pairs")
        else:
            polygons.append(flat)
    return Outline(polygons, None, fault)


def numbers(value: Any) -> np.ndarray | None:
    """float64 `[n]` from a JSON list of numbers, else None; a number too large for a float counts as infinite."""
    if not isinstance(value, list) or not all(isinstance(v, (int, float)) for v in value):
        return None
    try:
        return np.array(value, np.float64)
    except OverflowError:
        return np.full(len(value), np.inf)


def _parts(value: list[Any]) -> list[Any]:
    """Polygons as lists of numbers: COCO's `[[x, y, ...]]`, and `[x, y, ...]`, `[[x, y], ...]` and `[[[x, y], ...]]`."""
    if value and all(isinstance(v, (int, float)) for v in value):
        return [value]
    if len(value) >= 3 and all(_is_pair(part) for part in value):
        return [[number for pair in value for number in pair]]
    return [
        [number for pair in part for number in pair]
        if isinstance(part, list) and part and all(_is_pair(pair) for pair in part)
        else part
        for part in value
    ]


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, (int, float)) for v in value)


def _masks(parts: list[dict[str, Any]], width: int, height: int) -> Outline:
    found = []
    for part in parts:
        rle, fault = _rle(part, width, height)
        if rle is None:
            return Outline([], None, fault)
        found.append(rle)
    return Outline([], found[0] if len(found) == 1 else masks.union(found), None)


def _rle(part: dict[str, Any], width: int, height: int) -> tuple[Rle | None, Fault | None]:
    """Checked compressed RLE. pycocotools returns uninitialised memory when the counts do not add up."""
    counts, size = part.get("counts"), part.get("size")
    sides = [identity(value) for value in size] if isinstance(size, list) else None
    if sides != [height, width]:
        shown = " ".join(str(size).split())[:40]
        turned = ", width and height exchanged; write [height, width]" if sides == [width, height] else ""
        return None, Fault("size", f"the run-length mask is {shown}, the image [{height}, {width}]{turned}")
    if isinstance(counts, list):
        runs = [identity(count) for count in counts]
        if not _add_up(runs, height * width):
            return None, Fault("shape", "the run lengths do not add up to the image")
        return coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width), None
    if isinstance(counts, str):
        text = _unquoted(counts)
        if not _add_up(_decode_counts(text) or [], height * width):
            return None, Fault("shape", "the run lengths do not add up to the image")
        return {"size": [height, width], "counts": text.encode()}, None
    return None, Fault("shape", "a run-length mask without counts")


def _add_up(runs: list[Any], pixels: int) -> bool:
    return bool(runs) and None not in runs and min(runs) >= 0 and sum(runs) == pixels


def _unquoted(text: str) -> str:
    """Run lengths without the `b'...'` that Python's `str` puts around bytes."""
    if text[:2] not in ("b'", 'b"'):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value.decode("latin-1") if isinstance(value, bytes) else text


def _decode_counts(text: str) -> list[int] | None:
    """Run lengths of a compressed COCO string: 5 bits a character from "0" up, each run a difference from two before."""
    runs: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            if position >= len(text) or not 0 <= ord(text[position]) - 48 < 64 or shift > 40:
                return None
            chunk = ord(text[position]) - 48
            value |= (chunk & 31) << shift
            more = bool(chunk & 32)
            position, shift = position + 1, shift + 5
            if not more and chunk & 16:
                value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs
