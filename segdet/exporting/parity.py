"""Does the exported file give the same answers as the model it came from? Measured on real images, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from segdet.data.geometry import rasterize
from segdet.data.images import ImageError, read_ahead
from segdet.data.records import Record
from segdet.errors import SegdetError
from segdet.evaluation.bootstrap import drawn
from segdet.evaluation.ratios import share
from segdet.inference.backends.session import Session
from segdet.inference.predict.tiling import answers
from segdet.metadata import Metadata
from segdet.models.network import Network

# RGB uint8 [H, W, 3] -> the reference's mask uint8 [H, W], and its foreground probability [H, W] when there is one class.
Reference = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class Limits:
    """What a file may differ by. None: measured, but not bounded.

    pixels: share of differing pixels on any image. change: of the metric, in either direction. loss: of the metric,
    downwards. agreement: least overlap (IoU) of the two sides' masks, over all images.
    """

    pixels: float | None = None
    change: float | None = None
    loss: float | None = None
    agreement: float | None = None


UNJUDGED = "the change of {} could not be judged, for no object is labelled"

# fp32 is the contract's. A lower precision is bounded by what it costs; the agreement keeps it honest where the metric cannot
# tell (a weak model, few images): masks that overlap less than that are not the same model's.
LIMITS = {
    "fp32": Limits(pixels=0.0005, change=0.001),
    "fp16": Limits(loss=0.001, agreement=0.98),
    "int8": Limits(loss=0.01, agreement=0.85),
}


def torch_reference(model: nn.Module, metadata: Metadata) -> Reference:
    """PyTorch's answers in float32."""
    return session_reference(Network(model, metadata))


