"""Decoded images kept for the next epoch, in memory or in one memory-mapped file, shared by all loader workers."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from segdet.data.images import ImageError, read_image
from segdet.data.records import Problem, Record
from segdet.errors import InvalidOption, setting

AUTO = 0.25  # share of the free memory that images may take unasked


class ImageCache:
    """RGB uint8 images by index of their record, decoded once.

    Every image has its place from the start; whoever decodes it first fills it. The map has no name on disk, so nothing is
    left behind however a run ends. Workers see it because they are forked.

    Args:
        kind: "ram", or "disk": a file in `folder` (default: the system's folder for temporary files).

    Raises:
        InvalidOption: no room for it.
    """

    def __init__(self, records: Sequence[Record], kind: str = "ram", folder: Path | None = None) -> None:
        self.shapes = [(record.height, record.width, 3) for record in records]
        ends = np.cumsum([0, *(height * width * 3 for height, width, _ in self.shapes)])
        self.starts = ends + len(records)  # the first bytes say which images are there
        size = int(self.starts[-1])
        try:
            self._map = mmap.mmap(-1, max(1, size)) if kind == "ram" else _file(size, folder)
        except (OSError, ValueError) as error:
            reason = f"no room for {size / 2**30:.1f} GiB of images ({error})"
            raise InvalidOption("cache", kind, reason, f"use {setting('cache', 'off')}") from error
        self._bytes = np.frombuffer(self._map, np.uint8)

    def get(self, index: int) -> np.ndarray | None:
        """The image, read-only uint8 `[H, W, 3]`, or None when it is not decoded yet."""
        if not self._bytes[index]:
            return None
        image = self._bytes[self.starts[index] : self.starts[index + 1]].reshape(self.shapes[index])
        image.flags.writeable = False
        return image

    def put(self, index: int, image: np.ndarray) -> None:
        """Keep a decoded image."""
        self._bytes[self.starts[index] : self.starts[index + 1]] = image.reshape(-1)
        self._bytes[index] = 1  # last, so that no reader sees a part


def cache_for(records: Sequence[Record], kind: str, workers: int) -> ImageCache | None:
    """The cache that the setting `cache` asks for; None for "off", and for "auto" when the images are too many.

    Args:
        kind: auto, ram, disk or off. "auto" is "ram" for up to a quarter of the free memory.

    Raises:
        InvalidOption: "ram" or "disk" where they cannot be had.
    """
    if kind == "off":
        return None
    forked = workers == 0 or multiprocessing.get_start_method() == "fork"
    size = sum(record.height * record.width * 3 for record in records)
    free = psutil.virtual_memory().available
    if kind == "auto":
        return ImageCache(records) if forked and size < AUTO * free else None
    if not forked:
        hint = f"use {setting('workers', 0)} or {setting('cache', 'off')}"
        raise InvalidOption("cache", kind, "loader processes are not forked on this system", hint)
    if kind == "ram" and size > 0.9 * free:
        reason = f"{size / 2**30:.1f} GiB of images and {free / 2**30:.1f} GiB of free memory"
        raise InvalidOption("cache", kind, reason, f"use {setting('cache', 'disk')}")
    return ImageCache(records, kind)


def decoded_once(records: Sequence[Record], index: int, cache: ImageCache | None) -> np.ndarray | Problem:
    """The image of a record from the cache, or decoded (and kept), or why it cannot be had."""
    kept = cache.get(index) if cache is not None else None
    if kept is not None:
        return kept
    image = _decoded(records[index])
    if cache is not None and isinstance(image, np.ndarray):
        cache.put(index, image)
    return image


def _decoded(record: Record) -> np.ndarray | Problem:
    """The image of a record, RGB uint8 `[H, W, 3]`, or why it cannot be had."""
    try:
        image = read_image(record.image)
    except ImageError as error:
        return Problem(record.image, str(error).removeprefix(f"{record.image}: "))
    if image.shape[:2] != record.size:
        return Problem(record.image, f"changed on disk: it was {record.width}x{record.height} when it was listed")
    return image


def _file(size: int, folder: Path | None) -> mmap.mmap:
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error now, not a crash in the middle
        else:
            file.truncate(size)
        return mmap.mmap(file.fileno(), size)
