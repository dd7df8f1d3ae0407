"""What every adapter shares: its interface, split names, and reading image headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from segdet.data import index
from segdet.data.images import ImageError, is_image
from segdet.data.records import Dataset, Problem, Record
from segdet.errors import InputError

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


class _Recognise(Protocol):
    def __call__(self, path: Path) -> str | None: ...


class _Read(Protocol):
    def __call__(self, path: Path, name: str, evidence: str) -> Dataset: ...


@dataclass(frozen=True)
class Adapter:
    """A dataset layout.

    layout: what it looks like, in a few words, for messages.
    recognise: the evidence that `path` has this layout, or None.
    read: all its splits.
    """

    name: str
    layout: str
    recognise: _Recognise
    read: _Read


def header_size(image: Path, problems: list[Problem]) -> tuple[int, int] | None:
    """(height, width) of the upright image, or None and a problem when the file cannot be used."""
    try:
        return index.image_size(image)
    except ImageError as error:
        problems.append(Problem(image, str(error).removeprefix(f"{image}: ")))
        return None


def images_under(folder: Path) -> list[Path]:
    """All image files below `folder`, sorted, so that the order is the same on every machine."""
    return sorted(path for path in folder.rglob("*") if is_image(path))


def there(path: Path) -> bool:
    """Whether a file is there; no name out of a label file, however odd or long, is an error."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def split_named(word: str) -> str | None:
    """The split that a folder's or a list's name means, whatever its case: "valid" -> "val"."""
    return next((split for split, names in SPLIT_FOLDERS.items() if word.lower() in names), None)


def split_of(path: Path | PurePosixPath, root: Path | PurePosixPath | None = None) -> str:
    """The split whose folder a file lies in (the outermost below `root` counts), else "train"."""
    folders = (path.relative_to(root) if root is not None else path).parts[:-1]
    return next((split for split in map(split_named, folders) if split), "train")


def in_order(splits: Mapping[str, Sequence[Record]]) -> dict[str, tuple[Record, ...]]:
    """Splits that hold something, as train, val, test."""
    return {split: tuple(splits[split]) for split in SPLIT_FOLDERS if splits.get(split)}


def read_text(file: Path, what: str) -> str:
    """A text file as UTF-8 (with or without a byte order mark).

    Raises:
        InputError: it cannot be read; the message ends with `what` it should be.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{file}: not a text file; {what}") from error
