"""Image sizes remembered between runs, so that a large dataset is read in about a second the second time.

What is kept is what each image file's header said, under the file's path, length and times; a file that changed in any
of these is opened again. It lies in the user's cache folder, never beside the data (which may be read-only), and can be
deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from segdet.data import images
from segdet.errors import SegdetError
from segdet.files import write_json
from segdet.places import cache_folder
from segdet.text import encoded

_SCHEMA = 1
_SETTLED = 2_000_000_000  # ns; a file touched less than this ago may change again within one tick of its clock

Entry = tuple[int, int, int, int, int]  # bytes, mtime and ctime in ns, height, width


class _Index:
    """The remembered headers of one dataset."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known = _read(file)
        self.used: dict[str, Entry] = {}

    def size(self, image: Path) -> tuple[int, int]:
        try:
            now = image.stat()
        except OSError:
            return images.image_size(image)  # says what is wrong with it
        key = str(image.absolute())
        facts = (now.st_size, now.st_mtime_ns, now.st_ctime_ns)
        entry = self.known.get(key)
        if entry is None or entry[:3] != facts:
            entry = (*facts, *images.image_size(image))
        self.used[key] = entry
        return entry[3], entry[4]

    def save(self) -> None:
        """Write what was used; without a folder to write to, the next run is merely slower."""
        limit = time.time_ns() - _SETTLED
        settled = {key: entry for key, entry in self.used.items() if max(entry[1:3]) < limit}
        if settled != self.known:
            with suppress(SegdetError, OSError):
                write_json(self.file, {"schema": _SCHEMA, "images": settled}, indent=None)


_current: ContextVar[_Index | None] = ContextVar("index", default=None)


@contextmanager
def remembered(dataset: Path) -> Iterator[None]:
    """Within the block, `image_size` knows what earlier runs read of this dataset; at its end the index is saved."""
    name = hashlib.sha256(encoded(str(dataset.absolute()))).hexdigest()[:24]
    index = _Index(cache_folder() / "index" / f"{name}.json")
    token = _current.set(index)
    try:
        yield
    finally:
        _current.reset(token)
    index.save()


def image_size(image: Path) -> tuple[int, int]:
    """(height, width) of the upright image, remembered or read from its header.

    Raises:
        ImageError: as `images.image_size`; damage is never remembered.
    """
    index = _current.get()
    return images.image_size(image) if index is None else index.size(image)


def _read(file: Path) -> dict[str, Entry]:
    """What was saved; nothing when the file is missing, damaged or of another version."""
    try:
        content = json.loads(file.read_bytes())
        if content["schema"] != _SCHEMA:
            return {}
        found = {str(key): tuple(entry) for key, entry in content["images"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    if not all(len(entry) == 5 and all(type(value) is int for value in entry) for entry in found.values()):
        return {}
    return found  # type: ignore[return-value]
