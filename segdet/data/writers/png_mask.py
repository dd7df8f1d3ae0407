"""Roboflow's png-mask-semantic layout: x.jpg, x_mask.png and _classes.csv in train/, valid/ and test/."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from segdet.data.images import encode_png
from segdet.data.records import Dataset
from segdet.data.writers.base import Losses, Names, Writer, count_unsaid, label_image
from segdet.errors import InputError

MOST_CLASSES = 254  # 0 is the background and 255 ignores

_FOLDERS = {"train": "train", "val": "valid", "test": "test"}


def _write(dataset: Dataset, root: Path, names: Names, losses: Losses, advance: Callable[[], None]) -> None:
    if len(dataset.classes) > MOST_CLASSES:
        raise InputError(f"{dataset.root}: {len(dataset.classes)} classes; a mask image has numbers for {MOST_CLASSES}")
    for split, records in dataset.splits.items():
        folder = root / _FOLDERS[split]
        with (folder / "_classes.csv").open("w", encoding="utf-8", newline="") as stream:
            stream.write("Pixel Value, Class\n0, background\n")
            for value, name in enumerate(dataset.classes, 1):
                stream.write(f"{value}, ")
                csv.writer(stream, lineterminator="\n").writerow([" ".join(name.split())])
        for record in records:
            mask = label_image(record, len(dataset.classes))
            count_unsaid(record, len(dataset.classes), losses)
            (folder / f"{Path(names[record.image]).stem}_mask.png").write_bytes(encode_png(mask))
            advance()


WRITER = Writer("png-mask", lambda split: _FOLDERS[split], _write)
