"""The doctor: everything about a dataset that would make training wrong or its scores too good.

`examine` decodes each image once and returns findings; `fix.write` writes a cleaned copy. Nothing here changes the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segdet.data.doctor import copies, exports, labels, pictures, shares, unread, upright
from segdet.data.doctor.copies import Pair
from segdet.data.doctor.findings import Checkup, Finding, by_severity
from segdet.data.doctor.scan import Facts, scan
from segdet.data.geometry import rasterize
from segdet.data.geometry.boxes import area_of
from segdet.data.learnable import crowds_in, without_crowds
from segdet.data.records import Dataset, by_photograph, iterate

Progress = Callable[[str, int, int], object]

_KEYPOINTS = 300  # of each picture; fewer in large datasets, so that memory stays below about 2 GB
_ALL_KEYPOINTS = 12_000_000
_SAMPLE = 300  # images whose masks are drawn for the foreground's share


@dataclass(frozen=True)
class Examination:
    """The findings, and what a cleaned copy must leave out: pairs of copies, and images that cannot be decoded."""

    checkup: Checkup
    pairs: tuple[Pair, ...]
    damaged: frozenset[Path]


def examine(dataset: Dataset, look_alike: bool = True, advance: Callable[[], object] = lambda: None) -> Examination:
    """Check everything.

    Args:
        look_alike: also search for photographs of the same object, which takes two thirds of the time.
        advance: called once for each image decoded.
    """
    images = list(dict.fromkeys(record.image for _, record in iterate(dataset)))
    keypoints = min(_KEYPOINTS, max(60, _ALL_KEYPOINTS // max(1, len(images)))) if look_alike else 0
    facts = scan(images, keypoints, advance)
    same = copies.identical(dataset, facts)
    siblings = copies.sibling_leaks(dataset)
    known = {frozenset((pair.first.image, pair.second.image)) for pair in (*same, *siblings)}
    alike = copies.lookalikes(dataset, facts, known) if look_alike else []
    findings = [*_findings(dataset, facts), *copies.report(same, alike)]
    damaged = frozenset(path for path, fact in facts.items() if fact.damage)
    return Examination(Checkup(by_severity(findings), figures(dataset)), (*siblings, *same, *alike), damaged)


def _findings(dataset: Dataset, facts: dict[Path, Facts]) -> Iterator[Finding]:
    if not facts:
        yield Finding("no-images", "error", "not a single usable image", "The other findings say why.", 0)
    yield from copies.siblings(dataset)
    yield from labels.check(_sound(dataset, facts), dataset.problems)
    yield from shares.check(_sound(dataset, facts))
    yield from upright.check(dataset, facts)
    yield from pictures.check(dataset, facts)
    yield from exports.check(dataset.root)
    yield from unread.check(dataset.account)
    val = dataset.splits.get("val")
    if val is None:
        yield Finding("no-validation", "note", "no validation split", "Training holds photographs out of train.", 0)
    elif len(by_photograph(val)) < 50:
        yield Finding(
            "validation-small", "note", f"only {len(by_photograph(val))} validation photographs",
            "Scores will have wide intervals; Training with `fold=K/N` uses every photograph for validation once.", len(val),
        )  # fmt: skip


def _sound(dataset: Dataset, facts: dict[Path, Facts]) -> Dataset:
    """Without the images that cannot be decoded: they are reported already, and an empty label there means nothing."""
    kept = {s: tuple(r for r in records if not facts[r.image].damage) for s, records in dataset.splits.items()}
    return replace(dataset, splits=kept)


def figures(dataset: Dataset) -> dict[str, Any]:
    """Sizes and balance of a dataset as plain values."""
    objects = without_crowds(record for _, record in iterate(dataset))
    splits = {}
    for split, records in dataset.splits.items():
        areas = [area_of(instance) for record in records for instance in record.instances if not instance.crowd]
        spread = [
            records[i] for i in np.unique(np.linspace(0, len(records) - 1, min(_SAMPLE, len(records))).astype(int))
        ]
        marked = [float(rasterize.binary(rasterize.foreground(record)).mean()) for record in spread]
        splits[split] = {
            "images": len(records),
            "photographs": len(by_photograph(records)),
            "objects": len(areas),
            "crowds": crowds_in(records),
            "empty": sum(not record.instances for record in records),
            "object_area": [float(value) for value in np.percentile(areas, [5, 50, 95])] if areas else None,
            "foreground": float(np.mean(marked)) if marked else None,
        }
    return {
        "name": dataset.name,
        "root": str(dataset.root),
        "format": dataset.format,
        "licence": dataset.licence,
        "classes": {name: objects[index] for index, name in enumerate(dataset.classes)},
        "splits": splits,
        "files": dataset.account.to_dict() if dataset.account is not None else None,
    }
