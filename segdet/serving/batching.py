"""Several threads' images in one inference, for devices on which that is faster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

Outputs = tuple[np.ndarray, ...]
Run = Callable[[np.ndarray, float | None], Outputs]


@dataclass
class _Entry:
    """images: uint8 `[n, H, W, 3]`."""

    images: np.ndarray
    threshold: float | None
    since: float = field(default_factory=time.monotonic)
    future: Future[Outputs] = field(default_factory=Future)

    @property
    def kind(self) -> Hashable:
        """Only entries of one kind fit into one batch."""
        return self.images.shape[1:], self.threshold


class Batcher:
    """Collects what several threads want predicted, by size and threshold, and runs it together.

    Args:
        run: as `Session.run`; called from one thread only.
        size: images in a batch at most (one call with more goes through as it is).
        wait: seconds the first of a batch waits for others.
        expected: how many threads could still bring something; a batch does not wait when all of them are here.
        observe: called with the number of images of every batch.
    """

    def __init__(
        self,
        run: Run,
        size: int,
        wait: float,
        expected: Callable[[], int] = lambda: 1 << 30,
        observe: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._run = run
        self._size = size
        self._wait = wait
        self._expected = expected
        self._observe = observe
        self._entries: list[_Entry] = []
        self._changed = threading.Condition()
        self._closed = False
        threading.Thread(target=self._loop, name="batcher", daemon=True).start()

    def run(self, images: np.ndarray, threshold: float | None = None) -> Outputs:
        """As `Session.run`, together with what other threads want."""
        entry = _Entry(images, threshold)
        with self._changed:
            closed = self._closed
            if not closed:
                self._entries.append(entry)
                self._changed.notify()
        return self._run(images, threshold) if closed else entry.future.result()

    def close(self) -> None:
        """End the thread once everything that waits has run; what comes later runs by itself."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not self._entries and not self._closed:
                    self._changed.wait()
                if not self._entries:
                    return
                batch = self._collect()
            self._predict(batch)

    def _collect(self) -> list[_Entry]:
        """The oldest entry and those that fit to it, once there are enough or the oldest has waited long enough."""
        first = self._entries[0]
        while True:
            batch: list[_Entry] = []
            count = 0
            for entry in self._entries:
                if entry.kind == first.kind and (not batch or count + len(entry.images) <= self._size):
                    batch.append(entry)
                    count += len(entry.images)
            left = first.since + self._wait - time.monotonic()
            if count >= self._size or left <= 0 or self._closed or len(self._entries) >= self._expected():
                self._entries = [entry for entry in self._entries if all(entry is not b for b in batch)]
                return batch
            self._changed.wait(left)

    def _predict(self, batch: list[_Entry]) -> None:
        try:
            images = batch[0].images if len(batch) == 1 else np.concatenate([entry.images for entry in batch])
            self._observe(len(images))
            outputs = self._run(images, batch[0].threshold)
        except BaseException as error:  # every waiting thread gets it; this thread must live on
            for entry in batch:
                entry.future.set_exception(error)
            return
        start = 0
        for entry in batch:
            stop = start + len(entry.images)
            entry.future.set_result(tuple(output[start:stop] for output in outputs))
            start = stop
