"""What a measurement leaves in a run folder: numbers, counts of every image, pictures and the report."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segdet import provenance
from segdet.data.doctor import leaks
from segdet.data.records import Dataset
from segdet.evaluation import tally as tallies
from segdet.evaluation.detection import DetectionEvaluation
from segdet.evaluation.mask_errors import MaskError
from segdet.evaluation.segmentation import Evaluation
from segdet.evaluation.tally import Tally
from segdet.files import write_bytes, write_json, write_text
from segdet.metadata import Metadata
from segdet.reporting import browser, detection, page, pictures, plots, report


def run_folder(
    run: Path,
    dataset: Dataset,
    metadata: Metadata,
    metrics: Mapping[str, Any],
    result: Evaluation | DetectionEvaluation,
    tally: Tally,
    errors: Sequence[MaskError],
) -> None:
    """Write everything about the validation of a run into its folder."""
    write_json(run / "metrics.json", metrics)
    tallies.save(tally, run / tallies.FILE)
    records, threshold = dataset.splits["val"], metrics["threshold"]
    history = read_history(run)
    if history:
        write_bytes(run / "results.png", plots.png(plots.results(history)))
    if isinstance(result, Evaluation):
        write_text(run / "errors.csv", _table(browser.rows(errors, records, result.classes)))
        each = result.iou_of_each(threshold)
        pictures.validation(records, result, threshold, sorted(each, key=lambda index: each[index]), run / "samples")
    else:
        detection.validation(records, result, threshold or 0.0, run / "samples")
    html(run / "report.html", subject(run.resolve().name, run, dataset, "val", metadata), metrics, result, errors)


def subject(title: str, run: Path | None, dataset: Dataset, split: str, metadata: Metadata) -> page.Subject:
    """What a report tells beside the scores, gathered from the run folder and the dataset."""
    history = read_history(run) if run is not None else []
    known = leaks.known(dataset, split)
    return page.Subject(title, run, dataset, split, metadata, history, provenance.read(run), known)


def html(
    path: Path,
    about: page.Subject,
    metrics: Mapping[str, Any],
    result: Evaluation | DetectionEvaluation,
    errors: Sequence[MaskError],
) -> None:
    """Write the report of a measurement to `path`."""
    if isinstance(result, Evaluation):
        report.write(path, about, metrics, result, errors)
    else:
        detection.write_report(path, about, metrics, result)


def read_history(run: Path) -> list[dict[str, float | None]]:
    """The rows of `results.csv`; none where there is no such file."""
    file = run / "results.csv"
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as content:
        return [
            {name: float(value) if value else None for name, value in row.items()} for row in csv.DictReader(content)
        ]


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
