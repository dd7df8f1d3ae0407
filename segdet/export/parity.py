"""Does the exported file give the same answers as the model it came from? Measured on real images, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from segdet.data import rasterize
from segdet.data.images import ImageError, read_ahead
from segdet.data.records import Record
from segdet.errors import SegdetError
from segdet.inference.session import Session
from segdet.metadata import Metadata
from segdet.models.common import predict


@dataclass(frozen=True)
class Limits:
    """Bounds for fp32 (DESIGN 4): share of differing pixels on any image, and change of IoU over all of them."""

    pixels: float = 0.0005
    iou: float = 0.001


def compare(
    model: nn.Module, session: Session, records: Sequence[Record], limits: Limits, advance: Callable[[int], None]
) -> dict[str, Any]:
    """Run both on every record: the content of `<name>.parity.json`.

    Raises:
        SegdetError: no image could be read.
    """
    rows: list[dict[str, Any]] = []
    # Intersection and union with the labels, summed over images: of PyTorch's masks, then of ONNX's.
    sums = np.zeros((2, 2), np.int64)
    skipped: list[str] = []
    for record, image in readable(records, skipped, advance):
        theirs, probability = _reference(model, session.metadata, image)
        ours, confidence = (output[0] for output in session.run(image[None]))
        target = (
            rasterize.class_index(record)
            if len(session.metadata.classes) > 1
            else rasterize.binary(rasterize.foreground(record))
        )
        before, after = _overlap(theirs, target), _overlap(ours, target)
        sums += np.array([before, after])
        rows.append(
            {
                "image": record.image.name,
                "pixels": float((theirs != ours).mean()),
                "confidence": float(np.abs(confidence - probability).max()) if probability is not None else None,
                "delta_iou": float(_iou(after) - _iou(before)),
            }
        )
    rows.sort(key=lambda row: -row["pixels"])
    delta = float(_iou(sums[1]) - _iou(sums[0]))
    return {
        **sides(session),
        "compared": len(rows),
        "skipped": skipped,
        "max_differing_pixels": rows[0]["pixels"],
        "max_confidence_difference": max(
            (row["confidence"] for row in rows if row["confidence"] is not None), default=None
        ),
        "iou": {"torch": float(_iou(sums[0])), "onnx": float(_iou(sums[1])), "delta": delta},
        "limits": {"pixels": limits.pixels, "iou": limits.iou},
        "passed": bool(rows[0]["pixels"] <= limits.pixels and abs(delta) <= limits.iou),
        "worst": rows[:5],
        "images": sorted(rows, key=lambda row: row["image"]),
    }


def sentence(compared: dict[str, Any]) -> str:
    """The comparison in one line."""
    return (
        f"at most {compared['max_differing_pixels']:.4%} of the pixels of an image differ (limit {compared['limits']['pixels']:.4%}), "
        f"IoU changes by {compared['iou']['delta']:+.5f} (limit {compared['limits']['iou']}), on {compared['compared']} images"
    )


def _reference(model: nn.Module, metadata: Metadata, image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """PyTorch's mask uint8 `[H, W]`, and its probability when there is one class."""
    answer = predict(model, torch.from_numpy(image)[None], metadata.mean, metadata.std)[0]
    if len(metadata.classes) > 1:
        return answer, None
    threshold = np.float32(0.5 if metadata.threshold is None else metadata.threshold)
    return (answer >= threshold).astype(np.uint8), answer


def _overlap(mask: np.ndarray, target: np.ndarray) -> tuple[int, int]:
    """Pixels with the right foreground class, and pixels that are foreground in either (ignored ones left out)."""
    known = target != rasterize.IGNORE
    right = (mask == target) & (target > 0)
    either = ((mask > 0) | (target > 0)) & known
    return int(right.sum()), int(either.sum())


def _iou(overlap: Sequence[int] | np.ndarray) -> float:
    return 1.0 if overlap[1] == 0 else float(overlap[0]) / float(overlap[1])


def readable(
    records: Sequence[Record], skipped: list[str], advance: Callable[[int], None]
) -> Iterator[tuple[Record, np.ndarray]]:
    """Records with their images; what cannot be read goes into `skipped`.

    Raises:
        SegdetError: after the last one, when none could be read.
    """
    for record, image in zip(records, read_ahead(record.image for record in records), strict=True):
        if isinstance(image, ImageError):
            skipped.append(str(image))
        else:
            yield record, image
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
