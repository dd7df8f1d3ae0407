"""What is wrong or odd with the labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from segdet.data.doctor.findings import Case, Finding, Severity
from segdet.data.geometry.boxes import area_of
from segdet.data.learnable import crowds_in, lacking, without_crowds
from segdet.data.records import Box, Dataset, Instance, Kind, Problem, Record, box_of, iterate

_TINY = 16.0  # pixels of area; smaller objects are clicks that went wrong or lost in any resize
_RARE_EMPTY = 0.02  # where fewer images than this are empty, each empty one is suspicious
_FEW = 20  # objects of a class below which its score says little
_VERTICES = 3000  # outlines with more are not searched for crossings (the search is quadratic)
_TABLE = 1_000_000  # pairs of edges looked at together

_AGAIN = "Export or label them again; the objects are background until then."

# What the reader's problems are called here. Boxes among outlines are reported by `_kinds`, image files by `pictures`.
_TOLD: dict[Kind, tuple[str, Severity, str, str]] = {
    "malformed": (
        "label-malformed", "error", "label files, lists or rows that cannot be read",
        "Training refuses the dataset until they are corrected or removed; `fix=FOLDER` writes a copy without them.",
    ),
    "not-finite": ("label-not-finite", "error", "labels with NaN or infinite coordinates", _AGAIN),
    "outside": ("label-outside", "error", "labels outside their image", f"Made for another picture or size? {_AGAIN}"),
    "size": ("size-mismatch", "error", "images whose size is not the one that was labelled", _AGAIN),
    "shape": ("label-shape", "error", "labels whose points or corners make no shape", _AGAIN),
    "mask": ("label-mask", "error", "masks that cannot be used", "Their images are left out. Export the masks again."),
    "class": (
        "label-class", "error", "labels of classes that are not declared", "Correct the class list or the labels.",
    ),
    "no-area": (
        "label-degenerate", "warning", "labels without area",
        "They are left out; `fix=FOLDER` writes a copy without them.",
    ),
    "image-missing": (
        "image-missing", "warning", "images that are listed but not there", "Restore the files or export again.",
    ),
    "unlabelled": (
        "image-unlabelled", "warning", "images without a label file, where others have one",
        "They are left out, because no label says that they show nothing. Label them, or save an empty label.",
    ),
    "orphan": (
        "label-orphan", "warning", "labels of images that are not there or not listed",
        "They belong to nothing; restore the images or export again.",
    ),
    "repeated": ("label-repeated", "note", "labels that repeat an earlier row", "One is kept."),
    "open": (
        "label-open", "note", "kinds of lines and points, which enclose nothing",
        "Neither a mask nor a box comes from them; draw what must be found as polygons.",
    ),
    "ignored": (
        "pixels-ignored", "note", "masks with pixels to be ignored",
        "With one class they count as background, in training and in scores.",
    ),
    "ambiguous": (
        "label-ambiguous", "error", "labels and images that cannot be matched unambiguously",
        "They are left out. Give the files different names, or name the images in the labels with folder and ending.",
    ),
    "stray": ("file-stray", "note", "files that are no label files", "They are not read; nothing to do if they belong there."),
}  # fmt: skip


def check(dataset: Dataset, problems: Sequence[Problem]) -> Iterator[Finding]:
    """Findings about labels; `problems` are the reader's."""
    yield from _left_out(problems)
    yield from _empty(dataset)
    yield from _crossing(dataset)
    yield from _small(dataset)
    yield from _twice(dataset)
    yield from _kinds(dataset)
    yield from _crowds(dataset)
    yield from _classes(dataset)


def _left_out(problems: Sequence[Problem]) -> Iterator[Finding]:
    groups: dict[Kind, list[Case]] = defaultdict(list)
    for problem in problems:
        shown = (problem.image,) if problem.image is not None else ()
        groups[problem.kind].append(Case(shown, f"{problem.path.name}: {problem.what}"))
    for kind, (code, severity, title, advice) in _TOLD.items():
        if groups[kind]:
            cases = tuple(groups[kind])
            yield Finding(code, severity, f"{title} ({len(cases)})", advice, len(cases), cases)


