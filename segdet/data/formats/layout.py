"""How tools arrange files: folders by name in any case, splits by the words of a name, and a cheap look into JSON files."""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path

from segdet.data.formats.base import SPLIT_FOLDERS, split_named, split_of


class Tree:
    """Folders below a root, by name in any case; a name of exactly the same case is preferred."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[Path, dict[str, Path]] = {}

    def at(self, path: str) -> Path | None:
        """The folder at a relative path with forward slashes, or None."""
        folder = self.root
        for part in path.split("/"):
            listing = self._listing(folder)
            child = listing.get(part) or listing.get(part.lower())
            if child is None:
                return None
            folder = child
        return folder

    def first(self, *paths: str) -> Path | None:
        """The first of several folders that is there, or None."""
        return next((folder for path in paths if (folder := self.at(path)) is not None), None)

    def splits(self) -> dict[str, Path]:
        """The folders directly below the root that are named after a split, by split."""
        folders = {split: self.first(*names) for split, names in SPLIT_FOLDERS.items()}
        return {split: folder for split, folder in folders.items() if folder is not None}

    def _listing(self, folder: Path) -> dict[str, Path]:
        if folder not in self._listings:
            listing: dict[str, Path] = {}
            for child in folders_in(folder):
                listing.setdefault(child.name.lower(), child)
                listing[child.name] = child
            self._listings[folder] = listing
        return self._listings[folder]


def folders_in(folder: Path) -> list[Path]:
    """The folders directly in a folder, sorted, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []
    return [folder / name for name in names]


def files_in(folder: Path, suffix: str) -> list[Path]:
    """The files directly in a folder whose name has an ending, in any case, sorted, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if entry.name.lower().endswith(suffix) and not entry.name.startswith(".") and entry.is_file()
            )
    except OSError:
        return []
    return [folder / name for name in names]


def split_of_file(file: Path, root: Path) -> str:
    """The split that a label file is about, "train" where neither its name nor a folder says so.

    >>> split_of_file(Path("a/annotations/instances_val2017.json"), Path("a"))
    'val'
    """
    return split_said(file, root) or "train"


def split_said(file: Path, root: Path) -> str | None:
    """The split that the folders above a label file name, else the words of its own name, else None."""
    if any(split_named(folder) for folder in file.relative_to(root).parts[:-1]):
        return split_of(file, root)
    words = re.findall(r"[^\W\d_]+", file.stem)
    return next((split for word in words if (split := split_named(word))), None)


def holds_lists(file: Path, *keys: str) -> bool:
    """Whether a JSON file has lists under all these keys, without parsing it (it may hold gigabytes)."""
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return all(re.search(rb'"%b"\s*:\s*\[' % key.encode(), content) for key in keys)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False
