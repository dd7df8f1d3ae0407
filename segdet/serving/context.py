"""What every route needs: the settings, the models, the counters, and whether the server is going down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import Request

from segdet.machine import cores
from segdet.serving.bodies import Bodies
from segdet.serving.metrics import Metrics
from segdet.serving.models import Models, ServedModel
from segdet.serving.refusals import Refused, late
from segdet.serving.scheduler import Job
from segdet.serving.settings import ServeConfig


class Context:
    """One server's state. `draining` is set once it was asked to stop: what was taken is finished, nothing new is taken."""

    def __init__(self, settings: ServeConfig) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.models = Models(settings, self.metrics)
        self.bodies = Bodies(settings, self.metrics)
        self.draining = False
        # Small things that must not hold up the event loop: headers, forms, JSON. Work on images has its own threads.
        self.small = ThreadPoolExecutor(max(2, cores()), "small")

    @property
    def ready(self) -> bool:
        """Whether requests are wanted."""
        return self.models.ready and not self.draining

    async def aside(self, function: Any, *arguments: Any) -> Any:
        """Run something small in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.small, function, *arguments)

    def deadline(self, timeout: float | None) -> float:
        """`time.monotonic()` by which an answer is due; a request may ask for less time than the server gives, not for more."""
        return time.monotonic() + min(timeout or self.settings.timeout, self.settings.timeout)

    async def run(self, request: Request, model: ServedModel, jobs: Sequence[Job]) -> list[Any]:
        """Queue jobs and wait for all: results and exceptions, in their order.

        Raises:
            Refused: 503 no room, 504 too late, 499 the client has gone.
        """
        assert model.scheduler is not None
        if not jobs:
            return []
        model.scheduler.submit(jobs)
        answers = asyncio.gather(*(asyncio.wrap_future(job.future) for job in jobs), return_exceptions=True)
        answers.add_done_callback(_retrieve)
        gone = asyncio.ensure_future(_disconnected(request))
        both: set[asyncio.Future[Any]] = {answers, gone}
        try:
            left = max(0.0, jobs[0].deadline - time.monotonic())
            done, _ = await asyncio.wait(both, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if answers in done:
                return answers.result()
            if gone in done:
                raise Refused(499, "client_gone", "the client has gone")
            seconds = max(0.001, time.monotonic() - jobs[0].entered)
            raise late(
                f"no answer within {seconds:.3f} s; X-Timeout and the server's setting timeout limit how long it may take"
            )
        finally:
            gone.cancel()
            if not answers.done():
                for job in jobs:
                    job.deadline = 0.0  # work under way stops at the next tile
                    job.future.cancel()
                answers.cancel()


def _retrieve(answers: asyncio.Future[Any]) -> None:
    """Look at the outcome: asyncio would log that it was never retrieved, when the wait was given up before all jobs had ended."""
    if not answers.cancelled():
        answers.exception()


async def _disconnected(request: Request) -> None:
    """Returns when the client closes its connection (the body must have been read)."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
