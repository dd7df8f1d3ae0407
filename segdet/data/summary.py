"""A dataset in numbers, for `segdet data info`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from segdet.data import rasterize
from segdet.data.records import Dataset, Record, by_photograph, iterate

_SAMPLE = 100  # images whose masks are drawn to estimate the foreground


def describe(dataset: Dataset) -> dict[str, Any]:
    """Everything `segdet data info` prints, as plain values."""
    objects = Counter(instance.label for _, record in iterate(dataset) for instance in record.instances)
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
        "problems": [str(problem) for problem in dataset.problems],
    }


def by_split(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Images, photographs, objects, images without objects and the commonest sizes of each split."""
    return {split: _split(found) for split, found in dataset.splits.items()}


def _split(records: Sequence[Record]) -> dict[str, Any]:
    sizes = Counter(f"{record.width}x{record.height}" for record in records).most_common(3)
    return {
        "images": len(records),
        "photographs": len(by_photograph(records)),
        "objects": sum(len(record.instances) for record in records),
        "empty": sum(not record.instances for record in records),
        "sizes": ", ".join(f"{size} ({count})" for size, count in sizes),
    }
