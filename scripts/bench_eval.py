"""What measuring costs beside the forward pass, and how it compares with pycocotools. Prints Markdown.

    python scripts/bench_eval.py masks --data crack
    python scripts/bench_eval.py boxes --data coco --images 5000

masks: real labels, with answers made from them (blurred, moved, noisy), through everything `segdet val` computes.
boxes: the annotations of the dataset repeated up to so many images, with made-up detections (100 an image); pycocotools' twelve
numbers, faster-coco-eval's through segdet, and all that `segdet val` computes, in interleaved rounds of one process.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch

from segdet.data.catalog import cards
from segdet.data.geometry import rasterize
from segdet.data.geometry.boxes import boxes_of
from segdet.data.loading.datasets import Batch
from segdet.data.records import Record
from segdet.evaluation import coco, detection, segmentation
from segdet.evaluation.coco import Detections


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["masks", "boxes"])
    parser.add_argument("--data")
    parser.add_argument("--images", type=int, help="default: 200 masks, 5000 boxes")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.what == "masks":
        masks(options.data or "crack", options.images or 200, options.rounds)
    else:
        boxes(options.data or "coco", options.images or 5000, options.rounds)


def masks(data: str, count: int, rounds: int) -> None:
    dataset = cards.load(data)
    records = dataset.splits["val"][:count]
    rng = np.random.default_rng(0)
    answers = [middling(record, rng) for record in records]
    steps: dict[str, Callable[[], object]] = {
        "labels drawn, counts and curve": lambda: counted(records, answers, dataset.classes),
        "every metric and every error": lambda: segmentation.judge(counted(records, answers, dataset.classes), "val"),
    }
    print(f"{len(records)} images of {data}\n")
    table(measure(steps, rounds), None)


def middling(record: Record, rng: np.random.Generator) -> np.ndarray:
    """A probability map float32 `[H, W]` about as good as a trained model's."""
    target = rasterize.binary(rasterize.foreground(record)).astype(np.float32)
    moved = np.roll(cv2.GaussianBlur(target, (0, 0), 2.0), tuple(rng.integers(-1, 2, 2)), axis=(0, 1))
    noise = cv2.GaussianBlur(rng.normal(0, 1, target.shape).astype(np.float32), (0, 0), 6.0)
    return np.asarray((0.9 * moved + 2.5 * noise).clip(0, 1), np.float32)


def counted(
    records: Sequence[Record], answers: Sequence[np.ndarray], classes: Sequence[str]
) -> segmentation.Evaluation:
    def batches() -> Iterator[Batch]:
        for index, record in enumerate(records):
            target = torch.from_numpy(rasterize.foreground(record))[None]
            yield Batch(torch.zeros(1, 1, 1, 3, dtype=torch.uint8), target, [index])

    return segmentation.evaluate(lambda batch: answers[batch.indices[0]][None], batches(), records, classes, keep=True)


def boxes(data: str, count: int, rounds: int) -> None:
    dataset = cards.load(data)
    real = [record for records in dataset.splits.values() for record in records]
    records = [replace(real[k % len(real)], photograph=str(k)) for k in range(count)]
    classes = len(dataset.classes)
    found = [detected(record, classes, np.random.default_rng(k)) for k, record in enumerate(records)]

    def whole() -> object:
        result = detection.DetectionEvaluation(dataset.classes, records)
        for index, one in enumerate(found):
            result.add(index, one)
        return detection.judge(result, "val")

    steps: dict[str, Callable[[], object]] = {
        "pycocotools, twelve numbers": lambda: pycocotools(records, found, classes),
        "segdet, twelve numbers": lambda: coco.official(records, found, classes).twelve,
        "segdet, all of `segdet val`: intervals, threshold, curves, kinds of mistakes too": whole,
    }
    print(
        f"{count} images ({len(real)} real ones of {data}), {sum(len(one.scores) for one in found)} detections, {classes} classes\n"
    )
    theirs = np.array(pycocotools(records, found, classes))
    ours = np.array([-1.0 if v is None else v for v in coco.official(records, found, classes).twelve.values()])
    table(measure(steps, rounds), "pycocotools, twelve numbers")
    print(f"\nlargest difference of the twelve numbers: {np.abs(theirs - ours).max():.1e}")


def detected(record: Record, classes: int, rng: np.random.Generator, count: int = 100) -> Detections:
    """`count` detections: each object once or twice, shifted and sometimes misnamed, and noise of low confidence."""
    truth, labels, _ = boxes_of(record)
    chosen = rng.integers(0, len(truth), min(count, 2 * len(truth))) if len(truth) else np.zeros(0, int)
    size = np.tile(truth[chosen, 2:] - truth[chosen, :2], 2)
    near = truth[chosen] + rng.normal(0, 0.06, (len(chosen), 4)) * size
    names = np.where(rng.random(len(chosen)) < 0.9, labels[chosen], rng.integers(0, classes, len(chosen)))
    corner = rng.uniform(0, 0.7, (count - len(chosen), 2)) * [record.width, record.height]
    noise = np.concatenate([corner, corner + rng.uniform(5, 120, corner.shape)], axis=1)
    scores = np.concatenate([rng.uniform(0.2, 1, len(chosen)), rng.uniform(0, 0.4, len(noise))])
    order = np.argsort(-scores)
    made = np.concatenate([near, noise]).astype(np.float32)
    every = np.concatenate([names, rng.integers(0, classes, len(noise))])
    return Detections(made[order], scores[order].astype(np.float32), every[order].astype(np.int64))


def pycocotools(records: Sequence[Record], found: Sequence[Detections], classes: int) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def collection(rows: list[dict[str, object]]) -> COCO:
        made = COCO()
        made.dataset = {
            "images": [{"id": k} for k in range(len(records))],
            "categories": [{"id": k} for k in range(classes)],
            "annotations": rows,
        }
        made.createIndex()
        return made

    with contextlib.redirect_stdout(io.StringIO()):
        evaluated = COCOeval(collection(coco.ground_truth(records)), collection(coco.detections(found)), "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    return [float(value) for value in evaluated.stats]


Times = dict[str, tuple[float, float]]  # processor and wall seconds, medians


def measure(steps: dict[str, Callable[[], object]], rounds: int) -> Times:
    """Every step in turn, round after round, so that what else the machine does falls on all alike."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            cpu, wall = time.process_time(), time.perf_counter()
            step()
            taken[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {
        name: (statistics.median(c for c, _ in rows), statistics.median(w for _, w in rows))
        for name, rows in taken.items()
    }


def table(times: Times, base: str | None) -> None:
    print("| step | processor s | wall s |" + (" times as fast (processor) |" if base else ""))
    print("|---|---|---|" + ("---|" if base else ""))
    for name, (cpu, wall) in times.items():
        ratio = f" {times[base][0] / cpu:.1f} |" if base else ""
        print(f"| {name} | {cpu:.1f} | {wall:.1f} |{ratio}", flush=True)


if __name__ == "__main__":
    main()
