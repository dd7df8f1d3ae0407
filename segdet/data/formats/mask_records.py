"""Records from pairs of an image and a mask image, for every layout that has them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segdet.data import masks
from segdet.data.formats.base import consume, header_size
from segdet.data.formats.class_list import VOC_COLOURS, ClassList, Colour
from segdet.data.images import ImageError, read_label_image
from segdet.data.rasterize import IGNORE
from segdet.data.records import Instance, Problem, Record, photograph_of

_GREY = 100  # more different values than this, and no class list: a smooth grey mask rather than class numbers

Pair = tuple[Path, Path]  # image, mask
Regions = Mapping[int, Mapping[str, Any]]  # run-length mask by stored value


@dataclass(frozen=True)
class Meaning:
    """What stored values mean: the classes, label by value, the values to ignore, and a sentence that says why."""

    classes: tuple[str, ...]
    labels: Mapping[int, int]
    ignored: frozenset[int]
    why: str
    threshold: bool = False  # smooth grey masks: one class, from 128 on


def read_pairs(
    splits: Mapping[str, Sequence[Pair]], listed: ClassList | None, root: Path, problems: list[Problem]
) -> tuple[Meaning, dict[str, list[Record]]]:
    """Every pair as a record with one `merged` instance per class that occurs in its mask.

    Masks are decoded here, once: an index that has not looked into them knows neither its classes nor which files are
    damaged. What is kept of each is its run lengths.
    """
    colours = VOC_COLOURS if listed is None else listed.colours
    pairs = [(split, *pair) for split, some in splits.items() for pair in some]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding PNG leaves the interpreter's lock
        read = list(pool.map(lambda pair: _read(pair[1], pair[2], colours), pairs))
    found: Counter[int] = Counter()
    for regions, _, _ in read:
        if regions is not None:
            found.update({value: masks.area(rle) for value, rle in regions.items()})
    if listed is not None and not listed.objects:
        problems.append(Problem(listed.source, "names no class but the background; add the others", "malformed"))
        listed = None
    meaning = meaning_of(found.keys(), listed)
    ignored = 0
    records: dict[str, list[Record]] = {split: [] for split in splits}
    for (split, image, mask), (regions, size, trouble) in zip(pairs, read, strict=True):
        problems.extend(trouble)
        if regions is None or size is None:
            continue
        consume(mask)
        strange = sorted(set(regions) - set(meaning.labels) - meaning.ignored - {0})
        if strange and not meaning.threshold:
            what = f"value {strange[0]} is in no class list; those pixels are ignored"
            problems.append(Problem(mask, what, "class", image))
        record = _record(image, size, regions, meaning, strange)
        ignored += masks.area(record.ignore) if record.ignore is not None else 0
        records[split].append(record)
    if ignored and len(meaning.classes) == 1:
        what = f"{ignored} pixels are marked to be ignored (255); with one class they count as background"
        problems.append(Problem(root, what, "ignored"))
    return meaning, records


def _read(
    image: Path, mask: Path, colours: Mapping[Colour, int]
) -> tuple[Regions | None, tuple[int, int] | None, list[Problem]]:
    """The regions of one mask and its image's size, or what is wrong with the pair."""
    trouble: list[Problem] = []
    size = header_size(image, trouble)
    if size is None:
        return None, None, trouble
    try:
        index = read_label_image(mask)
    except ImageError as error:
        return None, size, [Problem(mask, str(error).removeprefix(f"{mask}: "), "mask", image)]
    if index.shape[:2] != size:
        what = f"is {index.shape[1]}x{index.shape[0]}, but its image {image.name} is {size[1]}x{size[0]}"
        return None, size, [Problem(mask, what, "size", image)]
    if index.ndim == 3:
        if not colours:
            what = "coloured, and no labelmap.txt says which colour is which class"
            return None, size, [Problem(mask, what, "mask", image)]
        index, unknown = _indexed(index, colours)
        if unknown is not None:
            what = f"colour {unknown} is in no class list; those pixels are ignored"
            trouble.append(Problem(mask, what, "class", image))
    return masks.regions(index), size, trouble


def _indexed(picture: np.ndarray, colours: Mapping[Colour, int]) -> tuple[np.ndarray, Colour | None]:
    """RGB uint8 `[H, W, 3]` -> values uint8 `[H, W]`, and the first colour that has none (those pixels become 255)."""
    packed = picture[..., 0].astype(np.int32) << 16 | picture[..., 1].astype(np.int32) << 8 | picture[..., 2]
    present, inverse = np.unique(packed, return_inverse=True)
    values = np.full(len(present), IGNORE, np.uint8)
    unknown: Colour | None = None
    for place, code in enumerate(present.tolist()):
        colour = (code >> 16, code >> 8 & 255, code & 255)
        if colour in colours:
            values[place] = colours[colour]
        elif unknown is None and colour != (224, 224, 192):  # the border of Pascal VOC's objects
            unknown = colour
    return values[inverse].reshape(packed.shape), unknown


def meaning_of(found: Iterable[int], listed: ClassList | None) -> Meaning:
    """What the values that were `found` in all masks mean, by the class list if there is one, else by themselves."""
    values = sorted(set(found) - {0})
    if listed is not None:
        return _listed(values, listed)
    if len(values) > _GREY:
        return Meaning(
            ("foreground",), {}, frozenset(), f"{len(values)} grey levels: one class, from 128 on", threshold=True
        )
    if len(values) <= 1:
        return Meaning(
            ("foreground",), dict.fromkeys(values, 0), frozenset(), f"one class (masks hold {_said(values)})"
        )
    labels = {value: label for label, value in enumerate(v for v in values if v != IGNORE)}
    classes = ("foreground",) if len(labels) == 1 else tuple(f"class_{value}" for value in labels)
    ignored = frozenset({IGNORE}) & set(values)
    return Meaning(
        classes, labels, ignored, f"no class list; masks hold {_said(values)}" + (", 255 is ignored" if ignored else "")
    )


def _listed(values: Sequence[int], listed: ClassList) -> Meaning:
    named = listed.objects
    why = f"classes from {listed.source.name}"
    if len(named) == 1 and len(values) == 1:  # whatever its number: 0/1 and 0/255 are both common
        return Meaning(tuple(named.values()), {values[0]: 0}, frozenset(), f"{why}; masks hold {_said(values)}")
    if set(named) == {0}:
        named = {1: named[0]}
    labels = {value: label for label, value in enumerate(sorted(named))}
    return Meaning(tuple(named[value] for value in labels), labels, frozenset({IGNORE}) - set(named), why)


def _said(values: Sequence[int]) -> str:
    shown = "/".join(str(value) for value in [0, *values][:8])
    return shown + ("/..." if len(values) > 7 else "")


def _record(image: Path, size: tuple[int, int], regions: Regions, meaning: Meaning, strange: Sequence[int]) -> Record:
    height, width = size
    by_label: dict[int, list[Mapping[str, Any]]] = {}
    ignored: list[Mapping[str, Any]] = []
    for value, rle in regions.items():
        if meaning.threshold:
            if value >= 128:
                by_label.setdefault(0, []).append(rle)
        elif value in meaning.labels:
            by_label.setdefault(meaning.labels[value], []).append(rle)
        elif value in meaning.ignored or value in strange:
            ignored.append(rle)
    instances = []
    for label in sorted(by_label):
        rle = by_label[label][0] if len(by_label[label]) == 1 else masks.union(by_label[label])
        instances.append(Instance(label, (), masks.box(rle), rle, merged=True))
    ignore = masks.union(ignored) if ignored else None
    return Record(image, width, height, tuple(instances), photograph_of(image), ignore)
