"""Pictures and `report.html` of a detection run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from segdet import drawing
from segdet.data.geometry.boxes import boxes_of
from segdet.data.images import encode_jpeg, read_image
from segdet.data.records import Record
from segdet.evaluation.detection import DetectionEvaluation
from segdet.evaluation.detection_errors import judge
from segdet.files import write_bytes
from segdet.reporting import page, pictures, plots
from segdet.reporting.page import Subject

_FOUND, _WRONG, _MISSED = (0, 150, 80), (220, 40, 40), (30, 90, 220)
_LETTERS = 30  # captions stay readable when three pictures share the width of a page
_NAMED = 10  # classes with a curve of their own

_EXPLAINED = {
    "ap": ("AP", "area under precision against recall, averaged over classes and over ten demands on the box (IoU 0.50 to 0.95)"),
    "ap50": ("AP50", "the same where a box is right from IoU 0.5 on: is the object found at all"),
    "ap75": ("AP75", "the same from IoU 0.75 on: is the box tight"),
    "ap_small": ("AP small", "AP of objects under 32 x 32 pixels of area"),
    "ap_medium": ("AP medium", "AP of objects from 32 x 32 to 96 x 96 pixels of area"),
    "ap_large": ("AP large", "AP of objects over 96 x 96 pixels of area"),
    "ar_1": ("AR 1", "share of objects found when one box of each class may be named in an image, averaged over IoU 0.50 to 0.95"),
    "ar_10": ("AR 10", "the same with ten boxes of each class"),
    "ar_100": ("AR 100", "the same with a hundred: what the model could find at all"),
    "ar_small": ("AR small", "AR 100 of small objects"),
    "ar_medium": ("AR medium", "AR 100 of medium objects"),
    "ar_large": ("AR large", "AR 100 of large objects"),
    "f1": ("F1", "harmonic mean of precision and recall at the threshold, all classes together, IoU 0.5"),
    "precision": ("Precision", "of the boxes shown at the threshold, the share that is right"),
    "recall": ("Recall", "of the labelled objects, the share that is found at the threshold"),
}  # fmt: skip

_MISTAKES = {
    "correct": ("Found", "right class, IoU of 0.5 or more"),
    "missed": ("Missed", "no box is about this object"),
    "localisation": ("Misplaced", "right class, but the box fits badly: IoU 0.1 to 0.5"),
    "classification": ("Wrong class", "the box fits, the name is wrong"),
    "both": ("Misplaced and wrong class", "IoU 0.1 to 0.5 with an object of another class"),
    "duplicate": ("Duplicates", "the object was already found by a box with a higher score"),
    "background": ("Invented", "nothing labelled is there"),
}


def validation(records: Sequence[Record], result: DetectionEvaluation, threshold: float, folder: Path) -> None:
    """`val_worst.jpg`, `val_best.jpg` (labels, prediction, difference) and `val_curves.png` in `folder`."""
    for name, chosen in _ordered(result, threshold).items():
        tiles = (
            tile for index in chosen[: pictures.SHOWN] for tile in comparison(records[index], result, index, threshold)
        )
        if chosen:
            write_bytes(folder / f"val_{name}.jpg", encode_jpeg(drawing.grid(tiles, 3, 480)))
    write_bytes(folder / "val_curves.png", plots.png(curve_figure(result, threshold)))


def comparison(record: Record, result: DetectionEvaluation, index: int, threshold: float) -> list[np.ndarray]:
    """Three pictures of one image, RGB uint8: labels, prediction, and found, wrong and missed boxes."""
    image, found = read_image(record.image), result.kept[index]
    shown = found.scores >= threshold
    boxes, labels, scores = found.boxes[shown], found.labels[shown], found.scores[shown]
    truth, true_labels, crowd = boxes_of(record)
    names = [result.classes[k] for k in true_labels]
    taken = judge(record, boxes, labels)
    missed = ~crowd
    missed[taken[taken >= 0]] = False
    verdict = [_FOUND if t >= 0 else _WRONG for t in taken] + [_MISSED] * int(missed.sum())
    captions = ["" if t >= 0 else result.classes[k] for t, k in zip(taken, labels, strict=True)]
    inside = taken != -2  # boxes in crowd regions are neither right nor wrong
    return [
        labelled(record, image, result.classes),
        drawing.boxes(
            image,
            boxes,
            [drawing.colour_of(int(k)) for k in labels],
            [f"{result.classes[k]} {score:.2f}" for k, score in zip(labels, scores, strict=True)],
            _LETTERS,
        ),
        drawing.boxes(
            image,
            np.concatenate([boxes[inside], truth[missed]]),
            [c for c, keep in zip(verdict, [*inside, *missed[missed]], strict=True) if keep],
            [t for t, keep in zip(captions, inside, strict=True) if keep] + [names[k] for k in np.flatnonzero(missed)],
            _LETTERS,
        ),
    ]


def labelled(record: Record, image: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """The image, RGB uint8, with its labelled boxes and their names."""
    truth, labels, crowd = boxes_of(record)
    names = [f"{classes[k]} (crowd)" if many else classes[k] for k, many in zip(labels, crowd, strict=True)]
    return drawing.boxes(image, truth, [drawing.colour_of(int(k)) for k in labels], names, _LETTERS)


def curve_figure(result: DetectionEvaluation, threshold: float) -> Figure:
    """Precision against recall, and scores against the confidence."""
    curve = result.curve()
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    objects = {name: row["objects"] for name, row in result.per_class().items()}
    frequent = sorted(curve["classes"], key=lambda name: -objects[name])[:_NAMED]
    if len(curve["classes"]) > 1:
        for number, name in enumerate(frequent):
            plots.line(left, curve["recall"], curve["classes"][name], number, name)
    left.plot(curve["recall"], curve["ap50"], color="black", linewidth=2, label="all classes, IoU 0.5")
    left.plot(
        curve["recall"],
        curve["ap"],
        color="black",
        linewidth=2,
        linestyle="dashed",
        label="all, mean of IoU 0.5 to 0.95",
    )
    title = "precision and recall of boxes"
    if len(frequent) < len(curve["classes"]):
        title += f" (the {_NAMED} most frequent classes)"
    left.set(title=title, xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    left.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    for number, name in enumerate(("precision", "recall", "f1")):
        plots.line(right, curve["pooled"]["threshold"], curve["pooled"][name], number, name)
    right.axvline(threshold, color="#888888", linestyle="dashed", label=f"threshold {threshold:.3f}")
    right.set(
        title="all classes together, IoU 0.5", xlabel="confidence from which a box counts", xlim=(0, 1), ylim=(0, 1.02)
    )
    right.legend(fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    return figure


def write_report(path: Path, subject: Subject, metrics: Mapping[str, Any], result: DetectionEvaluation) -> None:
    """Write the page to `path`."""
    threshold = metrics["threshold"]
    scores = [
        f"<p class=sub>{metrics['images']} images; boxes in their own pixels. The first twelve are COCO's numbers; "
        "<code>none</code> means that no such object is labelled. Intervals are 95 % bootstrap over photographs.</p>",
        page.table(("Score", "Value", "95 % interval", "Meaning"), page.score_rows(metrics, _EXPLAINED)),
    ]
    mistakes = [f"<p class=sub>Counted at the threshold {threshold:.3f}.</p>", _mistakes(metrics["errors"])]
    sections: list[tuple[str, Sequence[str]]] = [
        (
            "",
            [
                *([] if metrics["labelled_images"] else [page.unjudged(metrics)]),
                page.cards(metrics, {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "f1": f"F1 at {threshold:.2f}"}),
            ],
        ),
        ("Scores", scores),
        ("What kind of mistakes it makes", mistakes),
        ("Where it fails and where it works", _images(subject, result, threshold)),
        ("Threshold", [page.drawing(curve_figure(result, threshold), _threshold_note(metrics))]),
    ]
    if len(metrics["classes"]) > 1:
        sections.append(("Classes", _classes(metrics["classes"])))
    page.write(path, subject, metrics, sections)


def _images(subject: Subject, result: DetectionEvaluation, threshold: float) -> list[str]:
    records = subject.dataset.splits[subject.split]
    out = [
        "<p>Labels, prediction, and the difference:<span class=k style='background:#009650'></span>found"
        "<span class=k style='background:#dc2828'></span>wrong"
        "<span class=k style='background:#1e5adc'></span>missed.</p>",
    ]
    each, ordered = result.f1_of_each(threshold), _ordered(result, threshold)
    for title, chosen in (("The worst", ordered["worst"][:6]), ("The best", ordered["best"][:3])):
        for index in chosen:
            tiles = drawing.grid(comparison(records[index], result, index, threshold), 3, 480)
            caption = f"{title}: {records[index].image.name}, F1 {each[index]:.3f}"
            out.append(page.figure(encode_jpeg(tiles, 85), "jpeg", caption))
    return out


def _ordered(result: DetectionEvaluation, threshold: float) -> dict[str, list[int]]:
    """Indices of the "worst" images (lowest F1, then most mistakes) and the "best" (highest F1, then most objects)."""
    counts = result.counted()[1].at(threshold)
    each = result.f1_of_each(threshold)
    right, mistakes = (
        dict(zip(result.indices, c.tolist(), strict=True)) for c in (counts[:, 0], counts[:, 1:].sum(axis=1))
    )
    return {
        "worst": sorted((i for i in each if mistakes[i]), key=lambda i: (each[i], -mistakes[i])),
        "best": sorted((i for i in each if right[i]), key=lambda i: (-each[i], -right[i])),
    }


def _mistakes(errors: Mapping[str, int]) -> str:
    most = max(1, *errors.values())
    rows = [
        f"<tr><th>{title}<td class=n>{errors[kind]}<td style='width:30%'><span class=bar style='width:{100 * errors[kind] / most:.0f}%;"
        f"background:{'#009650' if kind == 'correct' else '#1e5adc' if kind == 'missed' else '#dc2828'}'></span>"
        f"<td class=why>{page.escape(why)}"
        for kind, (title, why) in _MISTAKES.items()
    ]
    return page.table(("Kind", "Number", "", "Meaning"), rows)


def _classes(classes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The table of classes, worst first; a long one is folded."""
    there = {name: row for name, row in classes.items() if row["ap"] is not None}
    rows = [
        f"<tr><th>{page.escape(name)}<td class=n>{row['ap']:.4f}<td class=n>{row['ap50']:.4f}<td class=n>{row['objects']}"
        for name, row in sorted(there.items(), key=lambda item: item[1]["ap"])
    ]
    table = page.table(("Class", "AP", "AP50", "Objects"), rows)
    absent = [page.escape(name) for name in classes if name not in there]
    note = f"<p class=sub>Without object in these images: {', '.join(absent)}.</p>" if absent else ""
    if len(there) > 20:
        table = f"<details><summary>{len(there)} classes, worst first</summary>{table}</details>"
    return [table, note]


def _threshold_note(metrics: Mapping[str, Any]) -> str:
    rule = metrics["operate"]
    chosen = "the value with the best F1 on these images" if rule == "max-f1" else f"chosen by the rule {rule}"
    if metrics["split"] != "val":
        chosen = "chosen on validation images"
    if not metrics["labelled_images"]:
        chosen = "no object is labelled here to choose it by"
    return (
        f"A box counts from confidence {metrics['threshold']:.3f} on: {chosen}, stored in the weights and the exported file. "
        "segdet predict IMAGES --conf 0.3 uses another one; AP does not depend on it."
    )
