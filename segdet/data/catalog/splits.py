"""Splits that keep augmented copies of one photograph together, so that validation never sees what training saw.

Photographs are drawn in strata: sorted by the rarest class they show and then by how much of them is labelled (those
without any object first), and taken evenly from that order. So classes, sizes and negatives stay in proportion.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np

from segdet.data.geometry import rasterize
from segdet.data.records import Dataset, Problem, Record, by_photograph
from segdet.errors import InputError, InvalidOption, setting

HELD_OUT = 0.2  # share of photographs set aside when a dataset comes without a validation split


def parse_fold(text: str) -> tuple[int, int]:
    """`"2/5"` -> (2, 5): the second of five folds.

    Raises:
        InvalidOption: not K/N with 1 <= K <= N and N >= 2.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not (int(match[2]) >= 2 and 1 <= int(match[1]) <= int(match[2])):
        raise InvalidOption("fold", text, "must be K/N, for instance 1/5 for the first of five folds")
    return int(match[1]), int(match[2])


def fold(dataset: Dataset, k: int, n: int, seed: int = 0) -> Dataset:
    """The dataset with train and val redrawn: fold `k` of `n` (from 1) of their photographs is val, the rest train."""
    pool = (*dataset.splits.get("train", ()), *dataset.splits.get("val", ()))
    groups = list(by_photograph(pool).values())
    if len(groups) < n:
        raise InvalidOption("fold", f"{k}/{n}", f"{dataset.name} has only {len(groups)} photographs")
    order = _strata(pool, groups, len(dataset.classes))
    rng = np.random.default_rng(seed)
    # Neighbours in the order go to different folds; the last, incomplete round goes to folds drawn by lot.
    rounds = [rng.permutation(n) for _ in range(0, len(order), n)]
    own = [position for place, position in enumerate(order) if rounds[place // n][place % n] == k - 1]
    return _divide(dataset, pool, {index for position in own for index in groups[position]})


def divide(dataset: Dataset, val: float, test: float = 0.0, seed: int = 0) -> Dataset:
    """The dataset with all its splits redrawn: these shares of its photographs are val and test, the rest train.

    Raises:
        InputError: shares that leave nothing for a split that was asked for.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and 0 < val + test < 1):
        shares = f"{setting('val', f'{val:g}')} {setting('test', f'{test:g}')}"
        raise InputError(f"{shares}: must be shares from 0 to 1 that leave something to train on")
    pool = [record for records in dataset.splits.values() for record in records]
    groups = list(by_photograph(pool).values())
    counts = {split: max(1, round(share * len(groups))) for split, share in (("test", test), ("val", val)) if share}
    if sum(counts.values()) >= len(groups):
        wanted = " and ".join(f"{count} for {split}" for split, count in counts.items())
        raise InputError(f"{dataset.root}: {len(groups)} photographs; {wanted} leave none to train on")
    rng = np.random.default_rng(seed)
    order = _strata(pool, groups, len(dataset.classes))
    place = {}
    for split, count in counts.items():
        taken = _evenly(order, count, rng)
        order = [position for position in order if position not in taken]
        place.update({index: split for position in taken for index in groups[position]})
    splits = {
        split: tuple(record for index, record in enumerate(pool) if place.get(index, "train") == split)
        for split in ("train", "val", "test")
    }
    return replace(dataset, splits={split: records for split, records in splits.items() if records})


def with_validation(dataset: Dataset, seed: int = 0) -> tuple[Dataset, str | None]:
    """The dataset with a val split: its own, or photographs held out of train (then with a note that says so).

    Raises:
        InputError: too few photographs to hold any out, or no train split.
    """
    train = dataset.splits.get("train", ())
    if not train:
        raise InputError(f"{dataset.root}: no training images; it has {', '.join(dataset.splits) or 'nothing'}")
    if dataset.splits.get("val"):
        return dataset, None
    groups = list(by_photograph(train).values())
    if len(groups) < 2:
        raise InputError(
            f"{dataset.root}: {len(groups)} photograph cannot be both trained and validated on; add images"
        )
    count = max(1, round(HELD_OUT * len(groups)))
    taken = _evenly(_strata(train, groups, len(dataset.classes)), count, np.random.default_rng(seed))
    note = f"no validation split: {count} of {len(groups)} photographs held out of train"
    return _divide(dataset, train, {index for position in taken for index in groups[position]}), note


def for_task(dataset: Dataset, task: str) -> Dataset:
    """The dataset as a task can use it: for segmentation without images that have boxes only, and a problem that says so."""
    known = any(record.outlined for records in dataset.splits.values() for record in records)
    if task != "segmentation" or not known:
        return dataset
    splits = {split: outlined(records) for split, records in dataset.splits.items()}
    count = sum(len(records) for records in dataset.splits.values()) - sum(len(records) for records in splits.values())
    if not count:
        return dataset
    what = f"{count} images whose objects have boxes only are no use for segmentation and left out"
    return replace(
        dataset,
        splits={split: records for split, records in splits.items() if records},
        problems=(*dataset.problems, Problem(dataset.root, what, "boxed")),
    )


def outlined(records: Sequence[Record]) -> tuple[Record, ...]:
    """Without the images whose objects have boxes only (three quarters of Pascal VOC).

    As background they would teach, and count, that nothing stands in the boxes.
    """
    return tuple(record for record in records if record.outlined or not record.instances)


def limited(dataset: Dataset, limit: int | None) -> Dataset:
    """At most `limit` images per split, evenly spread over the whole."""
    if limit is None:
        return dataset
    return replace(dataset, splits={split: _spread(records, limit) for split, records in dataset.splits.items()})


def _spread(records: Sequence[Record], limit: int) -> tuple[Record, ...]:
    if len(records) <= limit:
        return tuple(records)
    return tuple(records[index] for index in np.linspace(0, len(records) - 1, limit).round().astype(int))


def _strata(pool: Sequence[Record], groups: Sequence[Sequence[int]], classes: int) -> list[int]:
    """Positions in `groups`, so that neighbours are alike: negatives, then by rarest class, then by labelled share."""
    labels = [{i.label for index in group for i in pool[index].instances} for group in groups]
    shown = Counter(label for some in labels for label in some)
    rank = {label: place for place, (label, _) in enumerate(sorted(shown.items(), key=lambda item: (item[1], item[0])))}
    rarest = [min((rank[label] for label in some), default=-1) for some in labels]
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # drawing leaves the interpreter's lock
        each = list(threads.map(lambda record: _share(record, classes), pool))
    shares = [max(each[index] for index in group) for group in groups]
    return sorted(range(len(groups)), key=lambda position: (rarest[position], shares[position], position))


def _share(record: Record, classes: int) -> float:
    """How much of an image its objects take: of outlined ones the pixels that training sees, whatever layout they are from."""
    if record.outlined:
        return float((rasterize.target(record, classes) % rasterize.IGNORE > 0).mean())
    areas = ((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (instance.box for instance in record.instances))
    return sum(areas) / (record.width * record.height)


def _evenly(order: Sequence[int], count: int, rng: np.random.Generator) -> set[int]:
    """`count` of `order`, one drawn by lot from each of `count` equal stretches of it."""
    edges = np.linspace(0, len(order), count + 1).round().astype(int)
    return {order[int(rng.integers(low, high))] for low, high in pairwise(edges.tolist())}


def _divide(dataset: Dataset, pool: Sequence[Record], val: set[int]) -> Dataset:
    return replace(
        dataset,
        splits={
            **dataset.splits,
            "train": tuple(record for index, record in enumerate(pool) if index not in val),
            "val": tuple(record for index, record in enumerate(pool) if index in val),
        },
    )
