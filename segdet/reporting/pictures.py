"""The pictures of a run folder: what the labels are like, what training sees, how it went, what comes out."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from segdet.data import rasterize
from segdet.data.images import encode_jpeg, read_image
from segdet.data.records import Dataset, Record, iterate
from segdet.drawing import agreement, boxes, colour_of, grid, overlay
from segdet.evaluation.segmentation import Evaluation
from segdet.files import write_bytes

matplotlib.use("Agg")  # no display is needed, and none is opened

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SHOWN = 8  # worst and best validation images each
_BLUE = "#0072b2"
_SCORES = ("iou", "ap", "ap50", "f1", "precision", "recall")  # curves of results.png, where they were measured
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


def samples(images: Sequence[np.ndarray], targets: Sequence[np.ndarray], path: Path) -> None:
    """A batch as the network sees it, each crop beside its target."""
    tiles: list[np.ndarray] = []
    for image, target in zip(images, targets, strict=True):
        mask = (
            (target >= 128).astype(np.uint8)
            if target.max(initial=0) > 100 and set(np.unique(target)) - {255}
            else target
        )
        tiles += [image, overlay(image, np.where(mask == rasterize.IGNORE, 0, mask).astype(np.uint8))]
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


def results(history: Sequence[Mapping[str, float | None]], path: Path) -> None:
    """`results.png`: losses, scores, learning rate and speed over the epochs."""
    write_bytes(path, png(results_figure(history)))


def results_figure(history: Sequence[Mapping[str, float | None]]) -> Figure:
    """The curves of `results.csv` as a figure."""
    panels = {
        "loss": ("train/loss", "val/loss"),
        "validation scores": [
            f"metrics/{name}" for name in _SCORES if any(f"metrics/{name}" in row for row in history)
        ],
        "learning rate": ("lr",),
        "images per second": ("images_per_second",),
    }
    figure, axes = plt.subplots(1, 4, figsize=(16, 3.8), layout="constrained")
    for axis, (title, columns) in zip(axes, panels.items(), strict=True):
        for column in columns:
            measured = [row for row in history if row.get(column) is not None]
            axis.plot(
                [row["epoch"] for row in measured],
                [row[column] for row in measured],
                marker="." if len(history) < 40 else None,
                label=column.split("/")[-1] if "loss" not in column else column,
            )
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        if len(columns) > 1:
            axis.legend(fontsize=8)
    return figure


def curve_figure(result: Evaluation, threshold: float) -> Figure:
    """Precision against recall, and every score against the threshold, for one foreground class."""
    curve = result.binary.curve()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    chosen = round(threshold * len(curve["threshold"]))
    left.plot(curve["recall"], curve["precision"], color=_BLUE)
    left.plot(
        curve["recall"][chosen], curve["precision"][chosen], "o", color="#d55e00", label=f"threshold {threshold:.3f}"
    )
    left.set(title="precision and recall of pixels", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    left.legend()
    for name in ("precision", "recall", "f1", "iou"):
        right.plot(curve["threshold"], curve[name], label=name)
    right.axvline(threshold, color="#d55e00", linestyle="--")
    right.set(title="scores against the threshold", xlabel="threshold", ylim=(0, 1.02))
    right.legend()
    for axis in (left, right):
        axis.grid(alpha=0.3)
    return figure


def validation(
    records: Sequence[Record], result: Evaluation, threshold: float | None, worst_first: Sequence[int], folder: Path
) -> None:
    """`val_worst.jpg` and `val_best.jpg`: photograph, labels, prediction, and where they differ."""
    for name, chosen in (("worst", worst_first[:SHOWN]), ("best", worst_first[::-1][:SHOWN])):
        tiles = [tile for index in chosen for tile in comparison(records[index], result, index, threshold)]
        write_bytes(folder / f"val_{name}.jpg", encode_jpeg(grid(tiles, 4, 300)))


def comparison(record: Record, result: Evaluation, index: int, threshold: float | None) -> list[np.ndarray]:
    """Four pictures of one image, RGB uint8 `[H, W, 3]`: itself, labels, prediction, agreement."""
    image, predicted = read_image(record.image), result.mask(index, threshold)
    one = threshold is not None
    target = rasterize.binary(rasterize.foreground(record)).astype(np.uint8) if one else rasterize.class_index(record)
    target = np.where(target == rasterize.IGNORE, 0, target).astype(np.uint8)
    return [image, overlay(image, target), overlay(image, predicted), agreement(image, predicted, target)]


def _save(figure: Figure, path: Path) -> None:
    write_bytes(path, png(figure))


def png(figure: Figure) -> bytes:
    """A figure as PNG bytes; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    plt.close(figure)
    return buffer.getvalue()
