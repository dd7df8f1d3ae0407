"""Curves and bars of the reports, drawn once: as PNG for files, as SVG that follows the page's light or dark inside it."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")  # no display is needed, and none is opened

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe & Ito's colours, distinguishable for colour-blind readers; the page gives each a shade for dark paper (`page`).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9")
_INK, _PAPER = "#010203", "#fdfefd"  # stand for the page's own ink and paper in an SVG
_LINES = ("solid", "dashed", "dashdot", "dotted")

_SCORES = ("iou", "ap", "ap50", "f1", "precision", "recall")  # curves of results.png, where they were measured

History = Sequence[Mapping[str, float | None]]


def png(figure: Figure) -> bytes:
    """A figure as PNG bytes; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    plt.close(figure)
    return buffer.getvalue()


_number = count()


def svg(figure: Figure) -> str:
    """A figure as an SVG element for an HTML page, in the page's colours; the figure is closed.

    Nothing in it names another file or address, and its ids are its own among several on a page.
    """
    buffer = io.StringIO()
    _recolour(figure)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"segdet{next(_number)}"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"font(-family)?: ?([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font\1: \2system-ui, sans-serif", text)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    # matplotlib numbers its groups from 1 in every figure: on one page these ids would be there several times.
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    for number, colour in enumerate(COLOURS):
        text = text.replace(colour, f"var(--c{number})")
    text = re.sub(r"<svg ", "<svg class=plot role=img ", text, count=1)
    return text.replace(_INK, "currentColor").replace(_PAPER, "var(--paper)").strip()


def _recolour(figure: Figure) -> None:
    """Replace black by the page's ink, wherever matplotlib has put it."""
    for axis in figure.axes:
        axis.tick_params(colors=_INK, which="both")
        for text in (axis.title, axis.xaxis.label, axis.yaxis.label, *axis.texts):
            text.set_color(_INK)
        for curve in axis.lines:
            if curve.get_color() == "black":
                curve.set_color(_INK)
        for spine in axis.spines.values():
            spine.set_color(_INK)
        legend = axis.get_legend()
        if legend is not None:
            legend.get_frame().set(facecolor=_PAPER, edgecolor=_INK, alpha=0.8)
            for text in legend.get_texts():
                text.set_color(_INK)
            for handle in legend.get_lines():
                if handle.get_color() == "black":
                    handle.set_color(_INK)


def results(history: History) -> Figure:
    """The curves of `results.csv`: losses, scores, learning rate and speed over the epochs."""
    panels = {
        "loss": ("train/loss", "val/loss"),
        "validation scores": [
            f"metrics/{name}" for name in _SCORES if any(f"metrics/{name}" in row for row in history)
        ],
        "learning rate": ("lr",),
        "training images per second": ("images_per_second",),
    }
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
    for axis, (title, columns) in zip(axes.flat, panels.items(), strict=True):
        for number, column in enumerate(columns):
            measured = [row for row in history if row.get(column) is not None]
            if measured:
                name = {"train/loss": "training", "val/loss": "validation"}.get(column, column.split("/")[-1])
                xs, ys = [row["epoch"] for row in measured], [row[column] for row in measured]
                line(axis, xs, ys, number, name, "." if len(history) < 60 else None)
        axis.set(title=title, xlabel="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.margins(y=0.08)
        axis.set_ylim(bottom=0)
        if len(columns) > 1 and axis.lines:
            axis.legend(fontsize=9)
        axis.grid(alpha=0.3)
    scores = axes.flat[1]
    scores.set_ylim(0, 1)
    _mark_best(scores, history)
    return figure


def _mark_best(axis: Axes, history: History) -> None:
    """A dotted line at the epoch whose weights were kept."""
    name = next(
        (f"metrics/{score}" for score in ("iou", "ap") if f"metrics/{score}" in (history[0] if history else {})), ""
    )
    measured = [(row[name], row["epoch"]) for row in history if row.get(name) is not None]
    if measured and len(history) > 1:
        _, epoch = max(measured, key=lambda pair: pair[0] or 0.0)
        axis.axvline(float(epoch or 0), color="#888888", linestyle=":", label="kept")
        axis.legend(fontsize=9)


def precision_recall(curve: Mapping[str, np.ndarray], chosen: int, average: float | None, what: str) -> Figure:
    """Precision against recall of `what`, with the working point; `chosen` is its place in the curve."""
    figure, axis = plt.subplots(figsize=(5.4, 4.2), layout="constrained")
    precision, recall = np.asarray(curve["precision"]), np.asarray(curve["recall"])
    line(axis, recall, precision, 0, "" if average is None else f"area {average:.3f}")
    axis.plot(recall[chosen], precision[chosen], "o", color=COLOURS[1], label="working point")
    axis.set(
        title=f"precision and recall of {what}", xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02)
    )
    axis.legend(fontsize=9, loc="lower left")
    axis.grid(alpha=0.3)
    return figure


