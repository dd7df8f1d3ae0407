"""What every adapter shares: its interface, split names, and reading image headers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from segdet.data import index
from segdet.data.images import ImageError, is_image
from segdet.data.records import Dataset, Problem

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
