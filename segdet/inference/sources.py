"""What `segdet predict SOURCE...` may name: files, folders and patterns."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segdet.data.images import EXTENSIONS, is_image
from segdet.errors import InputError


@dataclass(frozen=True)
class Source:
    """An image to predict, and the name its results get (a relative path without extension, unique in the job)."""

    path: Path
    name: str


def expand(sources: Sequence[str]) -> list[Source]:
    """Images behind files, folders (with all below) and glob patterns, in order, each once.

    Raises:
        InputError: a source that does not exist or leads to no image.
    """
    found: dict[Path, Path] = {}  # file -> name before it is made unique
    for source in sources:
        path = Path(source).expanduser()
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and is_image(p))
            if not inside:
                raise InputError(f"{source}: no image in that folder (segdet reads {_endings()})")
            found.update({file: file.relative_to(path) for file in inside if file not in found})
        elif path.is_file():
            found.setdefault(path, Path(path.name))
        else:
            matched = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if is_image(Path(name))]
            if not matched:
                raise InputError(
                    f"{source}: no such file or folder"
                    + (", and nothing matches the pattern" if glob.has_magic(source) else "")
                )
            found.update({file: Path(file.name) for file in matched if file.is_file() and file not in found})
    return _named(found)


def _named(found: dict[Path, Path]) -> list[Source]:
    """a.jpg -> a; where two would clash, the extension is kept (a.jpg, a.png), then a number is added."""
    taken: set[str] = set()
    named = []
    for file, relative in found.items():
        options = [str(relative.with_suffix("")), str(relative), *(f"{relative}-{n}" for n in range(2, len(found) + 2))]
        name = next(option for option in options if option not in taken)
        taken.add(name)
        named.append(Source(file, name))
    return named


def _endings() -> str:
    return " ".join(sorted(EXTENSIONS))