def sweep(curve: Mapping[str, np.ndarray], threshold: float, names: Sequence[str]) -> Figure:
    """Scores against the threshold."""
    figure, axis = plt.subplots(figsize=(5.4, 4.2), layout="constrained")
    for number, name in enumerate(names):
        line(axis, curve["threshold"], curve[name], number, name)
    axis.axvline(threshold, color="#888888", linestyle="dashed", label=f"chosen: {threshold:.3f}")
    axis.set(title="scores at every threshold", xlabel="threshold", xlim=(0, 1), ylim=(0, 1.02))
    axis.legend(fontsize=9)
    axis.grid(alpha=0.3)
    return figure


def reliability(calibration: Mapping[str, Any], one_class: bool) -> Figure:
    """How often a pixel is right, by the model's confidence; below, how many pixels have that confidence."""
    bins = calibration["bins"]
    figure, (axis, below) = plt.subplots(
        2, 1, figsize=(5.4, 5.2), layout="constrained", sharex=True, height_ratios=(3, 1)
    )
    axis.plot([0, 1], [0, 1], color="#888888", linestyle="dashed", label="probabilities that hold")
    line(axis, [row["confidence"] for row in bins], [row["right"] for row in bins], 0, "this model", ".")
    right = "share that is labelled" if one_class else "share with the right class"
    axis.set(title="are its probabilities true?", ylabel=right, ylim=(0, 1.02))
    axis.legend(fontsize=9, loc="upper left")
    below.bar(
        [(row["from"] + row["to"]) / 2 for row in bins],
        [row["pixels"] for row in bins],
        width=0.9 * (bins[0]["to"] - bins[0]["from"]),
        color=COLOURS[0],
    )
    below.set(yscale="log", xlabel="probability that the model gives", ylabel="pixels", xlim=(0, 1))
    for one in (axis, below):
        one.grid(alpha=0.3)
    return figure


def each_image(values: Sequence[float], name: str) -> Figure:
    """How a score is spread over the images."""
    figure, axis = plt.subplots(figsize=(5.4, 4.2), layout="constrained")
    axis.hist(values, bins=np.linspace(0, 1, 21).tolist(), color=COLOURS[0])
    middle = float(np.median(values))
    axis.axvline(middle, color=COLOURS[1], linestyle="dashed", label=f"half of the images are below {middle:.2f}")
    axis.set(title=f"{name} of single images", xlabel=name, ylabel="images", xlim=(0, 1))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize=9)
    axis.grid(alpha=0.3)
    return figure


def label_widths(values: np.ndarray, around: np.ndarray, first: str, last: str) -> Figure:
    """How many times as wide labels are as what is marked, in the order of names, with what is usual around each."""
    figure, axis = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    many = len(values) > 1000  # dots as a picture then: thousands of shapes would make the page slow
    axis.plot(values, ".", color=COLOURS[0], alpha=0.6, label="a photograph", rasterized=many)
    line(axis, np.arange(len(around)), around, 1, "those around it")
    axis.axhline(1, color="#888888", linestyle="dashed")
    axis.set(
        title="how wide the labels are drawn", yscale="log", ylabel="times as wide as marked",
        xlabel=f"photographs in the order of their names, {first} to {last}",
    )  # fmt: skip
    low, high = float(min(values.min(), 0.9)), float(max(values.max(), 1.1))
    ticks = [tick for tick in (0.125, 0.25, 0.5, 0.7, 1, 1.4, 2, 4, 8) if low <= tick <= high]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.legend(fontsize=9)
    axis.grid(alpha=0.3)
    return figure


def ranges(rows: Sequence[tuple[str, float, float, float]], title: str, zero: bool = False) -> Figure:
    """Values with their intervals (name, value, low, high), one under the other; `zero` marks no difference."""
    figure, axis = plt.subplots(figsize=(7.5, 0.9 + 0.4 * len(rows)), layout="constrained")
    for place, (_, value, low, high) in enumerate(rows):
        axis.plot([low, high], [-place, -place], color=COLOURS[0], linewidth=3, solid_capstyle="round")
        axis.plot(value, -place, "o", color=COLOURS[1])
    axis.set_yticks([-k for k in range(len(rows))], [name for name, *_ in rows])
    axis.set_ylim(0.6 - len(rows), 0.6)
    axis.set(xlabel=title)
    if zero:
        axis.axvline(0, color="#888888", linestyle="dashed")
    axis.grid(alpha=0.3, axis="x")
    return figure


def line(axis: Axes, xs: Any, ys: Any, number: int, label: str, marker: str | None = None) -> None:
    """A curve in colour `number` of the palette, dashed differently when the palette starts again."""
    style = _LINES[number // len(COLOURS) % len(_LINES)]
    axis.plot(xs, ys, color=COLOURS[number % len(COLOURS)], linestyle=style, marker=marker, label=label or None)
