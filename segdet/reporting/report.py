"""`report.html` of a segmentation model: how good it is and where it fails, in one file without network use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segdet.data.geometry import rasterize
from segdet.data.images import encode_jpeg
from segdet.drawing import grid
from segdet.evaluation.binary import BINS
from segdet.evaluation.label_width import follows_names
from segdet.evaluation.mask_errors import MaskError
from segdet.evaluation.segmentation import Evaluation, true_mask
from segdet.reporting import browser, page, pictures, plots
from segdet.reporting.page import Subject

_EXPLAINED = {
    "iou": ("IoU", "of all pixels that are marked or labelled, the share that is both; over all images together"),
    "f1": ("F1 (Dice)", "harmonic mean of precision and recall of pixels, over all images together"),
    "precision": ("Precision", "of the pixels marked, the share that is labelled"),
    "recall": ("Recall", "of the labelled pixels, the share that is marked"),
    "f1_2px": ("F1 within 2 px", "a pixel is right when the other mask has one within 2 pixels: forgives how exactly edges were drawn"),
    "cldice": ("Centre-line Dice", "how much of each centre line lies inside the other mask: is the line followed, whatever its width"),
    "boundary_iou": ("Boundary IoU", "IoU of the parts near the outlines"),
    "average_precision": ("Average precision", "area under precision against recall: how good the probabilities are at any threshold"),
    "iou_per_image": ("IoU per image", "mean over images; an image without object predicted empty counts 1"),
    "f1_per_image": ("F1 per image", "mean over images"),
    "miou": ("Mean IoU", "mean over the classes that occur, background not counted"),
    "pixel_accuracy": ("Pixel accuracy", "share of all pixels with the right class, background counted"),
}  # fmt: skip

_HINTS = {
    "iou": "overlap of what is marked and what is labelled; strict about edges",
    "f1": "the same agreement on another scale, as other tools report it",
    "f1_2px": "agreement when edges may be off by 2 pixels",
    "cldice": "how much of the lines is followed, whatever their width",
}

_KEY = (
    "<p>From left to right: photograph, labels, prediction, and the difference:<span class=k style='background:#009650'></span>found"
    "<span class=k style='background:#dc2828'></span>marked but not labelled"
    "<span class=k style='background:#1e5adc'></span>labelled but missed.</p>"
)
_WORST, _BEST = 8, 4
_MATRIX = 25  # classes up to which a confusion matrix is a table that can be read


def write(
    path: Path, subject: Subject, metrics: Mapping[str, Any], result: Evaluation, errors: Sequence[MaskError]
) -> None:
    """Write the page to `path`."""
    records, one = subject.dataset.splits[subject.split], result.one_class
    shown = [name for name in ("iou", "f1", "f1_2px", "cldice") if name in metrics]
    judged = bool(metrics["labelled_images"])

    def masks(index: int) -> tuple[np.ndarray, np.ndarray]:
        target, predicted = true_mask(records[index], one), result.mask(index, metrics["threshold"])
        known = target != rasterize.IGNORE
        return np.where(known, predicted, 0).astype(np.uint8), np.where(known, target, 0).astype(np.uint8)

    sections: list[tuple[str, Sequence[str]]] = [
        ("", [_in_words(metrics, result), page.cards(metrics, {name: _EXPLAINED[name][0] for name in shown}, _HINTS)]),
        ("Scores", _scores(metrics)),
        ("Kinds of mistakes", [*_mistakes(metrics, one), *browser.browser(errors, records, masks, result.classes)]),
        ("Worst and best images", _images(subject, metrics, result)),
    ]
    if metrics["label_width"] is not None:
        sections.append(("Were the labels drawn alike?", _widths(metrics, result, errors)))
    if one and judged:
        sections.append(("Threshold", _threshold(metrics, result)))
    if metrics["calibration"]:
        sections.append(("Can its probabilities be believed?", _reliability(metrics, one)))
    sections.append(("Pixels right and wrong" if one else "Confusion of classes", _confusion(metrics)))
    page.write(path, subject, metrics, sections)


def _in_words(metrics: Mapping[str, Any], result: Evaluation) -> str:
    if not metrics["labelled_images"]:
        return page.unjudged(metrics)
    if not result.one_class:
        return (
            f"<p class=say>Averaged over {len(metrics['classes'])} classes, {_percent(metrics['recall'])} of the labelled pixels get "
            f"the right name, and {_percent(metrics['precision'])} of the pixels given a name have the right one.</p>"
        )
    name = page.escape(result.classes[0])
    alarm = metrics["negatives"]
    text = (
        f"Of 100 pixels labelled <i>{name}</i>, it marks {100 * metrics['recall']:.0f}; of 100 pixels that it marks, "
        f"{100 * metrics['precision']:.0f} are labelled {name}."
    )
    edges = (metrics["f1_2px"] - metrics["f1"]) / max(1e-9, 1 - metrics["f1"])
    if edges > 0.2:
        text += (
            f" {'Most' if edges > 0.5 else 'Part'} of the disagreement is about where the edge lies: with 2 pixels of tolerance the F1 "
            f"rises from {metrics['f1']:.2f} to {metrics['f1_2px']:.2f}."
        )
    if alarm["images"] == 0:
        text += f" No image here is without {name}, so nothing is known about false alarms on clean surfaces."
    else:
        some = "1 image" if alarm["images"] == 1 else f"{alarm['images']} images"
        text += (
            f" On {some} without {name} it marks something on {alarm['false_positive_images']}, together "
            f"{_percent(alarm['false_positive_area'])} of their area"
            + (" (too few to say how it does on clean surfaces)." if alarm["images"] < 20 else ".")
        )
    return f"<p class=say>{text}</p>"


def _scores(metrics: Mapping[str, Any]) -> list[str]:
    out = [
        f"<p class=sub>{metrics['images']} images at their own resolution; a pixel is labelled when an outline covers half of it or more "
        f"({page.escape(metrics['rasterizer'])}). The 95 % interval (bootstrap over photographs) is where the score would lie on other "
        "photographs of the same kind.</p>",
        *([_yardstick(metrics)] if metrics["labelled_images"] else []),
        page.table(("Score", "Value", "95 % interval", "Meaning"), page.score_rows(metrics, _EXPLAINED)),
    ]
    rows = metrics["classes"]
    if len(rows) > 1:
        names = ("iou", "f1", "precision", "recall", "f1_2px", "cldice", "boundary_iou")
        lines = [
            f"<tr><th>{page.escape(name)}"
            + "".join(f"<td class=n>{'none' if row[score] is None else f'{row[score]:.3f}'}" for score in names)
            + f"<td class=n>{row['pixels']:,}"
            for name, row in sorted(rows.items(), key=lambda item: item[1]["iou"] or 0.0)
        ]
        made = page.table(("Class", *(_EXPLAINED[name][0] for name in names), "Labelled pixels"), lines)
        out.append(f"<details open><summary><b>{len(rows)} classes</b>worst first</summary>{made}</details>")
    return out


def _yardstick(metrics: Mapping[str, Any]) -> str:
    """What the labels reach against themselves: the most that can be asked of scores this strict."""
    moved = metrics["shifted_labels"]
    return (
        f"<p>A yardstick: these very labels, moved one pixel to the right and down, score IoU {moved['iou']:.2f}, F1 {moved['f1']:.2f} and "
        f"F1 within 2 px {moved['f1_2px']:.3f} against themselves. People do not draw edges more exactly than that, so an IoU "
        "near this value is as good as can be measured.</p>"
    )


def _mistakes(metrics: Mapping[str, Any], one: bool) -> list[str]:
    return [
        "<p class=sub>Judged along centre lines, so that a crack drawn too wide is one mistake and not a thousand pixels; from 30 "
        "wrong pixels on. Every one is listed in errors.csv of the run folder.</p>",
        browser.overview(metrics["errors"], one),
        "<p>Photograph and difference:<span class=k style='background:#009650'></span>found"
        "<span class=k style='background:#dc2828'></span>marked but not labelled"
        "<span class=k style='background:#1e5adc'></span>labelled but missed. Not every mistake is the model's: look for labels "
        "that are too wide, misplaced or missing.</p>",
    ]


def _images(subject: Subject, metrics: Mapping[str, Any], result: Evaluation) -> list[str]:
    threshold, records = metrics["threshold"], subject.dataset.splits[subject.split]
    each = result.iou_of_each(threshold)
    worst_first = sorted(each, key=lambda index: each[index])
    out = [
        _KEY,
        page.drawing(
            plots.each_image(list(each.values()), "IoU"), "Each image counts once here, however much of it is labelled"
        ),
    ]
    best = [index for index in reversed(worst_first) if records[index].instances][:_BEST]
    for title, chosen in (("Worst", worst_first[:_WORST]), ("Best", best)):
        for index in chosen:
            tiles = grid(pictures.comparison(records[index], result, index, threshold), 4, 300)
            empty = "" if records[index].instances else " (its label file is empty: is that true?)"
            caption = f"{title}: {records[index].image.name}, IoU {each[index]:.3f}{empty}"
            out.append(page.figure(encode_jpeg(tiles, 85), "jpeg", caption))
    return out


def _widths(metrics: Mapping[str, Any], result: Evaluation, errors: Sequence[MaskError]) -> list[str]:
    found, widths = metrics["label_width"], result.label_widths(metrics["threshold"], errors)
    low, _, high = found["quartiles"]
    text = (
        f"Where both see something, half of the photographs have labels {low:.2f} to {high:.2f} times as wide (or large) as what is "
        f"marked. If nothing were wrong but that, the IoU would be {found['iou_width_alone']:.2f}. "
    )
    if follows_names(found):
        text += (
            f"The width goes with the order of the file names (correlation with the neighbours {found['neighbours']:.2f}). Unless the "
            "photographs change there too (another site, another camera), the labels were drawn in several ways, by several people most "
            "likely, which no model can see in a photograph. Agree on one way, or judge by F1 within 2 px and centre-line Dice."
        )
    else:
        text += (
            "It does not go with the order of the file names, so nothing there speaks for several ways of labelling."
        )
    drawn = plots.label_widths(widths.ratios, widths.around(), widths.names[0], widths.names[-1])
    return [
        f"<p>{text}</p>",
        page.drawing(
            drawn,
            "Long steps up and down are a change of hand, or of camera: chance goes up and down at every photograph",
        ),
    ]


def _threshold(metrics: Mapping[str, Any], result: Evaluation) -> list[str]:
    threshold, curve, oracle = metrics["threshold"], result.binary.curve(), metrics["oracle"]
    rule = metrics["operate"]
    chosen = (
        "the value with the best F1 on these images"
        if rule == "max-f1"
        else f"chosen by the rule <code>{page.escape(rule)}</code>"
    )
    if metrics["split"] != "val":
        chosen = "chosen on validation images"
    drawn = [
        page.drawing(
            plots.precision_recall(
                curve, min(BINS - 1, round(threshold * BINS)), metrics["average_precision"], "pixels"
            ),
            "Each point is one threshold; up and to the right is better",
        ),
        page.drawing(
            plots.sweep(curve, threshold, ("precision", "recall", "f1", "iou")),
            "A flat top of F1 means that the exact threshold hardly matters",
        ),
    ]
    return [
        f"<p>A pixel counts as object from probability {threshold:.3f} on: {chosen}, stored in the weights and the exported file. To miss "
        "less, lower it: <code>segdet val RUN --threshold-rule recall=0.95</code> stores the one that finds 95 % of the labelled pixels; "
        "<code>segdet predict IMAGES --conf 0.3</code> changes it for one command.</p>",
        f"<div class=two>{''.join(drawn)}</div>",
        f"<p class=sub>Oracle, not reachable in use because it looks at the answers: the best threshold for this set gives F1 "
        f"{oracle['ods']:.3f} (ODS), the best one for each image {oracle['ois']:.3f} (OIS).</p>",
    ]


def _reliability(metrics: Mapping[str, Any], one: bool) -> list[str]:
    found = metrics["calibration"]
    candidates = found["ece_candidates"]
    rows = [row for row in found["bins"] if row["from"] >= 0.5]
    mean_confidence = sum(row["pixels"] * row["confidence"] for row in rows) / max(
        1, sum(row["pixels"] for row in rows)
    )
    right = sum(row["pixels"] * row["right"] for row in rows) / max(1, sum(row["pixels"] for row in rows))
    gap = mean_confidence - right
    lean = "overconfident" if gap > 0.03 else "underconfident" if gap < -0.03 else "about right"
    what = "labelled" if one else "right"
    text = (
        f"<p>Where it gives a probability of 0.5 or more, it says {_percent(mean_confidence)} on average, "
        f"and {_percent(right)} of these pixels are {what}: it is {lean}. Expected calibration error {found['ece']:.4f} over all pixels"
        + (
            f", {candidates:.3f} over those with a probability of 0.05 or more, nearly all others being plain background"
            if candidates
            else ""
        )
        + ". Pixels at the edges of labels, which cannot be drawn exactly, are part of it.</p>"
    )
    return [
        text,
        page.drawing(
            plots.reliability(found, one),
            "On the dashed line probabilities are true; below it the model is overconfident",
        ),
    ]


def _confusion(metrics: Mapping[str, Any]) -> list[str]:
    labels, matrix = metrics["confusion"]["labels"], np.array(metrics["confusion"]["matrix"])
    total = matrix.sum(axis=1, keepdims=True)
    shares = matrix / np.maximum(1, total)
    out = ["<p class=sub>Of the pixels labelled as the row says, the share that was given each name.</p>"]
    if len(labels) <= _MATRIX:
        rows = [
            f"<tr><th>{page.escape(name)}<td class=n>{int(total[k, 0]):,}"
            + "".join(
                f"<td class=n style='background:color-mix(in srgb,var(--c0) {60 * share:.0f}%,transparent)'>{share:.1%}"
                for share in shares[k]
            )
            for k, name in enumerate(labels)
        ]
        return [*out, page.table(("Labelled", "Pixels", *labels), rows)]
    wrong = [
        (int(matrix[i, j]), i, j) for i in range(len(labels)) for j in range(len(labels)) if i != j and matrix[i, j]
    ]
    rows = [
        f"<tr><th>{page.escape(labels[i])}<td>{page.escape(labels[j])}<td class=n>{count:,}<td class=n>{shares[i, j]:.1%}"
        for count, i, j in sorted(wrong, reverse=True)[:40]
    ]
    return [
        f"<p class=sub>The whole matrix of {len(labels)} names is in metrics.json; here are the 40 largest confusions.</p>",
        page.table(("Labelled", "Named", "Pixels", "Share of the labelled"), rows),
    ]


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"
