"""Are the answers right: every head on the device against float32 on the processor, within the limits of `segdet export`."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gpu_kit.nets import DETECTORS, HEADS, Net, Workshop, export, provider
from gpu_kit.record import Log
from gpu_kit.tensorrt import fallbacks
from segdet.machine import cores

# Arithmetic on the device -> whose limits it has to keep. TF32 (what PyTorch and TensorRT use for float32 if they may) and
# bf16 have none, as no file has these precisions: only gross errors are caught.
PRECISIONS = {"fp32": "fp32", "tf32": "none", "bf16": "none", "fp16": "fp16"}
GROSS = 0.1  # change of a probability, or share of boxes without a partner on the other side


def compare(log: Log, shop: Workshop, heads: list[str]) -> None:
    """Rows of comparisons: PyTorch in each precision, then the exported files on each provider."""
    references: dict[str, Reference] = {}
    for arch in heads:
        log.step("reference", lambda arch=arch: _refer(shop, arch, references), arch=arch)  # type: ignore[misc]
    known = list(references)
    with _exporters(
        shop
    ) as start:  # on a large machine the files are made meanwhile: tracing takes a processor a while
        files = {arch: start(export, shop, arch) for arch in known}
        for arch, precision in itertools.product(known, ("fp32", "bf16") if shop.device == "cpu" else PRECISIONS):
            work = partial(_torch, shop, references[arch], precision)
            log.step("torch", work, arch=arch, precision=precision)
        for arch in known:
            log.step("export", partial(_export, shop, arch, files[arch]), arch=arch)
    exact: dict[str, Reference] = {}
    kinds = ("cpu",) if shop.device == "cpu" else ("cuda", "tensorrt")  # TensorRT last: its engines take minutes
    for kind, arch, precision in itertools.product(kinds, known, ("fp32", "fp16")):
        work = partial(_onnx, shop, arch, kind, precision, exact)
        log.step("onnx", work, arch=arch, provider=kind, precision=precision)


@contextmanager
def _exporters(shop: Workshop) -> Iterator[Callable[..., Callable[[], None]]]:
    """Gives a function that starts work in another process, or does it when its end is asked for where there is no room."""
    workers = min(len(HEADS), (cores() - 2) // 2)
    if shop.quick or workers < 1:
        yield lambda function, *arguments: partial(function, *arguments)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        try:
            yield lambda function, *arguments: pool.submit(function, *arguments).result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class Reference:
    """Answers that are right, each computed once: `answer` takes RGB uint8 `[H, W, 3]`."""

    def __init__(self, net: Net, answer: Callable[[np.ndarray], Any]) -> None:
        self.net, self._answer = net, answer
        self._known: dict[str, Any] = {}

    def answer(self, image: np.ndarray) -> Any:
        """The answer for an image."""
        key = hashlib.sha256(image.tobytes()).hexdigest()
        if key not in self._known:
            self._known[key] = self._answer(image)
        return self._known[key]


def _refer(shop: Workshop, arch: str, references: dict[str, Reference]) -> dict[str, Any]:
    from segdet.evaluation.detection import Detections
    from segdet.exporting.parity import torch_reference
    from segdet.models.detector import Detector, detect

    net = shop.net(arch)
    if arch in DETECTORS:
        detector = Detector(net.model, net.metadata.mean, net.metadata.std).eval()
        reference = Reference(net, lambda image: Detections(*detect(detector, image[None])[0]))
    else:
        reference = Reference(net, torch_reference(net.model, net.metadata))
    for record in shop.pictures():
        reference.answer(_pixels(record.image))
    references[arch] = reference
    parameters = sum(parameter.numel() for parameter in net.model.parameters())
    about = {"parameters_m": round(parameters / 1e6, 2), "backbone": net.metadata.backbone}
    return {**about, **net.metadata.metrics}


def _pixels(path: Path) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])


class OnDevice:
    """A network on a device in some precision, with the face of an open ONNX file."""

    def __init__(self, net: Net, device: str, precision: str) -> None:
        import copy

        import torch

        from segdet.exporting.graph import ClassesGraph, OneClassGraph
        from segdet.models.detector import Detector

        self.metadata, self.device, self.precision = net.metadata, f"{device} {precision}", precision
        about, model = net.metadata, copy.deepcopy(net.model)
        self.one_class = about.task == "segmentation" and len(about.classes) == 1
        kind = Detector if about.task == "detection" else OneClassGraph if self.one_class else ClassesGraph
        self._graph = kind(model, about.mean, about.std).eval().to(device, memory_format=torch.channels_last)
        self._where = device
        self._threshold = torch.tensor(0.5 if about.threshold is None else about.threshold, device=device)

    def run(self, images: np.ndarray, threshold: float | None = None) -> tuple[np.ndarray, ...]:
        """As `Session.run`."""
        import torch

        pixels = torch.from_numpy(images).to(self._where)
        inputs = (pixels, self._threshold) if self.one_class else (pixels,)
        with torch.inference_mode(), arithmetic(self._where, self.precision):
            outputs = self._graph(*inputs)
        return tuple(
            output.float().cpu().numpy() if output.is_floating_point() else output.cpu().numpy() for output in outputs
        )


def arithmetic(device: str, precision: str) -> Any:
    """A context in which PyTorch computes in this precision: "fp32", "tf32", "bf16" or "fp16"."""
    from contextlib import ExitStack

    import torch

    from segdet.models.devices import full_float32

    stack = ExitStack()
    stack.enter_context(full_float32())
    if precision in ("bf16", "fp16"):
        kind = torch.bfloat16 if precision == "bf16" else torch.float16
        stack.enter_context(torch.autocast(device.partition(":")[0], kind))
    elif precision == "tf32":
        torch.set_float32_matmul_precision("high")  # `full_float32` sets both back
        torch.backends.cudnn.allow_tf32 = True
    return stack


def _torch(shop: Workshop, reference: Reference, precision: str) -> dict[str, Any]:
    return _judged(shop, reference, OnDevice(reference.net, shop.device, precision), PRECISIONS[precision])


def _judged(shop: Workshop, reference: Reference, tested: Any, limits: str) -> dict[str, Any]:
    """Compare on pictures of all sizes, one by one, and then several at once with the same one by one."""
    from segdet.exporting import detection_parity, parity

    pictures = shop.pictures()
    metadata = reference.net.metadata
    if metadata.task == "detection":
        gross = detection_parity.DetectionLimits(box=None, score=None, agreement=1 - GROSS)
        allowed = detection_parity.DETECTION_LIMITS.get(limits, gross)
        compared = detection_parity.compare_detections(reference.answer, tested, pictures, allowed, lambda _: None)
        kept = ("detections", "unmatched", "max_box_difference", "max_score_difference", "agreement")
        broken = detection_parity.broken(compared)
    else:
        # One class answers with probabilities; the limit on IoU needs labels, and has them: the pictures were drawn.
        bounds = parity.LIMITS.get(limits, parity.Limits())
        compared = parity.compare(reference.answer, tested, pictures, bounds, lambda _: None)
        kept = ("max_differing_pixels", "max_confidence_difference", "agreement")
        broken = parity.broken(compared)
        if limits == "none" and (compared["max_confidence_difference"] or 0.0) > GROSS:
            broken.append("confidence")
    batches = {f"batch {count}": _together(tested, pictures[:2], count) for count in shop.scale.together}
    return {
        "limits": limits,
        "passed": not broken,
        "broken": broken,
        **{key: compared[key] for key in kept},
        "batches": batches,
        "images": [record.image.stem.removeprefix("picture-") for record in pictures],
    }


def _together(tested: Any, pictures: list[Any], count: int) -> float:
    """The largest difference between `count` images at once and the same images alone: share of pixels, or score."""
    worst = 0.0
    for record in pictures:
        image = _pixels(record.image)
        images = np.stack([np.roll(image, 5 * k, axis=1) for k in range(count)])
        alone = [tested.run(one[None]) for one in images]
        first, second, *_ = tested.run(images)
        for row, answers in enumerate(alone):
            if first.dtype == np.uint8:
                worst = max(worst, float((first[row] != answers[0][0]).mean()))
            else:
                worst = max(worst, float(np.abs(second[row] - answers[1][0]).max()))
    return round(worst, 6)


def _export(shop: Workshop, arch: str, finish: Callable[[], None]) -> dict[str, Any]:
    import onnx

    finish()
    sizes = {precision: shop.onnx(arch, precision) for precision in ("fp32", "fp16")}
    left = fallbacks(onnx.load(sizes["fp32"]))
    return {
        "megabytes": {name: round(path.stat().st_size / 1e6, 1) for name, path in sizes.items()},
        "tensorrt_leaves_out": sorted({f"{node.operator}: {node.reason}" for node in left}),
    }


def _onnx(shop: Workshop, arch: str, kind: str, precision: str, exact: dict[str, Reference]) -> dict[str, Any]:
    from segdet.inference.backends.select import open_session

    provider(kind)
    if arch not in exact:
        exact[arch] = _of_file(shop, arch)
    number = shop.device.partition(":")[2]
    tested = open_session(shop.onnx(arch, precision), f"{kind}:{number}" if number and kind != "cpu" else kind)
    return {"runs_on": tested.device, **_judged(shop, exact[arch], tested, precision)}


def _of_file(shop: Workshop, arch: str) -> Reference:
    """The answers of the fp32 file on the processor."""
    from segdet.evaluation.detection import Detections
    from segdet.exporting.parity import session_reference
    from segdet.inference.backends.select import open_session

    session = open_session(shop.onnx(arch), "cpu")
    net = replace(shop.net(arch), metadata=session.metadata)
    if session.metadata.task != "detection":
        return Reference(net, session_reference(session))
    return Reference(net, lambda image: Detections(*(output[0] for output in session.run(image[None]))))
