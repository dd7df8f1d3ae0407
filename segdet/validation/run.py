"""Measuring trained weights or an exported model on a dataset split: what `segdet val` does.

It sits above evaluation, models and inference because it joins them: evaluation itself knows no model.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from segdet.console import progress
from segdet.data import learnable
from segdet.data.images import ImageError, read_ahead, resize
from segdet.data.loading import corruptions as degradations
from segdet.data.loading.datasets import Batch, SegmentationSamples, evaluation_plan, largest
from segdet.data.loading.loader import Stream, default_workers
from segdet.data.records import Problem, Record
from segdet.errors import InputError, InvalidOption, setting
from segdet.evaluation import detection, segmentation
from segdet.evaluation.detection import DetectionEvaluation, Detections
from segdet.evaluation.mask_errors import MaskError
from segdet.evaluation.operating import DEFAULT, Rule, parse
from segdet.evaluation.segmentation import Answer, Evaluation
from segdet.evaluation.tally import Tally
from segdet.inference.backends.select import open_session
from segdet.inference.backends.session import Session
from segdet.inference.predict import multiscale, sizes, tiling
from segdet.metadata import Metadata
from segdet.models import devices, weights
from segdet.models.network import Network

Counted = TypeVar("Counted", Evaluation, DetectionEvaluation)


@dataclass
class Measured(Generic[Counted]):
    """A measurement.

    metrics: the content of `metrics.json`. evaluation: predictions and counts. tally: what was counted in every image.
    errors: of masks, one by one; empty for detection.
    """

    metadata: Metadata
    metrics: dict[str, Any]
    evaluation: Counted
    tally: Tally
    errors: list[MaskError] = field(default_factory=list)


def validate(
    source: Path,
    records: Sequence[Record],
    split: str,
    *,
    classes: Sequence[str] | None = None,
    rule: Rule | None = None,
    imgsz: int | None = None,
    degrade: str | None = None,
    batch: int = 4,
    workers: int | None = None,
    device: str = "cpu",
) -> Measured[Any]:
    """Measure weights (safetensors) or an ONNX file on `records`, in float32.

    On "val" the threshold is chosen again, by `rule` or the one the file was made with; on any other split, and where no object is
    labelled, the stored one is used. The model's task decides what is counted, and with it the kind of evaluation.

    Args:
        imgsz: the longer side (segmentation) or the network's side (detection) images are resized to before the network. Scores
            are taken at the images' own size all the same. None: their own size, or the detector's.
        degrade: degrade the images first (`data.degrade`); the stored threshold is used, as it would be in the field.
        device: of weights auto, cpu, cuda or cuda:N; of an ONNX file what `open_session` takes.

    Raises:
        InputError: an unusable file or device, classes that differ from the dataset's, or a rule where no threshold may be chosen.
    """
    session = open_session(source, device) if source.suffix == ".onnx" else None
    device = session.device if session is not None else devices.chosen(device)
    metadata = session.metadata if session is not None else weights.read_metadata(source)
    if classes is not None and list(classes) != metadata.classes:
        raise InputError(
            f"{source}: knows the classes {metadata.classes}, the dataset has {list(classes)}; use matching data"
        )
    if rule is not None and split != "val":
        reason = f"thresholds are chosen on val; on {split} the stored one is used"
        raise InvalidOption("threshold_rule", rule, reason)
    corrupt = degradations.named(degrade) if degrade is not None else None
    if corrupt is not None and rule is not None:
        reason = f"thresholds are chosen on unchanged images, not with {setting('degrade', degrade)}"
        raise InvalidOption("threshold_rule", rule, reason)
    objects = learnable.has_objects(records, metadata.task, len(metadata.classes))
    if rule is not None and not objects:
        raise InvalidOption(
            "threshold_rule",
            rule,
            f"no object is labelled in the {len(records)} images of {split}",
            "choose it on others",
        )
    chosen_here = split == "val" and corrupt is None and (objects or metadata.threshold is None)
    threshold = None if chosen_here or metadata.threshold is None else metadata.threshold
    rule = rule or parse(metadata.operate or DEFAULT)
    if metadata.task == "detection":
        measured: Measured[Any] = _boxes(
            source, session, metadata, records, split, rule, threshold, imgsz, device, corrupt
        )
    else:
        answer = _sized(_onnx_masks(session) if session is not None else _torch_masks(source, device), imgsz)
        if corrupt is not None:
            answer = _degraded(answer, corrupt)
        samples = SegmentationSamples(records, len(metadata.classes))
        plan = evaluation_plan(records, batch)
        batches = Stream(
            samples, plan, default_workers() if workers is None else workers, largest=largest(plan, records)
        )
        with progress(f"measuring on {split}", len(records)) as advance:
            masks = segmentation.evaluate(answer, batches, records, metadata.classes, advance, keep=True)
        judged = segmentation.judge(masks, split, rule, threshold)
        measured = Measured(metadata, judged.metrics, masks, judged.tally, judged.errors)
    if imgsz is not None:
        measured.metrics["imgsz"] = imgsz
    if degrade is not None:
        measured.metrics["degrade"] = degrade
    measured.metrics["speed"] = _speed(measured.evaluation, session, device)
    return measured


def _boxes(
    source: Path,
    session: Session | None,
    metadata: Metadata,
    records: Sequence[Record],
    split: str,
    rule: Rule,
    threshold: float | None,
    imgsz: int | None,
    device: str,
    corrupt: degradations.Degrade | None,
) -> Measured[DetectionEvaluation]:
    if session is not None and imgsz is not None:
        hint = "measure the weights it was exported from"
        raise InvalidOption("imgsz", imgsz, f"{source} has a fixed size", hint)
    found = _onnx_detections(session) if session is not None else _torch_detections(source, device, imgsz)
    with progress(f"measuring on {split}", len(records)) as advance:
        boxes = detection.evaluate_detections(found, _images(records, corrupt), records, metadata.classes, advance)
    judged = detection.judge(boxes, split, rule, threshold)
    return Measured(metadata, judged.metrics, boxes, judged.tally)


def _speed(result: Evaluation | DetectionEvaluation, session: Session | None, device: str) -> dict[str, Any]:
    """What predicting took, on this machine as busy as it was."""
    if session is not None:
        import onnxruntime

        runtime = f"onnxruntime {onnxruntime.__version__}"
    else:
        runtime = f"torch {torch.__version__}"
    name = (
        torch.cuda.get_device_name(device)
        if device.startswith("cuda") and torch.cuda.is_available()
        else platform.machine()
    )
    return {
        "seconds_per_image": result.seconds / max(1, len(result.indices)),
        "device": f"{device} ({name})",
        "threads": torch.get_num_threads(),
        "runtime": runtime,
    }


def _torch_masks(source: Path, device: str) -> Callable[[Batch], Answer]:
    model, metadata = weights.load(source)
    network = Network(model.to(device, memory_format=torch.channels_last), metadata)

    @devices.full_float32()
    def answer(batch: Batch) -> Answer:
        mask, confidence = tiling.answers(network, batch.images.numpy())
        return confidence if network.one_class else (mask, confidence)

    return answer


def _onnx_masks(session: Session) -> Callable[[Batch], Answer]:
    metadata = session.metadata

    def look(image: np.ndarray) -> np.ndarray:
        return np.asarray(tiling.answers(session, image[None])[1][0])

    def answer(batch: Batch) -> Answer:
        images = batch.images.numpy()
        mask, confidence = tiling.answers(session, images)
        if not session.one_class:
            return mask, confidence
        pairs = zip(images, confidence, strict=True)
        return np.stack([multiscale.multiscale_confidence(*pair, metadata.down_to, look) for pair in pairs])

    return answer


def _sized(answer: Callable[[Batch], Answer], imgsz: int | None) -> Callable[[Batch], Answer]:
    """As `answer`, on images whose longer side is `imgsz`, with its masks brought back to the images' own size."""
    if imgsz is None:
        return answer

    def resized(batch: Batch) -> Answer:
        own = batch.images.shape[1], batch.images.shape[2]
        images = np.stack([resize(image, *sizes.resized(own, imgsz)) for image in batch.images.numpy()])
        answers = answer(Batch(torch.from_numpy(images), batch.targets, batch.indices))
        if isinstance(answers, tuple):  # class numbers cannot be averaged
            pairs = [sizes.restored(*one, own, cut=None) for one in zip(*answers, strict=True)]
            return np.stack([mask for mask, _ in pairs]), np.stack([confidence for _, confidence in pairs])
        return np.stack([resize(one, *own) for one in answers])

    return resized


