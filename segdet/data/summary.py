"""A dataset in numbers, for `segdet data info`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from segdet.data.geometry import rasterize
from segdet.data.learnable import crowds_in, lacking, without_crowds
from segdet.data.records import Dataset, Record, by_photograph, iterate

_SAMPLE = 100  # images whose masks are drawn to estimate the foreground


def describe(dataset: Dataset) -> dict[str, Any]:
    """Everything `segdet data info` prints, as plain values."""
    objects = without_crowds(record for _, record in iterate(dataset))
    records = [record for _, record in iterate(dataset)]
    outlined = [record for record in records if record.outlined]
    spread = [outlined[i] for i in np.linspace(0, len(outlined) - 1, min(_SAMPLE, len(outlined))).astype(int)]
    shares = [float(rasterize.binary(rasterize.foreground(record)).mean()) for record in spread]
    return {
        "name": dataset.name,
        "root": str(dataset.root),
        "format": dataset.format,
        "evidence": list(dataset.notes),
        "licence": dataset.licence,
        "sha256": dataset.fingerprint(),
        "classes": list(dataset.classes),
        "objects": {name: objects[index] for index, name in enumerate(dataset.classes)},
        "splits": by_split(dataset),
        "foreground": float(np.mean(shares)) if shares else None,
        "sampled": len(spread),
        "files": dataset.account.to_dict() if dataset.account is not None else None,
        "problems": [str(problem) for problem in dataset.problems],
    }


def by_split(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Images, photographs, objects, crowds, images without either, the commonest sizes of each split, and the classes it lacks."""
    counts = {split: without_crowds(found) for split, found in dataset.splits.items()}
    total = sum(counts.values(), Counter[int]())
    return {
        split: {**_split(found), "lacking": lacking(dataset, counts[split], total) if len(counts) > 1 else []}
        for split, found in dataset.splits.items()
    }


def _split(records: Sequence[Record]) -> dict[str, Any]:
    sizes = Counter(f"{record.width}x{record.height}" for record in records).most_common(3)
    return {
        "images": len(records),
        "photographs": len(by_photograph(records)),
        "objects": without_crowds(records).total(),
        "crowds": crowds_in(records),
        "empty": sum(not record.instances for record in records),
        "sizes": ", ".join(f"{size} ({count})" for size, count in sizes),
    }
