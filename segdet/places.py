"""Paths: the cache folder, names that begin with `~`, and names that are not UTF-8."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path


def cache_folder() -> Path:
    """Where segdet keeps what it can make again: `$SEGDET_CACHE`, else `segdet` in the user's cache folder.

    A user without a home folder (a container's user without a passwd entry), or with one that cannot be written to, gets a
    folder that lasts as long as the process.
    """
    chosen = os.environ.get("SEGDET_CACHE")
    if chosen:
        return expanded(chosen)
    if os.environ.get("XDG_CACHE_HOME"):
        return expanded(os.environ["XDG_CACHE_HOME"]) / "segdet"
    try:
        folder = Path.home() / ".cache" / "segdet"
    except RuntimeError:
        return Path(_temporary().name) / "segdet"
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return folder if os.access(existing, os.W_OK) else Path(_temporary().name) / "segdet"


def expanded(path: str | Path) -> Path:
    """`path` with a leading `~` or `~user` replaced; unchanged where that user or home folder is unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


@contextmanager
def nameable(path: Path) -> Iterator[str]:
    """Yield a name for the file `path` that libraries in C++ can open: they refuse names that are not UTF-8.

    Such a file gets a link in a temporary folder for as long as the block runs.
    """
    with ExitStack() as stack:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="segdet-"))
            link = Path(folder) / f"file{path.suffix if path.suffix.isascii() else ''}"
            link.symlink_to(path.absolute())
            path = link
        yield str(path)


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="segdet-")
