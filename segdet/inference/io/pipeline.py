"""Decoding ahead of the network and writing behind it, in threads: decoders, encoders and OpenCV leave Python's lock."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np

from segdet.data.images import ImageError, header, read_image
from segdet.data.tiff import Bands, TiffPicture
from segdet.inference.io.raster import open_windowed
from segdet.inference.io.sources import Source

_AHEAD = 3  # images decoded while one is worked on
_BEHIND = 4  # results that wait to be written
_LARGE = 16_000_000  # pixels from which an image is decoded alone, when its turn has come

Loaded = np.ndarray | TiffPicture | ImageError
Result = TypeVar("Result")


def read_ahead(sources: Iterable[Source], bands: Bands | None = None) -> Iterator[tuple[Source, Loaded]]:
    """Each image in order: RGB uint8 `[H, W, 3]`, a large TIFF ready to be read in windows, or why it cannot be read.

    Videos come through with an empty array.

    Args:
        sources: what to read.
        bands: which bands of TIFFs to read; None for the first ones.
    """
    with ThreadPoolExecutor(2) as pool:
        waiting: deque[tuple[Source, Future[Loaded | None]]] = deque()
        rest = iter(sources)
        while True:
            for source in itertools.islice(rest, _AHEAD + 1 - len(waiting)):
                waiting.append((source, pool.submit(_load, source, True, bands)))
            if not waiting:
                return
            source, future = waiting.popleft()
            loaded = future.result()
            yield source, _load(source, False, bands) if loaded is None else loaded  # type: ignore[misc]


def _load(source: Source, ahead: bool, bands: Bands | None) -> Loaded | None:
    """One image; None when it is too large to be decoded `ahead`."""
    if source.is_video:
        return np.empty((0, 0, 3), np.uint8)
    try:
        if source.data is not None:
            return read_image(source.data, str(source.path), bands)
        windowed = open_windowed(source.path, bands)
        if windowed is not None:
            return windowed
        if ahead:
            height, width = header(source.path).size
            if height * width > _LARGE:
                return None
        return read_image(source.path, bands=bands)
    except ImageError as error:
        return error


class WriteBehind(Generic[Result]):
    """Runs functions in the background, a few at a time, and hands their results over in order."""

    def __init__(self, done: Callable[[Result], None]) -> None:
        self._done = done
        self._pool = ThreadPoolExecutor(2)
        self._waiting: deque[Future[Result]] = deque()

    def __enter__(self) -> WriteBehind[Result]:
        return self

    def submit(self, function: Callable[[], Result]) -> None:
        """Run it soon; wait while too many others do."""
        self._waiting.append(self._pool.submit(function))
        while len(self._waiting) > _BEHIND:
            self._done(self._waiting.popleft().result())

    def drain(self) -> None:
        """Wait until all is done."""
        while self._waiting:
            self._done(self._waiting.popleft().result())

    def __exit__(self, *failure: object) -> None:
        try:
            if failure[0] is None or isinstance(failure[1], KeyboardInterrupt):
                self.drain()
        finally:
            self._pool.shutdown(cancel_futures=True)
