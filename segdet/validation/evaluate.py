"""What `segdet val` does: measure a model, store its threshold where that is asked for, and write a report."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segdet.data.records import Dataset
from segdet.errors import InputError, InvalidOption, setting
from segdet.evaluation.operating import parse
from segdet.files import write_json
from segdet.validation.checkpoint import Trained, dataset_for, open_trained, part_of
from segdet.validation.config import ValConfig
from segdet.validation.run import Measured, validate


@dataclass(frozen=True)
class EvaluationResult:
    """The scores of a model on a dataset.

    Attributes:
        metrics: the content of `metrics.json`, with `model` and `data`.
        notes: what was written besides, a line each.
    """

    metrics: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def evaluate(source: str | Path, config: ValConfig | None = None) -> EvaluationResult:
    """Measure a run folder, weights or an ONNX file at the images' own resolution, with confidence intervals.

    Args:
        source: run folder, weights (.safetensors) or exported model (.onnx).
        config: the settings; None for the defaults.

    Raises:
        InputError: no such model or dataset, or settings that exclude each other.
    """
    config = config or ValConfig()
    rule = parse(config.threshold_rule) if config.threshold_rule is not None else None
    for name, value in (("limit", config.limit), ("exclude_leaks", config.exclude_leaks or None)):
        if rule is not None and value is not None:
            reason = f"the stored threshold must be chosen on all images, but {setting(name)} leaves some out"
            raise InvalidOption("threshold_rule", config.threshold_rule, reason, "remove one of the two")
    for name, path in (("out", config.out), ("report", config.report)):
        if path is not None:
            _check_place(name, path)
    trained = open_trained(source)
    dataset = part_of(dataset_for(trained, config.data, config.limit), config.split)
    if config.exclude_leaks:
        dataset = _without_leaks(dataset, config.split)
    measured = validate(
        trained.file, dataset.splits[config.split], config.split, classes=dataset.classes, rule=rule,
        imgsz=config.imgsz, degrade=config.degrade, workers=config.workers, device=config.device,
    )  # fmt: skip
    metrics = {**measured.metrics, "model": str(trained.file), "data": dataset.name}
    notes = []
    if rule is not None:
        notes.append(_store(trained, dataset, measured, own=config.data is None and config.imgsz is None))
    if config.out is not None:
        write_json(config.out, metrics)
    if config.report is not None:
        from segdet.reporting import publish

        about = publish.subject(trained.name, trained.run, dataset, config.split, measured.metadata)
        publish.html(config.report, about, metrics, measured.evaluation, measured.errors)
        notes.append(f"report: {config.report}")
    return EvaluationResult(metrics, notes)


def _check_place(name: str, path: Path) -> None:
    """Before the measurement takes its time: can a file be written there?"""
    if path.is_dir():
        raise InvalidOption(name, path, "is a folder", "name a file in it")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InvalidOption(name, path, "cannot write there", "choose another folder")


def _without_leaks(dataset: Dataset, split: str) -> Dataset:
    """Without the images of `split` that show what training shows."""
    from segdet.data.doctor import leaks

    known, searched = leaks.known(dataset, split)
    if not searched:
        reason = f"near-duplicates in {dataset.name} are not known yet"
        raise InvalidOption("exclude_leaks", None, reason, f"run `segdet data check {dataset.name}` first")
    leaking = {leak.scored for leak in known}
    clean = tuple(record for record in dataset.splits[split] if record.image not in leaking)
    if not clean:
        raise InputError(
            f"{setting('exclude_leaks')}: every image of {split} shows something that training shows; none remains"
        )
    return replace(dataset, splits={**dataset.splits, split: clean})


def _store(trained: Trained, dataset: Dataset, measured: Measured[Any], own: bool) -> str:
    """Store the threshold. When a run was measured on its own validation images, its numbers and report follow."""
    from segdet.reporting import publish
    from segdet.validation.threshold import store

    described = store(trained.file, trained.metadata, measured.metrics)
    if trained.run is not None and own and trained.file.name == "best.safetensors":
        publish.run_folder(
            trained.run, dataset, described, measured.metrics, measured.evaluation, measured.tally, measured.errors
        )
    threshold, rule = measured.metrics["threshold"], measured.metrics["operate"]
    note = f"threshold {threshold:.3f} ({rule}) stored in {trained.file}"
    return note if trained.file.suffix == ".onnx" else f"{note}; export again to have it in the ONNX file"
