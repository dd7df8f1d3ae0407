"""Records from pairs of an image and a mask image, for every layout that has them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdet.data.formats import mask_image
from segdet.data.formats.base import consume, header_size
from segdet.data.formats.class_list import ClassList
from segdet.data.formats.mask_colours import UNKNOWN, coding_of
from segdet.data.formats.mask_image import BLACK, Colour, MaskImage
from segdet.data.geometry import masks
from segdet.data.geometry.rasterize import IGNORE
from segdet.data.images import ImageError
from segdet.data.records import Instance, Problem, Record, photograph_of

# Shares of the greys between 0 and 255 that lie between two neighbours in brightness. Measured: smoothed edges 0.83 to 1,
# JPEG's noise 0.63 to 0.85, class numbers at most 0.03, however thin.
_SOFT = 0.55
_MIXED = 0.06
_LEVELS = 16  # a soft mask whose brightest value is below 128 has more levels than resized class numbers
_BRIGHT = 32  # class numbers start below
_SHOWN = 8  # colours listed in a message

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
    doubt: Sequence[Colour] = ()  # colours that may mean more than one thing


def read_pairs(
    splits: Mapping[str, Sequence[Pair]], listed: ClassList | None, root: Path, problems: list[Problem]
) -> tuple[Meaning, dict[str, list[Record]]]:
    """Every pair as a record with one `merged` instance per class that occurs in its mask.

    Masks are decoded here, once: an index that has not looked into them knows neither its classes nor which files are
    damaged. What is kept of each is its run lengths.
    """
    pairs = [(split, *pair) for split, some in splits.items() for pair in some]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding PNG leaves the interpreter's lock
        read = list(pool.map(lambda pair: _read(pair[1], pair[2]), pairs))
    if listed is not None and not listed.objects:
        problems.append(Problem(listed.source, "names no class but the background; add the others", "malformed"))
        listed = None
    if listed is not None:
        problems.extend(_named_twice(listed))
    images = [image for image, _ in read if image is not None]
    blended = _blended(images)
    coding = coding_of(images, listed, blended > _SOFT)
    stored = [coding.values(image) if image is not None else {} for image, _ in read]
    areas: Counter[int] = Counter()
    for regions in stored:
        areas.update({value: masks.area(rle) for value, rle in regions.items() if value != UNKNOWN})
    meaning = meaning_of(areas, listed, blended)
    doubt = coding.doubt or meaning.doubt
    if doubt:
        problems.append(Problem(root, _question(doubt, listed, root), "malformed"))
    ignored = 0
    seen = len(problems)
    records: dict[str, list[Record]] = {split: [] for split in splits}
    for (split, image, mask), (picture, trouble), regions in zip(pairs, read, stored, strict=True):
        problems.extend(trouble)
        if picture is None or doubt:
            continue
        consume(mask)
        strange = sorted(set(regions) - set(meaning.labels) - meaning.ignored - {0, UNKNOWN})
        if UNKNOWN in regions:
            what = f"colour {coding.unknown(picture)} is in no class list; those pixels are ignored"
            problems.append(Problem(mask, what, "class", image))
        if strange and not meaning.threshold:
            what = f"value {strange[0]} is in no class list; those pixels are ignored"
            problems.append(Problem(mask, what, "class", image))
        record = _record(image, picture.size, regions, meaning, (*strange, UNKNOWN))
        ignored += masks.area(record.ignore) if record.ignore is not None else 0
        records[split].append(record)
    if not doubt and not any(record.instances for some in records.values() for record in some):
        problems.extend(_nothing(areas, ignored, problems[seen:], listed, root))
    elif ignored and len(meaning.classes) == 1:
        what = f"{ignored} pixels are marked to be ignored (255); with one class they count as background"
        problems.append(Problem(root, what, "ignored"))
    return meaning, records


def _read(image: Path, mask: Path) -> tuple[MaskImage | None, list[Problem]]:
    """One mask, or what is wrong with the pair."""
    trouble: list[Problem] = []
    size = header_size(image, trouble)
    if size is None:
        return None, trouble
    try:
        picture = mask_image.read(mask)
    except ImageError as error:
        return None, [Problem(mask, str(error).removeprefix(f"{mask}: "), "mask", image)]
    if picture.size != size:
        what = f"is {picture.size[1]}x{picture.size[0]}, but its image {image.name} is {size[1]}x{size[0]}"
        return None, [Problem(mask, what, "size", image)]
    return picture, trouble


def _blended(images: Iterable[MaskImage]) -> float:
    """The share of the greys between 0 and 255 that lie between two neighbours in brightness."""
    between = inner = 0
    for image in images:
        between, inner = between + image.between, inner + image.inner
    return between / max(1, inner)


def _named_twice(listed: ClassList) -> Iterator[Problem]:
    """Names that two values share, and values with a blank name."""
    known: dict[str, int] = {}
    for value, name in listed.objects.items():
        if not name:
            yield Problem(listed.source, f"value {value} has a blank name; name it", "malformed")
        elif known.setdefault(name, value) != value:
            what = f"values {known[name]} and {value} are both {name!r}; give each its own name"
            yield Problem(listed.source, what, "malformed")


def _nothing(
    values: Iterable[int], ignored: int, troubles: Sequence[Problem], listed: ClassList | None, root: Path
) -> Iterator[Problem]:
    """Masks of which not one pixel counts, although something is drawn: training would see background only."""
    unread = next((problem for problem in troubles if problem.kind in ("mask", "class")), None)
    if unread is not None:
        what = f"no mask marks an object; the first that was left out: {unread.path.name}: {unread.what}"
        yield Problem(root, what, "malformed")
    elif ignored and listed is not None:
        named = ", ".join(f"{value} {name}" for value, name in list(listed.objects.items())[:8])
        what = (
            f"the masks hold only {_said(sorted(set(values) - {0}))}, and 255 means ignored; correct {listed.source.name} "
            f"(it names {named}) or the masks"
        )
        yield Problem(listed.source, what, "malformed")


def _question(doubt: Sequence[Colour], listed: ClassList | None, root: Path) -> str:
    """What to write where, so that colours have a meaning; the names are to be replaced."""
    background = BLACK if BLACK in doubt else doubt[0]
    others = [colour for colour in doubt if colour != background]
    grey = all(len(set(colour)) == 1 for colour in doubt)
    seen = ", ".join(str(colour[0] if grey else colour) for colour in [background, *others][:_SHOWN])
    what = f"the masks hold the {'greys' if grey else 'colours'} {seen}{', ...' if len(doubt) > _SHOWN else ''}"
    if listed is not None and listed.source.name == "_classes.csv":
        return f"{what}, and {listed.source.name} names pixel values; export them again"
    named = [("background", background), *((f"class_{k}", colour) for k, colour in enumerate(others[:_SHOWN], 1))]
    rows = " ".join(f"{name}:{','.join(map(str, colour))}::" for name, colour in named)
    source = f"{listed.source.name} has no colours" if listed is not None else "no labelmap.txt says which is which"
    return f"{what}, and {source}; write {root / 'labelmap.txt'} with these lines, and your names in them: {rows}"


def meaning_of(areas: Mapping[int, int], listed: ClassList | None, blended: float = 0.0) -> Meaning:
    """What the values of all masks mean, by the class list if there is one, else by themselves.

    Args:
        areas: pixels of each value.
        blended: the share of the greys between 0 and 255 that lie between two neighbours in brightness.
    """
    values = sorted(set(areas) - {0})
    if listed is None or len(listed.objects) == 1:
        classes = ("foreground",) if listed is None else tuple(listed.objects.values())
        why = f"{len(values)} grey levels, smoothed edges: one class, from 128 on"
        if len(values) > 1 and values[-1] >= 128 and blended > _SOFT:
            return Meaning(classes, {}, frozenset(), why, threshold=True)
    if listed is not None:
        return _listed(values, listed)
    if len(values) <= 1:
        return Meaning(
            ("foreground",), dict.fromkeys(values, 0), frozenset(), f"one class (masks hold {_said(values)})"
        )
    labels = {value: label for label, value in enumerate(v for v in values if v != IGNORE)}
    classes = ("foreground",) if len(labels) == 1 else tuple(f"class_{value}" for value in labels)
    ignored = frozenset({IGNORE}) & set(values)
    # Beside small class numbers 255 is what to ignore; beside other greys it is more likely a class.
    greys = (IGNORE in ignored and min(labels) >= _BRIGHT) or (values[-1] >= 128 and blended > _MIXED)
    dim = values[-1] < 128 and blended > _SOFT and len(values) > _LEVELS
    doubt = [(value,) * 3 for value in sorted(areas, key=lambda value: -areas[value])] if greys or dim else []
    why = f"no class list; masks hold {_said(values)}" + (", 255 is ignored" if ignored else "")
    return Meaning(classes, labels, ignored, why, doubt=tuple(doubt))


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
