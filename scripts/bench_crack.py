"""What a crack model is worth: sharp, spoilt, unseen and enlarged photographs, and how silent it is where there is no crack.

    python scripts/bench_crack.py exports/crack.onnx --data crack --without coco

Every row is at the threshold that is stored in the file, at the images' own resolution. `unseen` leaves out validation photographs of
objects that training shows (run `segdet data check` once before). `--without` names datasets that show no crack: of these, the share of
all pixels and of all images that are called crack is given. Large photographs are made of small ones, enlarged or sixteen side by
side, and are predicted as the file says and once more without coarser looks (`--multiscale-to 0`). `--latency` times one photograph in
ONNX Runtime against the usual small U-Net, segmentation-models-pytorch's on MobileNetV2, taking turns. `--looks` tells what averaging
over mirrored and turned photographs would bring, and how much of what is wrong lies at an edge. Prints Markdown.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt

import segdet
from segdet.data.catalog import cards
from segdet.data.doctor import leaks
from segdet.data.geometry.rasterize import target
from segdet.data.images import read_image, resize
from segdet.data.loading.corruptions import KINDS, named
from segdet.data.records import Record
from segdet.errors import InputError
from segdet.inference.backends.onnxruntime import import_onnxruntime
from segdet.inference.backends.select import open_session
from segdet.inference.predict.predictor import Predictor
from segdet.inference.predict.results import SegmentationResult
from segdet.validation.run import validate

SCORES = ("iou", "f1", "f1_2px", "cldice", "precision", "recall")


def row(name: str, metrics: dict[str, Any], sharp: float | None) -> str:
    loss = "" if sharp is None else f"{100 * (metrics['iou'] - sharp):+.1f}"
    return f"| {name} | " + " | ".join(f"{metrics[score]:.3f}" for score in SCORES) + f" | {loss} |"


def marked(model: Predictor, image: Any) -> np.ndarray:
    """bool `[H, W]`: what the model calls crack."""
    found = model.predict(image)
    if not isinstance(found, SegmentationResult):
        raise InputError("a model of masks is needed, not of boxes")
    return np.asarray(found.mask > 0)


def pooled(models: Sequence[Predictor], pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> str:
    """Pooled IoU of each model on pairs of image and truth (bool `[H, W]`), as cells of a row."""
    counts = np.zeros((len(models), 2))
    for image, wanted in pairs:
        for count, model in zip(counts, models, strict=True):
            found = marked(model, image)
            count += (found & wanted).sum(), (found | wanted).sum()
    return " | ".join(f"{both / max(1, either):.3f}" for both, either in counts)


def beside(parts: Sequence[np.ndarray], across: int) -> np.ndarray:
    """Arrays of one size, `across` of them in a row."""
    return np.vstack([np.hstack(parts[first : first + across]) for first in range(0, len(parts), across)])


def mosaics(dataset: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Sixteen photographs side by side at their own size, with their truth."""
    records = dataset.splits["val"]
    alike = [record for record in records if record.size == records[0].size]
    for first in range(0, len(alike) - 15, 16):
        group = alike[first : first + 16]
        yield beside([read_image(r.image) for r in group], 4), beside([target(r, 1) for r in group], 4) > 0


def enlarged(dataset: Any, side: int, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Photographs resized to `side`, and their labels resized with them."""
    for record in dataset.splits["val"][:count]:
        image, truth = read_image(record.image), target(record, 1)
        big = (
            resize(image, side, side)
            if side < image.shape[0]
            else cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
        )
        yield big, resize(truth * 255, side, side) >= 128


def latency(model: Path, side: int, rounds: int = 40) -> tuple[float, float]:
    """Milliseconds of one image `[1, side, side, 3]`, medians: `model`, and smp's U-Net on MobileNetV2 with its usual decoder."""
    import segmentation_models_pytorch as smp
    import torch

    with tempfile.TemporaryDirectory() as folder:
        usual = Path(folder) / "usual.onnx"
        network = smp.Unet("mobilenet_v2", encoder_weights=None).eval()
        torch.onnx.export(network, (torch.zeros(1, 3, side, side),), usual, dynamo=True, verbose=False)
        plain = import_onnxruntime().InferenceSession(usual, providers=["CPUExecutionProvider"])
    ours = open_session(model, "cpu")
    photo = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    floats = np.ascontiguousarray(photo.transpose(0, 3, 1, 2), np.float32) / 255
    name = plain.get_inputs()[0].name
    ways = (lambda: ours.run(photo), lambda: plain.run(None, {name: floats}))
    taken = np.zeros((rounds + 3, 2))
    for row in taken:
        for column, way in enumerate(ways):
            began = time.perf_counter()
            way()
            row[column] = 1000 * (time.perf_counter() - began)
    mine, usual_ms = np.median(taken[3:], axis=0)
    return float(mine), float(usual_ms)


# Ways to look at a photograph, and back: as it is, mirrored, upside down, turned by a quarter.
LOOKS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "as it is": (np.asarray, np.asarray),
    "and mirrored": (np.fliplr, np.fliplr),
    "and upside down": (np.flipud, np.flipud),
    "and turned by a quarter": (np.rot90, lambda found: np.rot90(found, -1)),
}