def _empty(dataset: Dataset) -> Iterator[Finding]:
    records = [record for _, record in iterate(dataset)]
    empty = [(split, record) for split, record in iterate(dataset) if not record.instances]
    if records and not empty:
        yield Finding(
            "no-empty-images",
            "note",
            "every image shows an object",
            "How often a model raises false alarms cannot be measured; add pictures without any object.",
            0,
        )
    if not empty:
        return
    cases = tuple(Case((record.image,), f"no label ({split})") for split, record in empty)
    rare = len(empty) < _RARE_EMPTY * len(records)
    yield Finding(
        "empty-labels",
        "warning" if rare else "note",
        f"{_count(len(empty), 'image')} of {len(records)} without any label"
        + (", where nearly every other has one" if rare else f" ({len(empty) / len(records):.0%})"),
        "Look at them: a forgotten label teaches a model to overlook. Without objects they are useful background.",
        len(empty),
        cases,
    )


def _crossing(dataset: Dataset) -> Iterator[Finding]:
    cases = []
    count = 0
    for split, record in iterate(dataset):
        outlines = (polygon for instance in record.instances for polygon in instance.polygons)
        crossed = tuple(box_of([polygon]) for polygon in outlines if crosses_itself(polygon))
        if crossed:
            count += len(crossed)
            cases.append(Case((record.image,), f"{_count(len(crossed), 'outline')} ({split})", marks=crossed))
    if count:
        yield Finding(
            "outline-crossing",
            "note",
            f"{_count(count, 'outline')} crossing themselves, in {_count(len(cases), 'image')}",
            "Parts enclosed twice count as background (even-odd rule). Small loops do no harm.",
            count,
            tuple(cases),
        )