def session_reference(session: Session | Network) -> Reference:
    """The answers of a network or an exported file; of large images in tiles, as `segdet predict` gives them."""
    threshold = session.metadata.decision_threshold

    def answer(image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        mask, confidence = (output[0] for output in answers(session, image[None], threshold))
        return mask, confidence if session.one_class else None

    return answer


def compare(
    reference: Reference,
    session: Session,
    records: Sequence[Record],
    limits: Limits,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Run both on every record: the content of `<name>.parity.json`. `index` in its rows: which record, for names may repeat.

    Raises:
        SegdetError: no image could be read.
    """
    classes, exported = len(session.metadata.classes), session_reference(session)
    rows: list[dict[str, Any]] = []
    counts: list[np.ndarray] = []  # of each image [2 sides, overlap and union, classes], with the labels
    shared = np.zeros(2, np.int64)  # pixels that both sides call the same class, and that either calls foreground
    skipped: list[str] = []
    photographs: list[str] = []
    labelled = False
    for index, record, image in readable(records, skipped, advance):
        theirs, probability = reference(image)
        ours, confidence = exported(image)
        target = rasterize.class_index(record) if classes > 1 else rasterize.binary(rasterize.foreground(record))
        labelled = labelled or bool(((target > 0) & (target != rasterize.IGNORE)).any())
        counts.append(np.array([_overlap(side, target, classes) for side in (theirs, ours)]))
        either = (theirs > 0) | (ours > 0)
        shared += np.array([((theirs == ours) & either).sum(), either.sum()])
        photographs.append(record.photograph)
        before, after = iou(counts[-1])
        rows.append(
            {
                "image": record.image.name,
                "index": index,
                "pixels": float((theirs != ours).mean()),
                "confidence": None
                if confidence is None or probability is None
                else float(np.abs(confidence - probability).max()),
                "delta_iou": float(after - before),
            }
        )
    rows.sort(key=lambda row: -row["pixels"])
    compared = {
        **sides(session),
        "compared": len(rows),
        "skipped": skipped,
        "max_differing_pixels": rows[0]["pixels"],
        "mean_differing_pixels": float(np.mean([row["pixels"] for row in rows])),
        "max_confidence_difference": max(
            (row["confidence"] for row in rows if row["confidence"] is not None), default=None
        ),
        "agreement": float(share(*shared)),
        "iou": _metric(np.stack(counts), photographs) if labelled else both_sides(None, None, np.zeros(0)),
        "limits": asdict(limits),
    }
    return {
        **compared,
        "passed": not broken(compared),
        "worst": rows[:5],
        "images": sorted(rows, key=lambda row: row["image"]),
    }


def broken(compared: dict[str, Any]) -> list[str]:
    """Names of the limits that a comparison of masks does not keep."""
    limits = Limits(**compared["limits"])
    delta = compared["iou"]["delta"]
    tests = {
        "pixels": limits.pixels is not None and compared["max_differing_pixels"] > limits.pixels,
        "change": limits.change is not None and delta is not None and not abs(delta) <= limits.change,
        "loss": limits.loss is not None and delta is not None and not -delta <= limits.loss,
        "agreement": limits.agreement is not None and not compared["agreement"] >= limits.agreement,
    }
    return [name for name, failed in tests.items() if failed]


def sentence(compared: dict[str, Any]) -> str:
    """The comparison in one line."""
    limits = Limits(**compared["limits"])

    def within(limit: float | None, form: str = "g", most: str = "limit") -> str:
        return "" if limit is None else f" ({most} {limit:{form}})"

    bound = limits.change if limits.change is not None else None if limits.loss is None else -limits.loss
    if compared["iou"]["delta"] is None:
        metric = f"{UNJUDGED.format('IoU')} "
    else:
        low, high = compared["iou"]["ci95"]
        metric = (
            f"IoU changes by {compared['iou']['delta']:+.5f}{within(bound)}, 95 % between {low:+.5f} and {high:+.5f}, "
        )
    return (
        f"at most {compared['max_differing_pixels']:.4%} of the pixels of an image differ{within(limits.pixels, '.4%')}, "
        f"the masks overlap to {compared['agreement']:.2%}{within(limits.agreement, '.0%', 'at least')}, "
        f"{metric}on {compared['compared']} images"
    )


def _overlap(mask: np.ndarray, target: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of each class in both and in either of mask and target: int64 `[2, classes]` (ignored ones left out)."""
    known = target != rasterize.IGNORE
    mask, target = mask[known].astype(np.int64), target[known].astype(np.int64)
    found, there = (np.bincount(part, minlength=classes + 1)[1:] for part in (mask, target))
    both = np.bincount(mask[mask == target], minlength=classes + 1)[1:]
    return np.stack([both, found + there - both])


def iou(counts: np.ndarray) -> np.ndarray:
    """Counts `[..., overlap and union, classes]` -> `[...]`: the mean over classes that occur; 1 where none does."""
    each = share(counts[..., 0, :], counts[..., 1, :])
    occurs = counts[..., 1, :] > 0
    number = occurs.sum(axis=-1)
    return np.where(number > 0, (each * occurs).sum(axis=-1) / np.maximum(number, 1), 1.0)


def _metric(counts: np.ndarray, photographs: Sequence[str]) -> dict[str, Any]:
    """IoU of both sides from `[images, 2, 2, classes]`, and their difference with its paired 95 % bootstrap interval.

    Paired: the same photographs are drawn for both sides, so what makes one set of photographs harder than another
    cancels out.
    """
    before, after = iou(counts.sum(axis=0))
    samples = iou((drawn(photographs, 1000) @ counts.reshape(len(counts), -1)).reshape(-1, *counts.shape[1:]))
    return both_sides(before, after, samples[:, 1] - samples[:, 0])


def both_sides(before: float | None, after: float | None, deltas: np.ndarray) -> dict[str, Any]:
    """A metric of both sides, its change, and the 95 % interval of the change from bootstrap samples."""
    if before is None or after is None:
        return {"torch": None, "onnx": None, "delta": None, "ci95": None}
    return {
        "torch": float(before),
        "onnx": float(after),
        "delta": float(after) - float(before),
        "ci95": [float(np.percentile(deltas, q)) for q in (2.5, 97.5)],
    }


def readable(
    records: Sequence[Record], skipped: list[str], advance: Callable[[int], None]
) -> Iterator[tuple[int, Record, np.ndarray]]:
    """Records with their place in the sequence and their images; what cannot be read goes into `skipped`.

    Raises:
        SegdetError: after the last one, when none could be read.
    """
    images = read_ahead(record.image for record in records)
    for index, (record, image) in enumerate(zip(records, images, strict=True)):
        if isinstance(image, ImageError):
            skipped.append(str(image))
        elif image.shape[:2] != record.size:
            skipped.append(f"{record.image}: changed on disk: it was {record.width}x{record.height} when it was listed")
        else:
            yield index, record, image
        advance(1)
    if len(skipped) == len(records):
        first = f" (first: {skipped[0]})" if skipped else ""
        raise SegdetError(f"none of the {len(records)} images to compare on could be read{first}")


def sides(session: Session) -> dict[str, str]:
    """What was compared with what."""
    import onnxruntime

    return {
        "runtime": f"onnxruntime {onnxruntime.__version__}, {session.device}",
        "reference": f"torch {torch.__version__}, float32, cpu",
    }
