"""Folders of the user: the cache, and paths that begin with `~`."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path


def cache_folder() -> Path:
    """Where segdet keeps what it can make again: `$SEGDET_CACHE`, else `segdet` in the user's cache folder.

    A user without a home folder (a container's user without a passwd entry) gets a folder that lasts as long as the process.
    """
    chosen = os.environ.get("SEGDET_CACHE")
    if chosen:
        return expanded(chosen)
    if os.environ.get("XDG_CACHE_HOME"):
        return expanded(os.environ["XDG_CACHE_HOME"]) / "segdet"
    try:
        return Path.home() / ".cache" / "segdet"
    except RuntimeError:
        return Path(_temporary().name) / "segdet"


def expanded(path: str | Path) -> Path:
    """`path` with a leading `~` or `~user` replaced; unchanged where that user or home folder is unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="segdet-")
