"""A trained model as the user names it (a run folder, weights, or an ONNX file), and the images it may be measured on.

What a model was trained on decides which images it has not seen: a run knows its folds and what it held out, and so do
weights and ONNX files made by this version.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from segdet.console import say
from segdet.data.catalog import cards, splits
from segdet.data.records import Dataset
from segdet.errors import InputError, InvalidOption, setting
from segdet.metadata import Metadata


@dataclass(frozen=True)
class Trained:
    """given: as the user wrote it. file: the weights or the ONNX file. run: its run folder, where it lies in one.

    settings: the run's `config.yaml` (empty without a run).
    """

    given: Path
    file: Path
    run: Path | None
    metadata: Metadata
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """A short name for tables: the run's, or the file's."""
        return self.run.resolve().name if self.run is not None and self.given.is_dir() else self.file.stem

    @property
    def fold(self) -> str | None:
        """K/N when a fold of the photographs was held out."""
        found = self.settings.get("fold") if self.settings else (self.metadata.data.model_extra or {}).get("fold")
        return None if found is None else str(found)

    @property
    def seed(self) -> int:
        """Of the fold, and of what was held out where there is no validation split."""
        if self.settings:
            return int(self.settings.get("seed") or 0)
        return int((self.metadata.data.model_extra or {}).get("seed") or 0)

    @property
    def data(self) -> str:
        """The dataset it was trained on: a run remembers the path, weights and ONNX files only the name."""
        return str(self.settings.get("data") or self.metadata.data.name)


def open_trained(path: str | Path) -> Trained:
    """Find what `path` stands for.

    Raises:
        InputError: neither a run folder with weights, nor weights, nor an ONNX file of segdet.
    """
    from segdet.inference.backends.select import open_session
    from segdet.models import weights

    given = Path(path)
    onnx = given.suffix == ".onnx"
    file = given if onnx else weights.find(given)
    metadata = open_session(file, "cpu").metadata if onnx else weights.read_metadata(file)
    run = given if given.is_dir() else file.parent.parent if file.parent.name == "weights" else None
    settings = _settings(run / "config.yaml") if run is not None and (run / "config.yaml").is_file() else {}
    return Trained(given, file, run if settings else None, metadata, settings)


def dataset_for(trained: Trained, data: str | None = None, limit: int | None = None) -> Dataset:
    """The dataset to measure on: the one it was trained on divided as it was for training, any other as it is.

    Which of both it is tells the fingerprint of the labels, wherever they lie now; without `data` it is the first.

    Raises:
        InputError: it cannot be had.
    """
    if data is None and not cards.is_there(trained.data):
        where = f"its images cannot be found ({trained.data} is not there)"
        raise InputError(f"{trained.given}: {where}; name them with {setting('data', 'FOLDER')}")
    try:
        dataset = cards.load(data or trained.data)
    except InputError as error:
        if data is not None:
            raise
        hint = f"name them with {setting('data')}"
        raise InputError(f"{trained.given}: its images cannot be found ({error.message}); {hint}") from error
    dataset = splits.for_task(dataset, trained.metadata.task)
    if data is None:
        dataset = _divided(dataset, trained)
    elif dataset.splits.get("train"):
        with contextlib.suppress(InputError):  # too few photographs for its folds: not the same set
            divided = _divided(dataset, trained)
            of_training = splits.limited(divided, trained.settings.get("limit"))
            dataset = divided if of_training.fingerprint() == trained.metadata.data.sha256 else dataset
    return splits.limited(dataset, limit)


def part_of(dataset: Dataset, split: str) -> Dataset:
    """The dataset, after checking that it has images in `split`; a set without any division is that split.

    Raises:
        InputError: it has none.
    """
    if not dataset.splits.get(split):
        if len(dataset.splits) == 1:
            (only, records), *_ = dataset.splits.items()
            say(f"{dataset.name} has no {split} split: measured on all {len(records)} images of {only}")
            return replace(dataset, splits={split: records})
        raise InvalidOption("split", split, f"{dataset.root} has no such split", f"it has {', '.join(dataset.splits)}")
    return dataset


def _divided(dataset: Dataset, trained: Trained) -> Dataset:
    if trained.fold:
        dataset = splits.fold(dataset, *splits.parse_fold(trained.fold), trained.seed)
    return splits.with_validation(dataset, trained.seed)[0]


def _settings(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            f"{file}: cannot be read ({str(error).splitlines()[0]}); name the weights file instead"
        ) from error
    return content if isinstance(content, dict) else {}
