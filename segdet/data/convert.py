"""Converting a dataset from one layout to another, with an account of what the new one cannot say."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segdet.data import formats
from segdet.data.geometry import rasterize
from segdet.data.records import Dataset, Record, iterate
from segdet.data.writers import coco, png_mask, voc, yolo
from segdet.data.writers.base import Losses, Names, Writer, label_image
from segdet.errors import InputError, InvalidOption, SegdetError, nearest
from segdet.files import building

TARGETS: dict[str, Writer] = {writer.name: writer for writer in (coco.WRITER, yolo.WRITER, png_mask.WRITER, voc.WRITER)}
COMPARED = 200  # images whose masks are compared with the original unless more are asked for


@dataclass(frozen=True)
class Agreement:
    """How the masks of the new folder, read back, compare with the original's, on the one rasterisation.

    images: how many were compared. iou: foreground, pooled over them; None when nothing is outlined.
    pixels: share of pixels that differ. worst: the image with the lowest IoU below 1, and that.
    """

    images: int
    iou: float | None
    pixels: float
    worst: tuple[str, float] | None


@dataclass(frozen=True)
class Report:
    """What `convert` did: images by split, what was lost (sentence -> count), and how well the masks agree."""

    target: str
    folder: Path
    splits: Mapping[str, int]
    losses: Mapping[str, int]
    problems: tuple[str, ...]
    agreement: Agreement

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        agreement = {**vars(self.agreement), "rasterizer": rasterize.NAME}
        return {
            "format": self.target,
            "folder": str(self.folder),
            "splits": dict(self.splits),
            "losses": dict(self.losses),
            "problems": list(self.problems),
            "agreement": agreement,
        }


def convert(
    dataset: Dataset,
    folder: Path,
    target: str,
    compare: int | None = COMPARED,
    advance: Callable[[int], None] = lambda count: None,
) -> Report:
    """Write `dataset` in another layout, read it back and compare. The folder appears only once all that is done.

    Args:
        target: one of `TARGETS`.
        compare: how many images, spread over the dataset, have their masks compared; None = all.
        advance: called with 1 for every image copied, and again for every image labelled.

    Raises:
        InputError: an unknown target, a folder that is not empty or lies inside the dataset, a class the target cannot
            name. SegdetError: what was written is not what was read (a fault of segdet); nothing is left then.
    """
    if target not in TARGETS:
        known = f"{nearest(target, TARGETS) or '.'} Known: {', '.join(TARGETS)}"
        raise InvalidOption("to", target, f"no such format{known}")
    if folder.resolve().is_relative_to(dataset.root.resolve()):
        raise InputError(f"{folder}: is inside the dataset {dataset.root}; choose a folder outside it")
    writer = TARGETS[target]
    losses = Losses()
    dataset = _each_once(dataset, losses)
    with building(folder) as root:
        names = _copy(dataset, root, writer, losses, advance)
        writer.write(dataset, root, names, losses, lambda: advance(1))
        back = formats.read(root, dataset.name)
        agreement = _compare(dataset, back, names, compare)
        if back.classes != dataset.classes:
            losses.add(
                "classes that have another name or place now",
                len(set(enumerate(dataset.classes)) ^ set(enumerate(back.classes))),
            )
    splits = {split: len(records) for split, records in dataset.splits.items()}
    shown = tuple(str(problem).replace(str(root), str(folder)) for problem in back.problems)
    return Report(target, folder, splits, dict(losses.counts), shown, agreement)


def _each_once(dataset: Dataset, losses: Losses) -> Dataset:
    """Lists may name an image twice; it stays in the first split that does."""
    seen: set[Path] = set()
    splits: dict[str, tuple[Record, ...]] = {}
    for split, records in dataset.splits.items():
        own = {record.image: record for record in records if record.image not in seen}
        losses.add("images listed more than once, kept once", len(records) - len(own))
        seen |= own.keys()
        splits[split] = tuple(own.values())
    return replace(dataset, splits={split: records for split, records in splits.items() if records})


def _copy(dataset: Dataset, root: Path, writer: Writer, losses: Losses, advance: Callable[[int], None]) -> Names:
    """Copy the images byte for byte under names whose stems differ, since labels are found by them."""
    names: dict[Path, str] = {}
    taken: set[tuple[str, str]] = set()
    for split, record in iterate(dataset):
        folder = writer.images(split)
        name, number = record.image.name, 1
        while (folder, Path(name).stem.lower()) in taken:
            number += 1
            name = f"{record.image.stem}-{number}{record.image.suffix}"
        losses.add("images renamed, for another has the same name", int(number > 1))
        taken.add((folder, Path(name).stem.lower()))
        names[record.image] = name
        (root / folder).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(record.image, root / folder / name)
        advance(1)
    return names


def _compare(before: Dataset, after: Dataset, names: Names, count: int | None) -> Agreement:
    """Masks of both, image by image: ignored pixels of the original do not count.

    Raises:
        SegdetError: an image is missing.
    """
    there = {(split, record.image.name): record for split, record in iterate(after)}
    pairs: list[tuple[Record, Record]] = []
    for split, record in iterate(before):
        twin = there.get((split, names[record.image]))
        if twin is None or twin.size != record.size:
            raise SegdetError(f"{record.image}: not found again in what was written; nothing is kept. Please report it")
        pairs.append((record, twin))
    if count is not None and len(pairs) > count:
        pairs = [pairs[index] for index in np.linspace(0, len(pairs) - 1, count).astype(int)] if count else []
    inter = union = differing = pixels = 0
    worst: tuple[str, float] | None = None
    for record, twin in pairs:
        first, second = (label_image(item, len(before.classes)) for item in (record, twin))
        known = first != rasterize.IGNORE
        marked = known & ((first > 0) | (second > 0))
        same = int((first == second)[marked].sum())
        inter, union = inter + same, union + int(marked.sum())
        differing, pixels = differing + int((first != second)[known].sum()), pixels + int(known.sum())
        if same < marked.sum() and (worst is None or same / int(marked.sum()) < worst[1]):
            worst = (record.image.name, same / int(marked.sum()))
    return Agreement(len(pairs), inter / union if union else None, differing / pixels if pixels else 0.0, worst)
