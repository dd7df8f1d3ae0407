"""How much of the pictures is marked: inverted masks, nearly empty masks and crowds alone show here first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from segdet.data.doctor.findings import Case, Finding
from segdet.data.geometry import rasterize
from segdet.data.records import Dataset, Record, iterate

_SAMPLE = 300  # images whose masks are drawn
_MOST = 0.6  # of the pixels; a class that covers more is rather the background
_LEAST = 1e-4


def check(dataset: Dataset) -> Iterator[Finding]:
    """Objects that are all crowds, a class that covers most of the pictures, and masks that mark next to nothing."""
    crowds = [instance.crowd for _, record in iterate(dataset) for instance in record.instances]
    if crowds and all(crowds):
        yield Finding(
            "crowds-only", "error", f"all objects ({len(crowds)}) are marked as crowds",
            "A crowd counts neither for nor against, so nothing is left to learn. CVAT writes iscrowd 1 for brush masks: set "
            "it to 0 where each is one object.", len(crowds),
        )  # fmt: skip
    records = [record for _, record in iterate(dataset) if record.outlined]
    if not records:
        return
    spread = [records[i] for i in np.unique(np.linspace(0, len(records) - 1, min(_SAMPLE, len(records))).astype(int))]
    shares = np.array([_shares(record, len(dataset.classes)) for record in spread])
    mean = shares.mean(axis=0)
    for label in np.flatnonzero(mean > _MOST):
        cases = tuple(
            Case((record.image,), f"{share:.0%} marked")
            for record, share in zip(spread, shares[:, label], strict=True)
            if share > _MOST
        )
        name = dataset.classes[label]
        yield Finding(
            "foreground-large", "warning", f"{name} covers {mean[label]:.0%} of the pixels",
            "Are the masks inverted, with black objects on white? Then swap black and white, or name the colours in "
            "`labelmap.txt`.", len(cases), cases,
        )  # fmt: skip
    marked = float(mean.sum())
    if marked < _LEAST:
        cases = tuple(
            Case((record.image,), f"{share.sum():.4%} marked") for record, share in zip(spread, shares, strict=True)
        )
        yield Finding(
            "foreground-small", "warning", f"only {marked:.4%} of the pixels are marked",
            "Are the masks of another scale, or most of their values left out? Look at a few.", len(cases), cases,
        )  # fmt: skip


def _shares(record: Record, classes: int) -> np.ndarray:
    """float64 `[K]`: the share of an image that each class covers."""
    shares = np.zeros(classes)
    for label in {instance.label for instance in record.instances if instance.outlined}:
        own = tuple(instance for instance in record.instances if instance.label == label)
        shares[label] = rasterize.binary(rasterize.foreground(replace(record, instances=own))).mean()
    return shares