def looks(model: Path, records: Sequence[Record], degrade: str | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """Counts of the mean logit of the first look, the first two, ...: the stored threshold, images at their own size.

    Counts: hits, pixels in either mask; marked near a label, marked, labelled near what is marked, labelled (near: within 2 pixels);
    wrong within 3 pixels of the other mask, wrong.
    """
    session = open_session(model, "cpu")
    threshold = session.metadata.threshold or 0.5
    spoil = named(degrade) if degrade else np.asarray
    counts = np.zeros((len(LOOKS), 8))
    for record in records:
        image, truth = spoil(read_image(record.image)), target(record, 1) > 0
        total = np.zeros(truth.shape)
        for row, (there, back) in enumerate(LOOKS.values()):
            _, confidence = session.run(np.ascontiguousarray(there(image))[None])
            found = np.clip(confidence[0], 1e-5, 1 - 1e-5)
            total += back(np.log(found / (1 - found)))
            mask = total / (row + 1) > np.log(threshold / (1 - threshold))
            to_truth, to_mask = (
                distance_transform_edt(~m) if m.any() else np.full(m.shape, np.inf) for m in (truth, mask)
            )
            extra, missed = mask & ~truth, truth & ~mask
            near = (extra & (to_truth <= 3)).sum() + (missed & (to_mask <= 3)).sum()
            counts[row] += (
                (mask & truth).sum(), (mask | truth).sum(), (mask & (to_truth <= 2)).sum(), mask.sum(),
                (truth & (to_mask <= 2)).sum(), truth.sum(), near, extra.sum() + missed.sum(),
            )  # fmt: skip
    yield from zip(LOOKS, counts, strict=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", default="crack")
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--sides", nargs="*", type=int, default=[208, 832, 1664, 3328])
    parser.add_argument("--count", type=int, default=40, help="photographs of each of --sides")
    parser.add_argument("--latency", action="store_true", help="only time it")
    parser.add_argument("--looks", action="store_true", help="only what averaging over looks would bring")
    asked = parser.parse_args()
    dataset = cards.load(asked.data)
    records = dataset.splits["val"]
    if asked.latency:
        mine, usual = latency(asked.model, records[0].width)
        print(
            f"{mine:.0f} ms, U-Net on MobileNetV2 {usual:.0f} ms: {mine / usual:.2f} of it ({records[0].width} px, CPU)"
        )
        return
    if asked.looks:
        print("| looks | IoU | F1@2px | wrong within 3 px of the other mask |\n|---|---|---|---|")
        for kind in (None, "dark+blur"):
            for name, c in looks(asked.model, records, kind):
                precision, recall = c[2] / c[3], c[4] / c[5]
                tolerant = 2 * precision * recall / (precision + recall)
                print(
                    f"| {kind or 'sharp'}, {name} | {c[0] / c[1]:.3f} | {tolerant:.3f} | {c[6] / c[7]:.0%} |",
                    flush=True,
                )
        return
    print(
        "| photographs | IoU | F1 | F1@2px | clDice | precision | recall | IoU points |\n|---|---|---|---|---|---|---|---|"
    )
    sharp = validate(asked.model, records, "val").metrics
    low, high = sharp["ci95"]["iou"]
    print(row(f"val, {len(records)} (IoU {low:.3f} to {high:.3f})", sharp, None))
    known, searched = leaks.known(dataset)
    if not searched:
        raise InputError(
            f"run `segdet data check {asked.data}` first: photographs of the same object have not been looked for"
        )
    seen = {leak.scored for leak in known}
    fresh = [record for record in records if record.image not in seen]
    print(row(f"unseen, {len(fresh)}", validate(asked.model, fresh, "val").metrics, sharp["iou"]), flush=True)
    for kind in ("dark+blur", *KINDS):
        print(row(kind, validate(asked.model, records, "val", degrade=kind).metrics, sharp["iou"]), flush=True)
    model, once = segdet.load(asked.model), segdet.load(asked.model, multiscale_to=0)
    own = records[0].width
    print(f"\n| side, {asked.count} photographs | IoU | without coarser looks |\n|---|---|---|")
    for side in (own, *asked.sides):
        name = f"{side} (their own)" if side == own else str(side)
        print(f"| {name} | {pooled((model, once), enlarged(dataset, side, asked.count))} |", flush=True)
    if len(records) >= 16:
        print(f"| {4 * own}, sixteen side by side | {pooled((model, once), mosaics(dataset))} |", flush=True)
    for name in asked.without:
        called = total = images = 0
        worst: list[tuple[float, str]] = []
        others = cards.load(name).splits["val"]
        for record in others:
            mask = marked(model, record.image)
            called, total, images = called + int(mask.sum()), total + mask.size, images + bool(mask.any())
            worst.append((float(mask.mean()), record.image.name))
        ninths = [
            [resize(read_image(r.image), 480, 640) for r in others[k : k + 9]] for k in range(0, len(others) - 8, 9)
        ]
        large = [marked(model, beside(parts, 3)).mean() for parts in ninths] or [0.0]
        told = ", ".join(f"{file} {share:.2%}" for share, file in sorted(worst, reverse=True)[:5])
        print(
            f"\n{name}: {called / total:.3%} of all pixels called crack, in {images} of {len(others)} images. Worst: {told}. "
            f"Nine side by side: {np.mean(large):.3%}"
        )


if __name__ == "__main__":
    main()
