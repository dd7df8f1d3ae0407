"""One opened model that many threads may run at once, set up for the machine."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segdet import machine
from segdet.inference.backends.onnxruntime import DeviceLost
from segdet.inference.backends.select import open_session
from segdet.inference.backends.session import Session
from segdet.serving.batching import Batcher, Outputs
from segdet.serving.settings import ServeConfig

_WORTH_IT = 1.25  # how much faster all cores must be than one before a lone image gets them
_GPU_BATCH = 8


@dataclass(frozen=True)
class Plan:
    """workers: images worked on at a time. threads: of one inference. batch: images in one inference.

    wide: also keep a session that uses all cores, for an image that is alone.
    """

    workers: int
    threads: int
    batch: int
    wide: bool


def plan_for(on_gpu: bool, settings: ServeConfig, cores: int) -> Plan:
    """What was asked for, and for the rest what suits the machine.

    On a CPU as many single-threaded inferences as there are cores: batches brought no gain there, and threads of one
    inference wait for each other. On a GPU batches, with enough workers to fill them while others decode.
    """
    if on_gpu:
        batch = settings.batch or _GPU_BATCH
        return Plan(settings.workers or 2 * batch, settings.threads or 1, batch, False)
    workers = settings.workers or cores
    return Plan(workers, settings.threads or 1, settings.batch or 1, settings.threads is None and cores > 1)


class Runner(Session):
    """A `Session` for many threads.

    On a CPU each runs on one thread; an image that is alone gets all cores, where that is faster. ONNX Runtime's session is
    shared by all (one copy of the weights), OpenVINO's works on one image at a time, so each worker has its own. With
    batches, one thread runs what the others bring.

    Args:
        busy: how many threads are at work on images (for the batcher).
        observe: called with (images, seconds) of every inference.

    Attributes:
        lost: whether the GPU has failed; every further inference fails too, until the process starts again.
    """

    def __init__(
        self,
        path: Path,
        settings: ServeConfig,
        busy: Callable[[], int] = lambda: 1,
        observe: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        session = open_session(path, settings.device, settings.threads or 1)
        self.plan = plan_for(session.on_gpu, settings, machine.cores())
        self.path = session.path
        self.metadata = session.metadata
        self.device = session.device
        self.threads = session.threads
        shared = not session.device.startswith("OpenVINO")
        self._free: queue.LifoQueue[Session] = queue.LifoQueue()
        for number in range(self.plan.workers):
            own = number and not shared
            self._free.put(open_session(path, settings.device, settings.threads or 1) if own else session)
        self._wide = open_session(path, settings.device) if self.plan.wide else None
        self._observe = observe
        self.lost = False
        self._active = 0
        self._lock = threading.Lock()
        self._batcher = (
            Batcher(self._timed, self.plan.batch, settings.batch_wait, busy) if self.plan.batch > 1 else None
        )

    def run(self, images: np.ndarray, threshold: float | None = None) -> Outputs:
        """As `Session.run`; may be called from any thread."""
        if self._batcher is not None:
            return self._batcher.run(images, threshold)
        return self._timed(images, threshold)

    def calibrate(self, image: np.ndarray) -> float:
        """Warm up on an image uint8 `[H, W, 3]`, drop the session that does not pay, and return seconds for it on one worker."""
        batch = image[None]
        # OpenVINO compiles for the first size, and for any once it sees another. A GPU tunes, and TensorRT builds, for each
        # number of images: the first full batch must not wait for that.
        warm = [batch, image[:-1][None]]
        if self.plan.batch > 1:
            warm.append(np.repeat(batch, self.plan.batch, axis=0))
        sessions = [self._free.get() for _ in range(self.plan.workers)]
        for session in dict.fromkeys([*sessions, *([self._wide] if self._wide is not None else [])]):
            for images in warm:
                session.run(images)
        narrow = _best(lambda: sessions[0].run(batch))
        for session in sessions:
            self._free.put(session)
        if self._wide is not None:
            wide = self._wide
            if narrow < _WORTH_IT * _best(lambda: wide.run(batch)):
                self._wide = None
        return narrow

    def close(self) -> None:
        """End the batcher's thread; runs under way finish."""
        if self._batcher is not None:
            self._batcher.close()

    def _timed(self, images: np.ndarray, threshold: float | None) -> Outputs:
        with self._lock:
            self._active += 1
            alone = self._active == 1
        wide = self._wide if alone else None
        session = wide or self._free.get()
        start = time.perf_counter()
        try:
            return session.run(images, threshold)
        except DeviceLost:
            self.lost = True
            raise
        finally:
            self._observe(len(images), time.perf_counter() - start)
            if wide is None:
                self._free.put(session)
            with self._lock:
                self._active -= 1


def _best(run: Callable[[], object], rounds: int = 3, enough: float = 1.0) -> float:
    """Seconds of the fastest of some runs after one that warms up; slow models are not run again and again."""
    run()
    times: list[float] = []
    while len(times) < rounds and sum(times) < enough:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
