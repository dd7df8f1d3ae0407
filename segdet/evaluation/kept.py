"""Arrays put aside during a measurement, compressed, and on disk when they are many: memory does not follow the number of images."""

from __future__ import annotations

import threading
import zlib
from tempfile import SpooledTemporaryFile
from typing import Any

import numpy as np

IN_MEMORY = 256_000_000  # compressed bytes; with more, all of them move into a temporary file that has no name


class Kept:
    """Arrays by number, each written once; `get` may be called from several threads."""

    def __init__(self) -> None:
        self._where: dict[int, tuple[np.dtype[Any], tuple[int, ...], int, int]] = {}
        self._file: SpooledTemporaryFile[bytes] | None = None
        self._reading = threading.Lock()

    def put(self, number: int, array: np.ndarray) -> None:
        """Keep a copy.

        Raises:
            OSError: the folder for temporary files is full.
        """
        if self._file is None:
            self._file = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 (it lives as long as this object)
        packed = zlib.compress(array.tobytes(), 1)
        start = self._file.seek(0, 2)
        self._file.write(packed)
        self._where[number] = array.dtype, array.shape, start, len(packed)

    def get(self, number: int) -> np.ndarray:
        """The array, read-only.

        Raises:
            KeyError: there is none of this number.
        """
        dtype, shape, start, length = self._where[number]
        assert self._file is not None
        with self._reading:
            self._file.seek(start)
            packed = self._file.read(length)
        return np.frombuffer(zlib.decompress(packed), dtype).reshape(shape)

    def __contains__(self, number: int) -> bool:
        return number in self._where
