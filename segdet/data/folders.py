"""Walking through folders: links to folders are followed, loops are not, and hidden names do not count."""

# ruff: noqa: PTH118
# Strings, because a Path object for every file of a large folder costs several times as much.
from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LINKS = 8  # links to folders that one path may pass; more are a maze


@dataclass(frozen=True)
class Folder:
    """One folder on the way.

    path: as the walk reached it. real: its absolute path without links. files: the names of its files, sorted.
    """

    path: Path
    real: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class DeadEnd:
    """An entry that the walk could not enter or read, and why."""

    path: Path
    why: str


def walk(top: Path, dead_ends: list[DeadEnd] | None = None) -> Iterator[Folder]:
    """`top` and every folder below it, in the same order on every machine.

    Names that start with a dot are passed over. A link to a folder is followed unless it leads back to a folder above it.

    Args:
        dead_ends: receives what the walk could not enter or read.
    """
    lost = [] if dead_ends is None else dead_ends
    waiting: list[tuple[Path, str, tuple[str, ...]]] = [(top, os.path.realpath(top), ())]
    while waiting:
        path, real, passed = waiting.pop()
        try:
            with os.scandir(path) as listing:
                entries = sorted((e for e in listing if not e.name.startswith(".")), key=lambda entry: entry.name)
        except OSError as error:
            lost.append(DeadEnd(path, f"cannot be opened ({error.strerror})"))
            continue
        files: list[str] = []
        below: list[tuple[Path, str, tuple[str, ...]]] = []
        for entry in entries:
            linked = entry.is_symlink()
            if entry.is_file():
                files.append(entry.name)
            elif not entry.is_dir():
                lost.append(DeadEnd(path / entry.name, "a link that leads nowhere" if linked else "not a regular file"))
            elif not linked:
                below.append((path / entry.name, os.path.join(real, entry.name), passed))
            else:
                target = os.path.realpath(entry.path)
                if len(passed) >= _LINKS or any(_holds(target, place) for place in (*passed, real)):
                    lost.append(DeadEnd(path / entry.name, "a link back to a folder above it"))
                else:
                    below.append((path / entry.name, target, (*passed, real)))
        yield Folder(path, real, tuple(files))
        waiting += reversed(below)


def files_under(top: Path) -> Iterator[Path]:
    """Every file below `top`, as `walk` reaches it."""
    for folder in walk(top):
        for name in folder.files:
            yield folder.path / name


def _holds(folder: str, place: str) -> bool:
    """Whether `place` is `folder` or lies below it."""
    return place == folder or place.startswith(folder.rstrip(os.sep) + os.sep)
