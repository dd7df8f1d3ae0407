"""Inference: latency and images a second of PyTorch and of ONNX Runtime, how busy the GPU is, and what copies take."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpu_kit.correct import arithmetic
from gpu_kit.machine import Meter, seconds_of_runs
from gpu_kit.nets import Net, Workshop, provider
from gpu_kit.record import LeftOut, Log
from gpu_kit.sessions import Times, Variant, opened

COMPILED = 2  # shapes that PyTorch and TensorRT compile for: each takes up to minutes


def measure(log: Log, shop: Workshop, heads: list[str]) -> None:
    """Rows of timings: the shapes in turn, for each all ways to run, so that a run that is cut off has some of all."""
    gpu = shop.device != "cpu"
    number = int(shop.device.partition(":")[2] or 0)
    files = _variants(gpu, number)
    for place, (size, batch) in enumerate(_shapes(shop)):
        shape = (batch, *size, 3)
        for arch in heads:
            about = {"arch": arch, "size": f"{size[0]}x{size[1]}", "batch": batch}
            for precision in ("fp32", "bf16"):
                log.step(f"eager {precision}", _eager(shop, arch, precision, shape), **about)
            if place < COMPILED and gpu:
                log.step("compile bf16", _eager(shop, arch, "bf16", shape, compiled=True), **about)
            for variant, precision in files:
                if variant.kind == "tensorrt" and place >= COMPILED:
                    continue
                log.step(f"onnx {precision} {variant.name}", _file(shop, arch, precision, variant, shape), **about)


def _shapes(shop: Workshop) -> Iterator[tuple[tuple[int, int], int]]:
    """Sizes and batches; the usual ones first."""
    every = list(itertools.product(shop.scale.speeds, shop.scale.batches))
    usual = [((640, 640), 8), ((416, 416), 1)]
    yield from [shape for shape in usual if shape in every]
    yield from [shape for shape in every if shape not in usual]


def _variants(gpu: bool, number: int) -> list[tuple[Variant, str]]:
    if not gpu:
        return [(Variant("cpu"), "fp32"), (Variant("cpu", bound=True), "fp32")]
    ways = [
        Variant("cuda", number=number),
        Variant("cuda", bound=True, number=number),
        Variant("cuda", bound=True, captured=True, number=number),
    ]
    files = [(way, precision) for precision in ("fp32", "fp16") for way in ways]
    files.insert(1, (Variant("cuda", tf32=True, number=number), "fp32"))
    return [*files, (Variant("tensorrt", bound=True, number=number), "fp16")]


def _images(shape: tuple[int, ...]) -> np.ndarray:
    """Noise: zeros would be faster than photographs on some GPUs."""
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _row(times: list[float], batch: int, meter: Meter, copies: float | None) -> dict[str, Any]:
    middle = statistics.median(times)
    spread = np.percentile(times, [10, 90])
    return {
        "ms": round(1000 * middle, 3),
        "ms_10_90": [round(1000 * float(value), 3) for value in spread],
        "images_per_second": round(batch / middle, 1),
        "copy_share": None if copies is None else round(copies / middle, 3),
        "runs": len(times),
        **meter.result,
    }


def _eager(
    shop: Workshop, arch: str, precision: str, shape: tuple[int, ...], compiled: bool = False
) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        return _torch_times(shop.net(arch), shop, precision, shape, compiled)

    return work


def _torch_times(net: Net, shop: Workshop, precision: str, shape: tuple[int, ...], compiled: bool) -> dict[str, Any]:
    """From bytes in pinned memory to answers in pinned memory: copy in, compute, copy out, each waited for together."""
    import torch

    from gpu_kit.correct import OnDevice

    gpu = shop.device != "cpu"
    on_device = OnDevice(net, shop.device, precision)
    graph, threshold = on_device._graph, on_device._threshold
    if compiled:
        graph = torch.compile(graph, dynamic=False)
    images = torch.from_numpy(_images(shape))
    images = images.pin_memory() if gpu else images

    def answers(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.inference_mode(), arithmetic(shop.device, precision):
            return tuple(graph(pixels, threshold) if on_device.one_class else graph(pixels))

    places = [torch.empty_like(out, device="cpu", pin_memory=gpu) for out in answers(images.to(shop.device))]
    share: list[float] = []

    def run() -> None:
        if not gpu:
            answers(images)
            return
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        marks[0].record()
        pixels = images.to(shop.device, non_blocking=True)
        marks[1].record()
        found = answers(pixels)
        marks[2].record()
        for place, out in zip(places, found, strict=True):
            place.copy_(out, non_blocking=True)
        marks[3].record()
        marks[3].synchronize()
        share.append((marks[0].elapsed_time(marks[1]) + marks[2].elapsed_time(marks[3])) / 1000)

    with Meter(shop.device) as meter:
        times = seconds_of_runs(run, shop.scale.seconds, shop.device)
    row = _row(times, shape[0], meter, statistics.median(share) if share else None)
    return {**row, "channels_last": True}


def _file(
    shop: Workshop, arch: str, precision: str, variant: Variant, shape: tuple[int, ...]
) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        provider(variant.kind)
        path, images = shop.onnx(arch, precision), _images(shape)
        began = time.perf_counter()
        try:
            file = opened(path, variant, shape)
            file.run(images)  # TensorRT builds its engine here
        except Exception as error:
            if variant.captured:  # a node on the processor, or control flow: a limit that is to be known, no fault
                raise LeftOut(f"cannot be captured: {str(error).splitlines()[0][:200]}") from error
            raise
        start = time.perf_counter() - began
        taken: list[Times] = []
        with Meter(shop.device) as meter:
            # A run returns once its answers are in memory, so nothing is left to wait for.
            seconds_of_runs(lambda: taken.append(file.run(images)[1]), shop.scale.seconds, "cpu")
        taken = taken[3:]  # warm-up
        copies = [each.copies for each in taken if each.copies is not None]
        row = _row([each.whole for each in taken], shape[0], meter, statistics.median(copies) if copies else None)
        return {**row, "start_s": round(start, 2)}

    return work