def _degraded(answer: Callable[[Batch], Answer], corrupt: degradations.Degrade) -> Callable[[Batch], Answer]:
    """As `answer`, on images made worse."""

    def degraded(batch: Batch) -> Answer:
        images = np.stack([corrupt(image) for image in batch.images.numpy()])
        return answer(Batch(torch.from_numpy(images), batch.targets, batch.indices))

    return degraded


@dataclass
class _Images:
    """images uint8 `[N, H, W, 3]` at their own size, their record indices, and what had to be left out."""

    images: np.ndarray
    indices: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def _images(records: Sequence[Record], corrupt: degradations.Degrade | None) -> Iterator[_Images]:
    """Every image for itself: detectors take any size, and photographs of one size are rare."""
    for index, image in enumerate(read_ahead(record.image for record in records)):
        record = records[index]
        if isinstance(image, ImageError):
            why = str(image).removeprefix(f"{record.image}: ")
        elif image.shape[:2] != record.size:
            why = f"changed on disk: it was {record.width}x{record.height} when it was listed"
        else:
            yield _Images((image if corrupt is None else corrupt(image))[None], [index])
            continue
        yield _Images(np.empty((0, 1, 1, 3), np.uint8), problems=[Problem(record.image, why)])


def _torch_detections(source: Path, device: str, imgsz: int | None) -> Callable[[_Images], list[Detections]]:
    from segdet.models.detector import load_detector

    predict_boxes, _ = load_detector(source, device, imgsz)

    @devices.full_float32()
    def answer(batch: _Images) -> list[Detections]:
        return [Detections(*found) for found in predict_boxes(batch.images)]

    return answer


def _onnx_detections(session: Session) -> Callable[[_Images], list[Detections]]:
    return lambda batch: [Detections(*found) for found in zip(*session.run(batch.images), strict=True)]