def crosses_itself(polygon: np.ndarray) -> bool:
    """Whether two edges of a closed outline `[P, 2]` properly cross; shared ends and touching do not count."""
    points = np.asarray(polygon, np.float64)
    keep = np.any(points != np.roll(points, 1, axis=0), axis=1)
    points = points[keep]
    n = len(points)
    if not 4 <= n <= _VERTICES:
        return False
    a, b = points, np.roll(points, -1, axis=0)
    low, high = np.minimum(a, b), np.maximum(a, b)
    rows = max(1, _TABLE // n)
    for start in range(0, n - 2, rows):
        i, j = np.arange(start, min(start + rows, n - 2))[:, None], np.arange(n)[None]
        # Edges after the next one whose boxes overlap; the last edge is the first one's neighbour.
        near = (j >= i + 2) & ((i > 0) | (j < n - 1))
        for axis in (0, 1):
            near &= (low[j, axis] <= high[i, axis]) & (high[j, axis] >= low[i, axis])
        i, j = (found.ravel() for found in np.nonzero(near))
        i = i + start
        here = _side(a[i], b[i], a[j]) * _side(a[i], b[i], b[j])
        there = _side(a[j], b[j], a[i]) * _side(a[j], b[j], b[i])
        if ((here < 0) & (there < 0)).any():
            return True
    return False


def _side(a: np.ndarray, b: np.ndarray, p: np.ndarray) -> np.ndarray:
    """On which side of the line from a to b the point p lies: the sign of the cross product."""
    return np.asarray(
        (b[..., 0] - a[..., 0]) * (p[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (p[..., 0] - a[..., 0])
    )


def _small(dataset: Dataset) -> Iterator[Finding]:
    cases = []
    for split, record in iterate(dataset):
        tiny = [instance for instance in record.instances if area_of(instance) < _TINY]
        if tiny:
            note = f"{min(map(area_of, tiny)):.0f} square pixels ({split})"
            cases.append(Case((record.image,), note, marks=tuple(instance.box for instance in tiny)))
    if cases:
        yield Finding(
            "objects-tiny",
            "note",
            f"{_count(len(cases), 'image')} with objects under {_TINY:.0f} square pixels",
            "Slips of the mouse, or too small to be found; look at the ringed places.",
            len(cases),
            tuple(cases),
        )


def _twice(dataset: Dataset) -> Iterator[Finding]:
    cases = []
    for split, record in iterate(dataset):
        seen: set[tuple[int, ...]] = set()
        repeated: list[Box] = []
        for instance in record.instances:
            if not instance.crowd:
                repeated += [instance.box] if _key(instance) in seen else []
                seen.add(_key(instance))
        if repeated:
            note = f"{_count(len(repeated), 'object')} labelled twice ({split})"
            cases.append(Case((record.image,), note, marks=tuple(repeated)))
    if cases:
        yield Finding(
            "objects-twice",
            "warning",
            f"{_count(len(cases), 'image')} with the same object labelled twice",
            "A detector is punished for finding it once. Remove one of the two.",
            len(cases),
            tuple(cases),
        )


def _key(instance: Instance) -> tuple[int, ...]:
    return (instance.label, *(round(value) for value in instance.box), round(area_of(instance)))


def _kinds(dataset: Dataset) -> Iterator[Finding]:
    """Boxes beside outlines: in one image, or in one image and another. Beside a semantic mask they tell its objects apart."""
    if not any(record.outlined for _, record in iterate(dataset)):
        return
    lone = [(s, r) for s, r in iterate(dataset) if not all(i.outlined for i in r.instances) and not _merged(r)]
    mixed = tuple(Case((r.image,), f"boxes without outline ({s})") for s, r in lone if r.outlined)
    boxed = tuple(Case((r.image,), f"boxes only ({s})") for s, r in lone if not r.outlined)
    if mixed:
        yield Finding(
            "kinds-mixed", "warning", f"{_count(len(mixed), 'image')} with boxes only for some objects and outlines for others",
            "For masks a boxed object is background. Outline them, or train a detector.", len(mixed), mixed,
        )  # fmt: skip
    if boxed:
        yield Finding(
            "boxes-only", "note", f"{_count(len(boxed), 'image')} with boxes only, in a set with outlines",
            "Segmentation leaves them out; detection uses them.", len(boxed), boxed,
        )  # fmt: skip


def _merged(record: Record) -> bool:
    return any(instance.merged for instance in record.instances)


def _crowds(dataset: Dataset) -> Iterator[Finding]:
    crowds = [(split, record, crowds_in([record])) for split, record in iterate(dataset)]
    cases = tuple(Case((record.image,), f"{count} ({split})") for split, record, count in crowds if count)
    if cases:
        number = sum(count for _, _, count in crowds)
        every = not any(without_crowds(records) for records in dataset.splits.values())
        yield Finding(
            "crowds-only" if every else "crowds",
            "error" if every else "note",
            f"{'all labels' if every else _count(number, 'region')} marked as crowds (`iscrowd`, `difficult`)"
            + (f" ({number})" if every else ""),
            "They are neither learned nor counted as wrong; masks of a single class take them as objects. "
            "Where they are single objects, set `iscrowd` to 0.",
            number,
            cases,
        )


def _classes(dataset: Dataset) -> Iterator[Finding]:
    counts = {split: without_crowds(records) for split, records in dataset.splits.items()}
    total: Counter[int] = sum(counts.values(), Counter())
    for split in ("train", "val"):
        if dataset.splits.get(split) and not counts[split]:
            yield Finding(
                f"no-objects-{split}",
                "error" if split == "train" else "warning",
                f"no object in the {_count(len(dataset.splits[split]), 'image')} of {split}",
                "There is nothing to learn; training refuses the dataset. Label some."
                if split == "train"
                else "Nothing can be measured there: training keeps the last weights, with threshold 0.5. Label some.",
                len(dataset.splits[split]),
            )
    unused = [name for index, name in enumerate(dataset.classes) if not total[index]]
    if unused:
        yield _class_finding(
            "class-unused", "warning", "without a single object", unused, "Remove them from the list, or label some."
        )
    for split in counts if len(counts) > 1 else ():
        names = lacking(dataset, counts[split], total)
        if names:
            severity: Severity = "error" if split == "train" else "warning"
            advice = "It cannot be learned." if split == "train" else "Its score cannot be measured."
            yield _class_finding("class-lacking", severity, f"without an object in {split}", names, advice)
    train = counts.get("train", total)
    few = [f"{name} ({train[k]})" for k, name in enumerate(dataset.classes) if 0 < train[k] < _FEW]
    if few:
        yield _class_finding(
            "class-rare", "note", f"with fewer than {_FEW} training objects", few, "Expect little of them."
        )


def _class_finding(code: str, severity: Severity, what: str, names: Sequence[str], advice: str) -> Finding:
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    cases = tuple(Case((), name) for name in names)
    word = "class" if len(names) == 1 else "classes"
    return Finding(code, severity, f"{len(names)} {word} {what}: {shown}", advice, len(names), cases)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
