"""The models that are served: by name, each with its queue, and replaceable while requests run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdet import drawing, memory
from segdet.errors import InputError, nearest
from segdet.files import sha256_of
from segdet.inference.locate_model import find_model
from segdet.metadata import Metadata
from segdet.serving import selftest
from segdet.serving.metrics import Metrics
from segdet.serving.refusals import Refused
from segdet.serving.runner import Runner
from segdet.serving.scheduler import Job, Scheduler
from segdet.serving.settings import ServeConfig


@dataclass(frozen=True)
class Loaded:
    """A version of a model, tested and warm. version: counts from 1 with every reload. pace: seconds per unit of work."""

    runner: Runner
    version: int
    sha256: str
    since: float
    pace: float

    @property
    def metadata(self) -> Metadata:
        """What the file says about itself."""
        return self.runner.metadata


def work_units(metadata: Metadata, height: int, width: int, tiles: int = 1) -> float:
    """How much work an image is: a segmenter looks at every pixel (unit: a megapixel), a detector at one shrunk image a tile."""
    return float(tiles) if metadata.task == "detection" else max(height * width / 1e6, 0.05)


class ServedModel:
    """A name, the file behind it, and the queue in front of it.

    Raises:
        InputError: a file that cannot be used.
    """

    def __init__(self, name: str, given: Path | None, settings: ServeConfig, metrics: Metrics) -> None:
        self.name = name
        self._given = given
        self._settings = settings
        self._metrics = metrics
        self._reloading = threading.Lock()
        self.scheduler: Scheduler | None = None
        self.current = self._load(1)
        self.scheduler = Scheduler(
            self.current.runner.plan.workers, settings.queue, settings.max_wait, self.current.pace, self._done
        )
        metrics.watch(name, self.scheduler)

    def reload(self) -> Loaded:
        """Read the file again, test it beside the one that serves, and put it in its place; requests go on meanwhile.

        Raises:
            Refused: 409 while another reload runs; 422 when the new file cannot be used (the old one goes on serving).
        """
        if not self._reloading.acquire(blocking=False):
            raise Refused(409, "reloading", f"{self.name} is being reloaded already")
        try:
            self._replace()
            return self.current
        finally:
            memory.trim()  # the model that has gone, or the one that was refused
            self._reloading.release()

    def describe(self) -> dict[str, Any]:
        """For `/v1/models`."""
        now, plan = self.current, self.current.runner.plan
        metadata = now.metadata
        return {
            "name": self.name,
            "version": str(now.version),
            "task": metadata.task,
            "arch": metadata.arch,
            "backbone": metadata.backbone,
            "classes": metadata.classes,
            "colours": ["#{:02x}{:02x}{:02x}".format(*drawing.colour_of(k)) for k in range(len(metadata.classes))],
            "threshold": metadata.threshold,
            "imgsz": metadata.imgsz,
            "file": now.runner.path.name,
            "sha256": now.sha256,
            "loaded_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now.since)),
            "device": now.runner.device,
            "workers": plan.workers,
            "threads": plan.threads,
            "batch": plan.batch,
            "data": {"name": metadata.data.name, "licence": metadata.data.licence},
            "metrics": metadata.metrics,
        }

    def _replace(self) -> None:
        """Put a newly opened model in the place of the current one, which nothing holds afterwards but requests under way."""
        old = self.current
        try:
            self.current = self._load(old.version + 1)
        except InputError as error:
            self._metrics.reloads.labels(self.name, "failed").inc()
            raise Refused(422, "bad_model", f"{error}; version {old.version} goes on serving") from error
        old.runner.close()
        self._metrics.reloads.labels(self.name, "ok").inc()

    def _load(self, version: int) -> Loaded:
        path = find_model(self._given)
        runner = Runner(path, self._settings, self._busy, self._observe)
        selftest.check(runner)
        image = selftest.sample()
        pace = runner.calibrate(image) / work_units(runner.metadata, *image.shape[:2])
        return Loaded(runner, version, sha256_of(path), time.time(), pace)

    def _busy(self) -> int:
        return self.scheduler.running if self.scheduler else 1

    def _observe(self, images: int, seconds: float) -> None:
        self._metrics.batch.labels(self.name).observe(images)
        self._metrics.inference.labels(self.name).observe(seconds)

    def _done(self, job: Job) -> None:
        self._metrics.queue.labels(self.name).observe(job.queued)


class Models:
    """The served models by name; the first is the default. Loading happens in `load`, so that the server can answer that it is
    not ready yet meanwhile."""

    def __init__(self, settings: ServeConfig, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._models: dict[str, ServedModel] = {}
        self.ready = False

    def load(self, say: Callable[[str], None] = lambda line: None) -> None:
        """Open, test and warm all of them.

        Raises:
            InputError: one of them cannot be used.
        """
        for name, given in self._settings.models.items():
            model = ServedModel(name, given, self._settings, self._metrics)
            self._models[name] = model
            now = model.current
            say(
                f"model {name}: {now.runner.path} ({now.metadata.arch} on {now.metadata.backbone}, {now.metadata.task}: "
                f"{', '.join(now.metadata.classes[:5])}{'...' if len(now.metadata.classes) > 5 else ''}; {now.runner.device})"
            )
        self.ready = True

    @property
    def lost(self) -> list[str]:
        """Names of the models whose GPU has failed; only a new process can serve them again."""
        return [model.name for model in self if model.current.runner.lost]

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(list(self._models.values()))

    def get(self, name: str | None, version: str | None = None) -> ServedModel:
        """The model called `name`; None = the default.

        Raises:
            Refused: 404, no such model or version; 503, not loaded yet.
        """
        if not self.ready:
            raise Refused(503, "not_ready", "the models are being loaded; try again", 2)
        if name is None:
            return next(iter(self._models.values()))
        model = self._models.get(name)
        if model is None:
            known = ", ".join(self._models)
            raise Refused(
                404, "no_such_model", f"no model {name[:80]!r}{nearest(name[:80], self._models)}; served: {known}"
            )
        if version is not None and version != str(model.current.version):
            raise Refused(404, "no_such_version", f"{name} has version {model.current.version} only")
        return model

    def close(self, timeout: float) -> None:
        """Finish what is under way and end all threads."""
        for model in self:
            if model.scheduler:
                model.scheduler.close(timeout)
            model.current.runner.close()
