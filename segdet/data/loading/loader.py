"""Batches from worker processes, in order, whatever happens to a worker."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from segdet.console import say
from segdet.data.loading.datasets import Key, collate
from segdet.errors import SegdetError, setting
from segdet.machine import cores

_TRIES = 3  # times that workers may die over one batch
_AHEAD = 4  # batches at most that each worker prepares in advance
_WAITING = 400_000_000  # bytes of batches that wait, all workers together (but for one batch each)
_DIED = re.compile(r"DataLoader worker \(pid.*?(\d+)")


class Stream:
    """The batches of `plan`, made by `workers` processes that stay alive from one pass to the next.

    A worker that dies (out of memory, killed, a decoder that crashes) is named and replaced, and the pass continues with the
    very batch that was due: samples depend on their keys only.

    Args:
        plan: lists of keys; read again for every pass. pin: batches are for a GPU.
        largest: bytes of the largest batch, where they are known: large ones are not prepared far in advance.
    """

    def __init__(
        self, samples: Dataset[Any], plan: Iterable[list[Key]], workers: int, pin: bool = False,
        collate: Callable[[Sequence[Any]], Any] = collate, largest: int = 0,
    ) -> None:  # fmt: skip
        self.samples, self.workers = samples, workers
        self._rest = _Rest(plan)
        self._loader: DataLoader[Any] = DataLoader(
            samples,
            batch_sampler=self._rest,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin,
            persistent_workers=workers > 0,
            worker_init_fn=_alone,
            prefetch_factor=_ahead(workers, largest) if workers else None,
        )

    def __iter__(self) -> Iterator[Any]:
        """One pass.

        Raises:
            SegdetError: workers died `_TRIES` times over the same batch.
        """
        done, deaths = 0, 0
        while True:
            self._rest.skip = done
            batches = self._started()
            try:
                while (batch := next(batches, None)) is not None:
                    done, deaths = done + 1, 0
                    yield batch
                return
            except (RuntimeError, OSError, EOFError) as error:
                who = _dead_worker(error) if self.workers else None
                if who is None:
                    raise
                deaths += 1
            self.close()
            if deaths == _TRIES:
                raise SegdetError(
                    f"loader workers died {_TRIES} times over the same images ({self._names(done)}, or one soon after): "
                    f"check these files, or, if memory ran out, use {setting('workers', 0)}"
                )
            say(f"a loader worker{who} died, perhaps for want of memory; starting it again")

    def _started(self) -> Iterator[Any]:
        """The loader's iterator; only it reports a dead worker.

        PyTorch also installs a handler of SIGCHLD that raises in the middle of whatever the training does just then.
        """
        if not self.workers or threading.current_thread() is not threading.main_thread():
            return iter(self._loader)
        before = signal.getsignal(signal.SIGCHLD)
        batches = iter(self._loader)
        if signal.getsignal(signal.SIGCHLD) is not before:
            signal.signal(signal.SIGCHLD, before if before is not None else signal.SIG_DFL)
        return batches

    def close(self) -> None:
        """Give up the workers that are left; a further pass starts new ones."""
        self._loader._iterator = None

    def _names(self, number: int) -> str:
        self._rest.skip = number
        keys = next(iter(self._rest), [])
        records = getattr(self.samples, "records", None)
        return ", ".join(records[key[1]].image.name if records is not None else str(key) for key in keys[:4])


def _ahead(workers: int, largest: int) -> int:
    """Batches that each worker prepares in advance."""
    return max(1, min(_AHEAD, _WAITING // max(1, workers * largest)))


def _dead_worker(error: Exception) -> str | None:
    """Which worker's death an error of the loader tells of (empty when it does not say which); None for other errors."""
    if "DataLoader worker process" in str(error):  # raised by a sample, inside a living worker
        return None
    if died := _DIED.search(str(error)):
        return f" (process {died[1]})"
    # The batch was sent, but who sent it is no longer there to hand over its memory.
    return "" if isinstance(error, (ConnectionError, EOFError, FileNotFoundError)) else None


class _Rest:
    """What is left of a plan after its first `skip` lists."""

    def __init__(self, plan: Iterable[list[Key]]) -> None:
        self.plan, self.skip = plan, 0

    def __iter__(self) -> Iterator[list[Key]]:
        return islice(iter(self.plan), self.skip, None)


def default_workers() -> int:
    """One worker keeps two cores of training busy on the crack set; a GPU wants many more."""
    return max(1, min(8, cores() - 1))


def _alone(_: int) -> None:
    """Workers are the parallelism; threads inside them would fight the training for the cores."""
    # Terminals, `timeout` and job schedulers signal the whole group; stopping in good order is the main process's work. The
    # worker leaves the group instead of ignoring the signals, so that the main process can still end it when it fails.
    with contextlib.suppress(AttributeError, OSError):
        os.setpgid(0, 0)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
