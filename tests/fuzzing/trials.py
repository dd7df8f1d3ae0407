"""One trial: change a file of a sound dataset, read, describe, check and decode it, and say what went wrong.

Whatever the change, segdet answers with records that can be drawn or with a `SegdetError` of one line, and no image is
lost without a word.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from segdet.data import doctor, formats, summary
from segdet.data.geometry.boxes import boxes_of
from segdet.data.geometry.rasterize import class_index, foreground
from segdet.data.images import ImageError, is_image, read_image, read_stored
from segdet.data.records import Dataset, iterate
from segdet.errors import SegdetError
from tests.fuzzing import mutations
from tests.fuzzing.sets import FORMATS

Kind = Literal["labels", "images"]
KINDS: tuple[Kind, ...] = ("labels", "images")


@dataclass(frozen=True)
class Change:
    """What a trial changes. files: new content of each changed file, None where it is removed. text: in a few words."""

    text: str
    files: dict[str, bytes | None]


class Sound:
    """The sound dataset of a format, in memory and as a folder that trials change and put right again."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.root = folder / "set"
        built = folder / "built" / name
        FORMATS[name](built)
        self.files = {str(p.relative_to(built)): p.read_bytes() for p in sorted(built.rglob("*")) if p.is_file()}
        shutil.rmtree(folder / "built")
        self.write(self.root, Change("", {}))

    def change(self, kind: Kind, seed: int, number: int) -> Change:
        """The change of trial `number`: always the same for the same seed."""
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode()), KINDS.index(kind), number])
        chosen = [name for name in self.files if is_image(Path(name)) == (kind == "images")]
        name = chosen[rng.integers(len(chosen))]
        other = list(self.files)[rng.integers(len(self.files))]
        path = Path(name)
        draw = rng.random()
        if draw < 0.04:
            return Change(f"{name} exchanged with {other}", {name: self.files[other], other: self.files[name]})
        if draw < 0.06:
            return Change(f"{name} removed", {name: None})
        if draw < 0.10:
            names = (
                path.name.upper(), f"{path.stem.upper()}{path.suffix}", f"{path.stem} (1){path.suffix}", f"é{path.name}",
                f"{path.stem}{path.suffix}.txt", f"{path.stem}.jpg{path.suffix}", f"{path.stem}.heic", f".{path.name}",
                f"a\nb{path.suffix}", f"\udcfc{path.name}", f"{'x' * 200}{path.suffix}",
            )  # fmt: skip
            new = str(path.with_name(names[rng.integers(len(names))]))
            return Change(f"{name} called {new!r}", {name: None, new: self.files[name]})
        if kind == "images":
            how, content = mutations.image_file(self.files[name], rng)
        else:
            how, content = mutations.label_file(self.files[name], path.suffix, rng)
        return Change(f"{name}: {how}", {name: content})

    def write(self, root: Path, change: Change) -> None:
        """The whole dataset with a change, in a new folder."""
        for name, content in {**self.files, **change.files}.items():
            if content is not None:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(content)

    def try_change(self, change: Change, advance: Callable[[], object] = lambda: None) -> str:
        """Make the change, run everything on the dataset, and put it right; what went wrong, or an empty string.

        Args:
            advance: called before each step (decode, read, info, check, draw).
        """
        for name, content in change.files.items():
            if content is None:
                (self.root / name).unlink()
            else:
                (self.root / name).write_bytes(content)
        try:
            return verdict(self.root, change, advance)
        finally:
            for name in change.files:
                if name in self.files:
                    (self.root / name).write_bytes(self.files[name])
                else:
                    (self.root / name).unlink()


def verdict(root: Path, change: Change, advance: Callable[[], object] = lambda: None) -> str:
    """What segdet does wrong with a dataset, in one line; empty when it does nothing wrong."""
    for name in (name for name, content in change.files.items() if content is not None and is_image(Path(name))):
        for decode in (read_image, read_stored):
            why = _typed(lambda decode=decode, name=name: decode(root / name), ImageError)
            if why:
                return f"{decode.__name__}: {why}"
    advance()
    read: list[Dataset] = []
    why = _typed(lambda: read.append(formats.read(root, refuse=False)))
    if why or not read:
        return why and f"read: {why}"
    dataset = read[0]
    steps: dict[str, Callable[[], object]] = {
        "read, refusing": lambda: formats.read(root),
        "info": lambda: json.dumps(summary.describe(dataset), default=str).encode("utf-8", "surrogateescape"),
        "check": lambda: json.dumps(doctor.examine(dataset, look_alike=False).checkup.to_dict(), default=str),
        "draw": lambda: _draw(dataset),
    }
    for step, work in steps.items():
        advance()
        why = _typed(work)
        if why:
            return f"{step}: {why}"
    lines = [str(problem) for problem in dataset.problems if "\n" in str(problem)]
    if lines:
        return f"a problem of several lines: {lines[0]!r}"
    wrong = miscounted(root, dataset)
    return f"account: {wrong}" if wrong else ""


def miscounted(root: Path, dataset: Dataset) -> str:
    """Where the account of the files is not what lies in the folder: read + left out = files there, and each has a name.

    A dataset of a trial has fewer files than an account gives examples of each reason, so every one left out is named.
    """
    account = dataset.account
    if account is None:
        return "there is none"
    there = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and not _hidden(path, root)}
    images = {str(record.image.relative_to(root)) for _, record in iterate(dataset)}
    if account.files != len(there):
        return f"{account.files} files, {len(there)} there"
    if account.images != len(images):
        return f"{account.images} images, {len(images)} records"
    if account.files != account.images + account.labels + sum(group.count for group in account.unread):
        return f"the sum is wrong: {account}"
    named = {name for group in account.unread for name in group.examples}
    if named & images or len(named) != account.left_out or not named <= there:
        return f"left out {account.left_out}, named {sorted(named)}"
    silent = [group for group in account.unread if group.reason == "unknown" and _known(group.examples)]
    return f"a file of a known kind is left out as unknown: {silent[0]}" if silent else ""


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _known(names: Iterable[str]) -> bool:
    return any(is_image(Path(name)) for name in names)


def _draw(dataset: Dataset) -> None:
    for _, record in iterate(dataset):
        with suppress(ImageError):
            read_image(record.image)
        foreground(record)
        class_index(record)
        boxes_of(record)


def _typed(work: Callable[[], object], kind: type[SegdetError] = SegdetError) -> str:
    """Run it: an empty string, or the exception that is not of this kind or of several lines."""
    try:
        work()
    except kind as error:
        return f"a message of several lines: {str(error)!r}" if "\n" in str(error) else ""
    except BaseException as error:
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place is not None else "?"
        return f"{type(error).__name__}: {str(error)[:160]!r} at {where}"
    return ""
