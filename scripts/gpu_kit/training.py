"""Training: how fast it is, what it waits for, and whether the loss falls as it does on the processor."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any

from gpu_kit.machine import Meter, synchronise
from gpu_kit.nets import Workshop
from gpu_kit.record import Log

ARCHS = ("unet", "deeplabv3plus", "segmenter", "dfine")


def ready(options: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Stepper, task and setup of a training with these settings.

    Accelerate allows one precision in a process; its state is dropped, so that the next training may choose again.
    """
    from accelerate.state import AcceleratorState

    from segdet.training.config import TrainConfig
    from segdet.training.run import prepared
    from segdet.training.stepper import Stepper

    AcceleratorState._reset_state(reset_partial_state=True)
    setup, task = prepared(TrainConfig.from_options(**options))
    stepper = Stepper(setup)
    stepper.start_epoch(0)
    return stepper, task, setup


def measure(log: Log, shop: Workshop, heads: list[str]) -> None:
    """Rows of training speed: bf16 and channels_last as segdet trains, then compiled, then with the batch it chooses."""
    variants: list[dict[str, Any]] = [{}, {"batch": "auto"}, {"compile": True}]
    if shop.quick:
        variants = variants[:2]
    archs = [arch for arch in ARCHS if arch in heads]
    for more, arch in itertools.product(variants, archs):
        name = " ".join(f"{key}={value}" for key, value in more.items()) or "as trained"
        log.step(name, lambda arch=arch, more=more: _speed(shop, arch, more), arch=arch)  # type: ignore[misc]


def _speed(shop: Workshop, arch: str, more: dict[str, Any]) -> dict[str, Any]:
    import torch

    from segdet.models.devices import algorithm_search

    gpu = shop.device.startswith("cuda")
    stepper, task, setup = ready(shop.options(arch, **more))
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = max(1.0, 6 * shop.scale.seconds)
    with algorithm_search(task.few_sizes):
        batches = epochs(task)
        for number, batch in zip(range(3), batches, strict=False):  # compiling and tuning happen here
            stepper.step(batch, task.loss, 1.0, number)
        synchronise(shop.device)
        images, waited, steps = 0, 0.0, 0
        began = last = time.perf_counter()
        with Meter(shop.device) as meter:
            while time.perf_counter() - began < seconds or steps < 3:
                batch = next(batches)
                if stepper.idle:
                    waited += time.perf_counter() - last
                stepper.step(batch, task.loss, 1.0, steps)
                images, steps = images + len(batch.indices), steps + 1
                last = time.perf_counter()
            synchronise(shop.device)
        spent = time.perf_counter() - began
    row = {
        "images_per_second": round(images / spent, 1),
        "batch": setup.config.images,
        "imgsz": setup.imgsz,
        "precision": setup.accelerator.mixed_precision.replace("no", "fp32"),
        "loader_wait": round(waited / spent, 3),
        "parts": stepper.parts,
        **meter.result,
    }
    return {**row, "peak_memory_mb": round(torch.cuda.max_memory_allocated() / 1e6)} if gpu else row


def epochs(task: Any) -> Iterator[Any]:
    """The batches of one epoch after another, without end."""
    while True:
        yield from task.train
        task.plan.epoch += 1


def learn(log: Log, shop: Workshop, seconds: float) -> None:
    """Rows that show a loss falling: the same steps on processor and GPU, then a real training for some time."""
    steps = 6 if shop.quick else 15
    curves: dict[str, list[float]] = {}
    for device, precision in dict.fromkeys([("cpu", "fp32"), (shop.device, "fp32"), (shop.device, "auto")]):
        name = f"{steps} steps, {device} {precision}"
        row = log.step(name, lambda d=device, p=precision: _losses(shop, d, p, steps), arch="unet")  # type: ignore[misc]
        if "losses" in row:
            curves[name] = row["losses"]
    if len(curves) > 1:
        first, *others = curves.values()
        log.step("curves", lambda: {"largest_difference": [_apart(first, other) for other in others]}, arch="unet")
    log.step("training", lambda: _trained(shop, seconds), arch="unet")


def _losses(shop: Workshop, device: str, precision: str, steps: int) -> dict[str, Any]:
    stepper, task, _ = ready(shop.options("unet", device=device, precision=precision, batch=min(8, shop.scale.batch)))
    pairs = zip(range(steps), epochs(task), strict=False)
    losses = [float(stepper.step(batch, task.loss, 1.0, number)) for number, batch in pairs]
    third = max(1, steps // 3)
    return {
        "first": round(statistics.mean(losses[:third]), 4),
        "last": round(statistics.mean(losses[-third:]), 4),
        "losses": [round(loss, 5) for loss in losses],
    }


def _apart(first: list[float], other: list[float]) -> float:
    return round(max(abs(a - b) / max(abs(a), 1e-6) for a, b in zip(first, other, strict=True)), 5)


def _trained(shop: Workshop, seconds: float) -> dict[str, Any]:
    import csv

    from accelerate.state import AcceleratorState

    import segdet

    AcceleratorState._reset_state(reset_partial_state=True)
    options = shop.options("unet", **({"epochs": 2} if shop.quick else {"time_budget": f"{seconds:.0f}s"}))
    run = segdet.train(options.pop("arch"), options.pop("data"), **options)
    with (run / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train/loss"]) for row in rows]
    return {
        "epochs": len(rows),
        "first": round(losses[0], 4),
        "last": round(losses[-1], 4),
        "falls": losses[-1] < losses[0],
        "iou": [round(float(row["metrics/iou"]), 4) for row in rows if row["metrics/iou"]][-1],
        "images_per_second": round(statistics.median(float(row["images_per_second"]) for row in rows), 1),
        "data_wait": round(statistics.median(float(row["data_wait"]) for row in rows), 3),
    }
