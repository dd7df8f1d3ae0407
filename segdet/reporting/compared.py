"""`compare.html`: several models side by side, and what the images can tell about their difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segdet.data.geometry import rasterize
from segdet.data.images import encode_jpeg, read_image
from segdet.data.records import Record
from segdet.drawing import agreement, grid, overlay
from segdet.evaluation.comparison import TITLES
from segdet.evaluation.detection import DetectionEvaluation
from segdet.evaluation.segmentation import Evaluation, true_mask
from segdet.evaluation.tally import Tally
from segdet.files import write_text
from segdet.reporting import detection, page, plots
from segdet.reporting.page import escape

_PAIRS = 15  # runs up to which every pair is listed


class Named(Protocol):
    """One of the compared."""

    @property
    def name(self) -> str: ...
    @property
    def tally(self) -> Tally: ...


def write(path: Path, result: Mapping[str, Any], gallery: Sequence[tuple[str, bytes]]) -> None:
    """Write the page to `path`.

    Args:
        result: as `comparison.compare` or `comparison.folds` give it. gallery: captions and JPEGs.
    """
    body = _folds(result) if "experiments" in result else _runs(result)
    if gallery:
        body += ["<h2>Where the two best differ most</h2>", _KEY]
        body += [page.figure(content, "jpeg", caption) for caption, content in gallery]
    write_text(path, page.document(f"Compared on {result['data']}", body))


_KEY = (
    "<p>Photograph with its labels, then each model's difference to them:<span class=k style='background:#009650'></span>found"
    "<span class=k style='background:#dc2828'></span>marked but not labelled"
    "<span class=k style='background:#1e5adc'></span>labelled but missed.</p>"
)


def _runs(result: Mapping[str, Any]) -> list[str]:
    main, runs = result["main"], result["runs"]
    title = TITLES[main]
    names = [name for name in TITLES if any(row.get(name) is not None for row in runs)]
    rows = []
    for row in runs:
        cells = "".join(f"<td class=n>{_number(row.get(name))}" for name in names)
        chosen = "" if row["threshold"] is None else f"{row['threshold']:.3f}"
        rows.append(
            f"<tr><th>{escape(row['name'])}<td>{escape(row['arch'])}<td>{escape(row['backbone'])}{cells}<td class=n>{chosen}"
            f"<td class=n>{row['bytes'] / 1e6:.1f}"
        )
    spans = [(row["name"], row[main], *row["ci95"][main]) for row in runs if row["ci95"].get(main)]
    out = [
        f"<h1>{len(runs)} models on {escape(result['data'])}</h1>",
        f"<p class=sub>{result['images']} images of {result['photographs']} photographs in {escape(result['split'])}, the same for all; "
        "scores at the images' own resolution, each model at its own threshold.</p>",
        *_sentences(result["differences"], runs[0]["name"]),
        "<h2>Scores</h2>",
        page.table(("Run", "Architecture", "Backbone", *(TITLES[name] for name in names), "Threshold", "MB"), rows),
    ]
    if spans:
        out.append(
            page.drawing(
                plots.ranges(spans, f"{title} and its 95 % interval"),
                "Each for itself: these may overlap although the difference is certain",
            )
        )
    return out + _differences(result["differences"], main)


def _sentences(differences: Sequence[Mapping[str, Any]], best: str) -> list[str]:
    """What is to be said about the best one against every other."""
    return [
        f"<p class=say>{escape(pair['sentence'])}.</p>"
        for pair in differences
        if best in (pair["first"], pair["second"])
    ]


def _differences(differences: Sequence[Mapping[str, Any]], main: str) -> list[str]:
    title = TITLES[main]
    spans = [
        (f"{pair['first']} − {pair['second']}", *(100 * pair["scores"][main][key] for key in ("value", "low", "high")))
        for pair in differences
        if main in pair["scores"]
    ]
    if not spans:
        return []
    names = [name for name in TITLES if any(name in pair["scores"] for pair in differences)]
    rows = [
        f"<tr><th>{escape(pair['first'])} − {escape(pair['second'])}"
        + "".join(_cell(pair["scores"].get(name)) for name in names)
        for pair in differences
    ]
    note = (
        "Bootstrap over photographs, the same ones drawn for both of a pair. An interval that leaves zero out is a difference these "
        "images show; of twenty comparisons of equals, one does so by chance. Threshold and best epoch were chosen on val: prefer a "
        "test split for the last word."
    )
    return [
        "<h2>Differences</h2>",
        f"<p class=sub>{note}</p>",
        page.drawing(
            plots.ranges(spans[:_PAIRS], f"difference in {title} points, 95 % interval", zero=True),
            "Right of zero: the first of the pair is better",
        ),
        page.table(("Points", *(TITLES[name] for name in names)), rows),
    ]


def _cell(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "<td>"
    value, low, high = (100 * score[key] for key in ("value", "low", "high"))
    text = f"{value:+.1f} <span class=why>({low:+.1f} to {high:+.1f})</span>"
    return f"<td class=n>{f'<b>{text}</b>' if score['verdict'] == 'different' else 'the same' if score['verdict'] == 'same' else text}"


def _folds(result: Mapping[str, Any]) -> list[str]:
    out = [f"<h1>Folds of {escape(result['data'])}</h1>"]
    out += [f"<p class=say>{escape(pair['sentence'])}.</p>" for pair in result["differences"]]
    for one in result["experiments"]:
        missing = f"; missing: {', '.join(one['missing'])}" if one["missing"] else ""
        names = [name for name in TITLES if name in one["spread"]]
        rows = []
        for name in names:
            spread, interval = one["spread"][name], one.get("ci95", {}).get(name)
            sd = "" if spread["sd"] is None else f" ± {spread['sd']:.3f}"
            span = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
            rows.append(
                f"<tr><th>{TITLES[name]}<td class=n>{spread['mean']:.3f}{sd}<td class=n>{spread['min']:.3f} to {spread['max']:.3f}"
                f"<td class=n>{_number(one.get('pooled', {}).get(name))}<td class=n>{span}"
            )
        each = [
            f"<tr><th>{escape(fold)}" + "".join(f"<td class=n>{_number(row[name])}" for name in names)
            for fold, row in one["folds"].items()
        ]
        out += [
            f"<h2>{escape(one['name'])}</h2>",
            f"<p class=sub>{len(one['folds'])} folds{escape(missing)}. Mean and standard deviation over folds; all photographs "
            "together: each marked by a model that has not seen it.</p>",
            page.table(("Score", "Mean ± sd", "Lowest to highest", "All photographs", "95 % interval"), rows),
            page.table(("Fold", *(TITLES[name] for name in names)), each),
        ]
    return out + _differences(result["differences"], result["main"])


def gallery(
    records: Sequence[Record],
    places: Sequence[int],
    pair: Sequence[Named],
    answers: Sequence[Evaluation | DetectionEvaluation],
) -> list[tuple[str, bytes]]:
    """Pictures of `records` with what two models answer.

    Args:
        places: of the records in the tallies of `pair`. answers: evaluations of exactly these records.
    """
    made = []
    for number, (record, place) in enumerate(zip(records, places, strict=True)):
        if any(number not in answer.kept for answer in answers):
            continue  # could not be read
        tiles = [_labels(record, answers[0])]
        tiles += [
            _difference(record, answer, number, one.tally.threshold) for answer, one in zip(answers, pair, strict=True)
        ]
        text = ", ".join(f"{one.name} {one.tally.of_each()[place]:.3f}" for one in pair)
        score = "F1" if pair[0].tally.task == "detection" else "IoU"
        made.append((f"{record.image.name}: {score} {text}", encode_jpeg(grid(tiles, 3, 380), 85)))
    return made


def _labels(record: Record, answer: Evaluation | DetectionEvaluation) -> np.ndarray:
    image = read_image(record.image)
    if isinstance(answer, DetectionEvaluation):
        return detection.labelled(record, image, answer.classes)
    target = true_mask(record, answer.one_class)
    return overlay(image, np.where(target == rasterize.IGNORE, 0, target).astype(np.uint8))


def _difference(
    record: Record, answer: Evaluation | DetectionEvaluation, number: int, threshold: float | None
) -> np.ndarray:
    if isinstance(answer, DetectionEvaluation):
        return detection.comparison(record, answer, number, threshold or 0.0)[2]
    target, predicted = true_mask(record, answer.one_class), answer.mask(number, threshold)
    known = target != rasterize.IGNORE
    return agreement(read_image(record.image), np.where(known, predicted, 0), np.where(known, target, 0))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
