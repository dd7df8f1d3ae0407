"""A cleaned copy of a dataset, which says exactly what it left out. The source is not touched."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from segdet.data.convert import convert
from segdet.data.doctor import Examination
from segdet.data.records import KEPT, Dataset
from segdet.errors import InvalidOption
from segdet.files import write_text
from segdet.places import expanded


@dataclass(frozen=True)
class Cleaned:
    """layout: "YOLO" or "COCO". images: kept. dropped: one line for each thing left out."""

    folder: Path
    layout: str
    images: int
    dropped: tuple[str, ...]


def write(dataset: Dataset, examination: Examination, folder: Path) -> Cleaned:
    """Write the copy: YOLO data stays YOLO, everything else becomes COCO JSON; images are copied byte for byte.

    Left out are images that cannot be decoded, identical copies, labels the reader could not use, and photographs (with
    all their augmented copies) that a later split shows too: of train, val and test the later one is kept whole.

    Raises:
        InputError: `folder` exists and holds something, lies in the dataset, or cannot be written.
    """
    folder = expanded(folder)
    if folder.resolve().is_relative_to(dataset.root.resolve()):
        raise InvalidOption("fix", folder, "is inside the dataset itself", "choose a folder elsewhere")
    cleaned, dropped = without(dataset, examination)
    if not cleaned.splits.get("train"):
        raise InvalidOption("fix", folder, "nothing of train would be left", "correct the labels first")
    dropped += [f"label left out: {problem}" for problem in dataset.problems if problem.kind not in KEPT]
    layout = "YOLO" if dataset.format == "YOLO" else "COCO"
    convert(cleaned, folder, layout.lower(), compare=20)
    lines = [f"{len(dropped)} things of {dataset.root} were left out.", *dropped]
    write_text(folder / "dropped.txt", "\n".join(lines) + "\n")
    return Cleaned(folder, layout, sum(map(len, cleaned.splits.values())), tuple(dropped))


def without(dataset: Dataset, examination: Examination) -> tuple[Dataset, list[str]]:
    """The dataset without what must go, and a line for each image that went."""
    # By split and position: lists may name an image in two splits, or twice in one.
    why: dict[tuple[str, int], str] = {}
    listed: dict[tuple[str, Path], list[int]] = defaultdict(list)
    photographs: dict[tuple[str, str], list[int]] = defaultdict(list)
    for split, records in dataset.splits.items():
        for position, record in enumerate(records):
            listed[split, record.image].append(position)
            photographs[split, record.photograph].append(position)
            if record.image in examination.damaged:
                why[split, position] = "cannot be decoded"
    for pair in examination.pairs:
        split, later = pair.splits
        if pair.leaks:
            reason = f"leaks: {later} shows it in {pair.second.image.name}"
            going = photographs[split, pair.first.photograph]
        elif pair.identical and pair.first.image == pair.second.image:
            reason = "listed more than once"
            going = listed[split, pair.first.image][1:]
        elif pair.identical:
            reason = f"identical to {pair.second.image.name}"
            going = listed[split, pair.first.image]
        else:
            continue
        for position in going:
            why.setdefault((split, position), reason)
    splits = {
        split: tuple(record for position, record in enumerate(records) if (split, position) not in why)
        for split, records in dataset.splits.items()
    }
    reasons = {(dataset.splits[split][position].image, reason) for (split, position), reason in why.items()}
    lines = [f"image left out: {path}: {reason}" for path, reason in sorted(reasons)]
    return replace(dataset, splits={split: records for split, records in splits.items() if records}), lines
