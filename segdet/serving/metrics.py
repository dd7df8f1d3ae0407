"""Metrics for Prometheus, in seconds and counts."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from segdet.serving.scheduler import Scheduler

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The counters of one server (not global ones: tests and Ray run several in a process)."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter("segdet_requests", "Requests answered", ["route", "method", "code"], registry=registry)
        self.latency = Histogram(
            "segdet_request_seconds", "Seconds from request to answer", ["route"], buckets=_SECONDS, registry=registry
        )
        self.rejected = Counter("segdet_rejected", "Requests turned away", ["reason"], registry=registry)
        self.queue = Histogram(
            "segdet_queue_seconds", "Seconds an image waited", ["model"], buckets=_SECONDS, registry=registry
        )
        self.inference = Histogram(
            "segdet_inference_seconds", "Seconds of one inference", ["model"], buckets=_SECONDS, registry=registry
        )
        self.stages = Histogram(
            "segdet_stage_seconds",
            "Seconds of decode, predict and encode",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch = Histogram(
            "segdet_batch_size", "Images in one inference", ["model"], buckets=(1, 2, 4, 8, 16, 32), registry=registry
        )
        self.images = Counter("segdet_images", "Images predicted", ["model"], registry=registry)
        self.reloads = Counter("segdet_model_reloads", "Reloads", ["model", "result"], registry=registry)
        self.held = Gauge("segdet_body_bytes", "Bytes of request bodies held", registry=registry)
        self._waiting = Gauge("segdet_pending_images", "Images in the queue", ["model"], registry=registry)
        self._running = Gauge("segdet_running_images", "Images worked on", ["model"], registry=registry)

    def watch(self, model: str, scheduler: Scheduler) -> None:
        """Report a model's queue."""
        self._waiting.labels(model).set_function(lambda: scheduler.waiting)
        self._running.labels(model).set_function(lambda: scheduler.running)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
