"""A bounded queue in front of a fixed number of threads: which requests are accepted, which wait, and which are refused at once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from segdet.serving.refusals import late, overloaded

_MEMORY = 0.2  # weight of the newest job in the running mean of the pace


class Job:
    """One image's work.

    work: called in a worker thread. units: how much work it is, in any unit that is the same for all jobs.
    deadline: `time.monotonic()` from which its answer is of no use. queued, worked: seconds, known when it is done.
    """

    def __init__(self, work: Callable[[Job], Any], units: float, deadline: float) -> None:
        self.work = work
        self.units = units
        self.deadline = deadline
        self.future: Future[Any] = Future()
        self.entered = time.monotonic()
        self.queued = 0.0
        self.worked = 0.0

    def check(self) -> None:
        """Between the parts of long work: raise when the client no longer waits for the answer."""
        if time.monotonic() > self.deadline:
            raise late("the deadline passed while the image was worked on")


class Scheduler:
    """Runs jobs in `workers` threads, first come first served.

    Args:
        queue: jobs waiting at most.
        max_wait: seconds a job may be expected to wait, judged by the work ahead of it and the pace so far.
        pace: seconds that a unit of work takes one worker; refined with every job.
        done: called with every job that was worked on.
    """

    def __init__(
        self, workers: int, queue: int, max_wait: float, pace: float, done: Callable[[Job], None] = lambda job: None
    ) -> None:
        self.workers = workers
        self.queue = queue
        self.max_wait = max_wait
        self.pace = pace
        self._done = done
        self._waiting: deque[Job] = deque()
        self._running = 0
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._work, name=f"worker-{n}", daemon=True) for n in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Jobs being worked on."""
        return self._running

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take all of `jobs` or none.

        Raises:
            Refused: 503; the queue is full, or the wait would be too long.
        """
        with self._changed:
            if self._closed:
                raise overloaded("the server is shutting down", 1, "shutting_down")
            busy = self._running + len(self._waiting)
            wait = self._expected_wait()
            if busy:  # an idle server takes whatever comes
                if busy + len(jobs) > self.workers + self.queue:
                    raise overloaded("the queue is full; try again later", wait)
                if busy >= self.workers and wait > min(self.max_wait, min(j.deadline for j in jobs) - time.monotonic()):
                    raise overloaded(f"the wait would be {wait:.1f} s; try again later", wait)
            self._waiting.extend(jobs)
            self._changed.notify(len(jobs))

    def close(self, timeout: float) -> None:
        """Take nothing more, finish what was taken, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _expected_wait(self) -> float:
        """Seconds until a worker is free for one more job."""
        if self._running + len(self._waiting) < self.workers:
            return 0.0
        ahead = sum(job.units for job in self._waiting)
        return self.pace * (ahead / self.workers + 0.5 / self.workers)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                job = self._waiting.popleft()
                if not job.future.set_running_or_notify_cancel():
                    continue  # the client has gone
                self._running += 1
            try:
                self._run(job)
            finally:
                with self._changed:
                    self._running -= 1

    def _run(self, job: Job) -> None:
        start = time.monotonic()
        job.queued = start - job.entered
        if start > job.deadline:
            job.future.set_exception(late("the deadline passed while the image waited in the queue"))
            return
        try:
            answer = job.work(job)
        except BaseException as error:  # the waiting request gets it; the worker must live on
            job.future.set_exception(error)
            return
        job.worked = time.monotonic() - start
        self.pace += _MEMORY * (job.worked / job.units - self.pace)
        self._done(job)
        job.future.set_result(answer)
