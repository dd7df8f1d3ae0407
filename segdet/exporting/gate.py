"""The gate that every exported file passes: one face for masks and boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from segdet.data.records import Record
from segdet.evaluation.detection import Detections
from segdet.exporting import detection_parity, parity
from segdet.exporting.detection_parity import DETECTION_LIMITS, compare_detections
from segdet.inference.backends.session import Session
from segdet.metadata import Metadata
from segdet.models.detector import Detector, detect

PRECISIONS = ("fp32", "fp16", "int8")

# (open file, records, advance) -> the content of `<name>.parity.json`
Gate = Callable[[Session, Sequence[Record], Callable[[int], None]], dict[str, Any]]


def against_torch(model: nn.Module, metadata: Metadata, precision: str, tolerance: float | None) -> Gate:
    """The gate of a precision: PyTorch in float32 is right.

    Args:
        tolerance: replaces the first limit: in fp32 the share of differing pixels on an image, or the pixels by which a
            corner may move; else the loss of IoU or AP.
    """
    if metadata.task == "detection":
        detector = Detector(model, metadata.mean, metadata.std, metadata.damp_duplicates).eval()
        bounds = DETECTION_LIMITS[precision]
        if tolerance is not None:
            bounds = replace(bounds, **{"box" if precision == "fp32" else "loss": tolerance})
        return lambda session, records, advance: compare_detections(
            lambda image: Detections(*detect(detector, image[None])[0]), session, records, bounds, advance
        )
    limits = parity.LIMITS[precision]
    if tolerance is not None:
        limits = replace(limits, **{"pixels" if precision == "fp32" else "loss": tolerance})
    reference = parity.torch_reference(model, metadata)
    return lambda session, records, advance: parity.compare(reference, session, records, limits, advance)


def against_file(exact: Session, precision: str, tolerance: float | None) -> Gate:
    """As `against_torch`, but the answers of an fp32 file are right, and only half of the loss is allowed.

    For choosing among candidates: it is twice as fast, and the margin is for the images that were not looked at.
    """
    if exact.metadata.task == "detection":
        bounds = DETECTION_LIMITS[precision]
        bounds = replace(
            bounds, loss=None if bounds.loss is None else (bounds.loss if tolerance is None else tolerance) / 2
        )
        return lambda session, records, advance: compare_detections(
            lambda image: Detections(*(output[0] for output in exact.run(image[None]))),
            session,
            records,
            bounds,
            advance,
        )
    limits = parity.LIMITS[precision]
    limits = replace(
        limits, loss=None if limits.loss is None else (limits.loss if tolerance is None else tolerance) / 2
    )
    reference = parity.session_reference(exact)
    return lambda session, records, advance: parity.compare(reference, session, records, limits, advance)


def sentence(compared: dict[str, Any]) -> str:
    """What a comparison found, in one line."""
    return (parity.sentence if "iou" in compared else detection_parity.sentence)(compared)


def loss(compared: dict[str, Any]) -> float:
    """How much of IoU or AP is lost; 0 where there is no metric."""
    delta = compared["iou" if "iou" in compared else "ap"]["delta"]
    return 0.0 if delta is None else -float(delta)
