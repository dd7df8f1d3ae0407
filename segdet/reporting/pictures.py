"""The pictures of a run folder: what the labels are like, what training sees, how it went, what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segdet.data.geometry import rasterize
from segdet.data.images import encode_jpeg, read_image
from segdet.data.records import Dataset, Record, iterate
from segdet.drawing import agreement, boxes, colour_of, grid, overlay
from segdet.evaluation.segmentation import Evaluation, true_mask
from segdet.files import write_bytes
from segdet.reporting.plots import png

SHOWN = 8  # worst and best validation images each
_BLUE = "#0072b2"
_ROW = 1200  # images at most whose masks are drawn for statistics


def labels(dataset: Dataset, path: Path) -> None:
    """`labels.png`: objects per class and per image, their sizes and places, how much they cover, and image sizes."""
    records = [record for _, record in iterate(dataset)]
    instances = [(record, instance) for record in records for instance in record.instances]
    figure, axes = plt.subplots(2, 3, figsize=(15, 8.5), layout="constrained")
    (classes, sizes, places), (counts, covered, images) = axes
    number = np.bincount([i.label for _, i in instances], minlength=len(dataset.classes))
    order = np.argsort(-number, kind="stable")[:30]
    classes.barh([dataset.classes[k] for k in order[::-1]], number[order[::-1]], color=_BLUE)
    classes.tick_params(axis="y", labelsize=10 if len(order) < 16 else 7)
    rest = f" (the {len(order)} most frequent classes)" if len(order) < len(dataset.classes) else ""
    classes.set(title=f"{len(instances)} objects in {len(records)} images", xlabel=f"objects{rest}")
    boxes = np.array([i.box for _, i in instances]).reshape(-1, 4)
    shape = np.array([[r.width, r.height] for r, _ in instances]).reshape(-1, 2)
    sides = boxes[:, 2:] - boxes[:, :2]
    sizes.scatter(sides[:, 0], sides[:, 1], s=4, alpha=0.3, color=_BLUE)
    sizes.set(title="object sizes", xlabel="width (pixels)", ylabel="height (pixels)")
    places.imshow(_coverage(boxes / np.tile(shape, 2)), extent=(0, 1, 1, 0), cmap="viridis", aspect="auto", vmin=0)
    places.set(
        title="where boxes lie (lighter: more of them)", xlabel="share of the width", ylabel="share of the height"
    )
    each = np.array([len(record.instances) for record in records])
    counts.hist(each, bins=np.arange(-0.5, max(2, min(int(each.max(initial=0)), 60)) + 1), color=_BLUE)
    counts.set(title=f"objects per image: {each.mean():.1f} on average", xlabel="objects", ylabel="images")
    _covered(covered, records)
    size = np.array([[record.width, record.height] for record in records])
    images.scatter(size[:, 0], size[:, 1], s=8, alpha=0.3, color=_BLUE)
    images.set(title="image sizes", xlabel="width (pixels)", ylabel="height (pixels)")
    _save(figure, path)


def _coverage(boxes: np.ndarray) -> np.ndarray:
    """How many boxes (in shares of the image) cover each cell of a grid, int64 `[64, 64]`."""
    cells = np.zeros((65, 65), np.int64)
    low, high = (boxes[:, :2] * 64).astype(int).clip(0, 63), np.ceil(boxes[:, 2:] * 64).astype(int).clip(1, 64)
    for x, y, sign in ((low, low, 1), (high, high, 1), (low, high, -1), (high, low, -1)):
        np.add.at(cells, (y[:, 1], x[:, 0]), sign)
    return cells.cumsum(axis=0).cumsum(axis=1)[:64, :64]


def _covered(axis: Axes, records: Sequence[Record]) -> None:
    """How much of an image is foreground, or, without outlines, how much of it one box takes."""
    if any(i.polygons or i.rle for record in records for i in record.instances):
        step = max(1, len(records) / _ROW)
        spread = [records[int(i)] for i in np.arange(0, len(records), step)]
        shares = [100 * float(rasterize.binary(rasterize.foreground(record)).mean()) for record in spread]
        what, unit = f"foreground: {np.mean(shares):.2f} % of the pixels on average", "images"
    else:
        every = [(r, i.box) for r in records for i in r.instances]
        shares = [100 * (b[2] - b[0]) * (b[3] - b[1]) / (r.width * r.height) for r, b in every]
        what, unit = f"area of a box: {np.median(shares) if shares else 0:.2f} % of its image in the middle", "objects"
    axis.hist(shares, bins=40, color=_BLUE)
    axis.set(title=what, xlabel="% of an image", ylabel=unit)


def samples(images: Sequence[np.ndarray], targets: Sequence[np.ndarray], one_class: bool, path: Path) -> None:
    """A batch as the network sees it, each crop beside its target.

    Args:
        targets: uint8 `[H, W]`: coverage 0 to 255 (`one_class`), or class indices.
    """
    tiles: list[np.ndarray] = []
    for image, target in zip(images, targets, strict=True):
        mask = target >= 128 if one_class else np.where(target == rasterize.IGNORE, 0, target)
        tiles += [image, overlay(image, mask.astype(np.uint8))]
    write_bytes(path, encode_jpeg(grid(tiles, 8, 240)))


def box_samples(
    samples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], classes: Sequence[str], path: Path
) -> None:
    """A batch as a detector sees it: images uint8 `[H, W, 3]` with boxes float32 `[K, 4]` (xyxy) and labels `[K]`."""
    tiles = [
        boxes(image, corners, [colour_of(int(k)) for k in labels], [classes[k] for k in labels])
        for image, corners, labels in samples
    ]
    write_bytes(path, encode_jpeg(grid(tiles, 4, 320)))


def validation(
    records: Sequence[Record], result: Evaluation, threshold: float | None, worst_first: Sequence[int], folder: Path
) -> None:
    """`val_worst.jpg` and `val_best.jpg`: photograph, labels, prediction, and where they differ."""
    for name, chosen in (("worst", worst_first[:SHOWN]), ("best", worst_first[::-1][:SHOWN])):
        tiles = (tile for index in chosen for tile in comparison(records[index], result, index, threshold))
        write_bytes(folder / f"val_{name}.jpg", encode_jpeg(grid(tiles, 4, 300)))


def comparison(record: Record, result: Evaluation, index: int, threshold: float | None) -> list[np.ndarray]:
    """Four pictures of one image, RGB uint8 `[H, W, 3]`: itself, labels, prediction, agreement."""
    image, predicted = read_image(record.image), result.mask(index, threshold)
    one = threshold is not None
    target = true_mask(record, one)
    if not one:  # what is ignored is neither right nor wrong
        known = target != rasterize.IGNORE
        target, predicted = np.where(known, target, 0).astype(np.uint8), np.where(known, predicted, 0).astype(np.uint8)
    return [image, overlay(image, target), overlay(image, predicted), agreement(image, predicted, target)]


def _save(figure: Figure, path: Path) -> None:
    write_bytes(path, png(figure))
