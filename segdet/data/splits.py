"""Splits that keep augmented copies of one photograph together, so that validation never sees what training saw."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segdet.data.records import Dataset, Record, by_photograph
from segdet.errors import InputError

HELD_OUT = 0.2  # share of photographs set aside when a dataset comes without a validation split


def parse_fold(text: str) -> tuple[int, int]:
    """`"2/5"` -> (2, 5): the second of five folds.

    Raises:
        InputError: not K/N with 1 <= K <= N and N >= 2.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not (int(match[2]) >= 2 and 1 <= int(match[1]) <= int(match[2])):
        raise InputError(f"--fold {text}: write K/N, for instance 1/5 for the first of five folds")
    return int(match[1]), int(match[2])


def fold(dataset: Dataset, k: int, n: int, seed: int = 0) -> Dataset:
    """The dataset with train and val redrawn: fold `k` of `n` (from 1) of their photographs is val, the rest train."""
    pool = (*dataset.splits.get("train", ()), *dataset.splits.get("val", ()))
    groups = list(by_photograph(pool).values())
    if len(groups) < n:
        raise InputError(f"--fold {k}/{n}: {dataset.name} has only {len(groups)} photographs")
    order = np.random.default_rng(seed).permutation(len(groups))
    chosen = {index for position in order[k - 1 :: n] for index in groups[position]}
    return _divide(dataset, pool, chosen)


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
    order = np.random.default_rng(seed).permutation(len(groups))
    chosen = {index for position in order[: max(1, round(HELD_OUT * len(groups)))] for index in groups[position]}
    note = (
        f"no validation split: {max(1, round(HELD_OUT * len(groups)))} of {len(groups)} photographs held out of train"
    )
    return _divide(dataset, train, chosen), note


def limited(dataset: Dataset, limit: int | None) -> Dataset:
    """At most `limit` images per split, evenly spread over the whole."""
    if limit is None:
        return dataset
    return replace(dataset, splits={split: _spread(records, limit) for split, records in dataset.splits.items()})


def _spread(records: Sequence[Record], limit: int) -> tuple[Record, ...]:
    if len(records) <= limit:
        return tuple(records)
    return tuple(records[index] for index in np.linspace(0, len(records) - 1, limit).round().astype(int))


def _divide(dataset: Dataset, pool: Sequence[Record], val: set[int]) -> Dataset:
    return replace(
        dataset,
        splits={
            **dataset.splits,
            "train": tuple(record for index, record in enumerate(pool) if index not in val),
            "val": tuple(record for index, record in enumerate(pool) if index in val),
        },
    )
