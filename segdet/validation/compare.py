"""`segdet compare`: several models measured on the same images, or the folds of one.

What a run has counted at the end of its training is used where it fits (`per_image.npz`); everything else is measured again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segdet.console import say
from segdet.data.records import Dataset
from segdet.errors import InputError, InvalidOption, setting
from segdet.evaluation import bootstrap, comparison
from segdet.evaluation import tally as tallies
from segdet.evaluation.tally import MaskTally, Tally
from segdet.metadata import Metadata
from segdet.validation.checkpoint import Trained, dataset_for, open_trained, part_of
from segdet.validation.run import Measured, validate

# Settings in which the folds of one experiment may differ.
_OWN = frozenset({"fold", "name", "out", "device", "workers", "logger", "limit"})


@dataclass(frozen=True)
class How:
    """What to measure on, as `segdet val` takes it."""

    data: str | None = None
    split: str = "val"
    limit: int | None = None
    device: str = "cpu"
    workers: int | None = None


@dataclass(frozen=True)
class Entrant:
    """One of the compared: its name in tables, what it is, and what was counted."""

    name: str
    trained: Trained
    tally: Tally

    def row(self) -> dict[str, Any]:
        """Its line in the table."""
        metadata = self.trained.metadata
        return {
            "name": self.name,
            "path": str(self.trained.given),
            "arch": metadata.arch,
            "backbone": metadata.backbone,
            "threshold": self.tally.threshold,
            "bytes": self.trained.file.stat().st_size,
            **{name: _finite(float(value[0])) for name, value in self.tally.scores().items()},
            "ci95": bootstrap.intervals(self.tally),
        }


@dataclass(frozen=True)
class Compared:
    """result: what the command prints as JSON. entrants: best first. dataset: with the images; None when only stored counts were read."""

    result: dict[str, Any]
    entrants: list[Entrant]
    dataset: Dataset | None


def compare(sources: Sequence[Path], how: How) -> Compared:
    """Measure all on the same images and say how they differ.

    Raises:
        InputError: fewer than two, or models that cannot be compared.
    """
    if len(sources) < 2:
        raise InputError("compare what with what? segdet compare RUN RUN")
    opened = [open_trained(source) for source in sources]
    names = _names(opened)
    _check_models(dict(zip(names, opened, strict=True)))
    shared = part_of(dataset_for(opened[0], how.data, how.limit), how.split) if how.data else None
    divisions = {(trained.fold, trained.seed): trained for trained in opened}
    if len({fold for fold, _ in divisions}) > 1 and shared is None:
        raise InputError(
            f"these runs held out different folds; combine them with {setting('folds')}, or measure all on other images "
            f"with {setting('data')}"
        )
    if shared is not None and len(divisions) > 1:
        _check_divisions(list(divisions.values()), shared, how)
    found = {name: _count(trained, how, shared) for name, trained in zip(names, opened, strict=True)}
    comparison.check_alike(found)
    entrants = {name: Entrant(name, trained, found[name]) for name, trained in zip(names, opened, strict=True)}
    order = comparison.ranked(found)
    first = found[order[0]]
    result = {
        "task": first.task,
        "main": first.main,
        "data": how.data or opened[0].data,
        "split": how.split,
        "images": len(first.images),
        "photographs": len(set(first.photographs)),
        "runs": [entrants[name].row() for name in order],
        "differences": comparison.pairs(found),
    }
    return Compared(result, [entrants[name] for name in order], shared)


def folds(sources: Sequence[Path], how: How) -> Compared:
    """Sum up runs over the folds of a dataset; runs with other settings are summed up apart and compared.

    Raises:
        InputError: runs that are no folds, the same fold twice, or folds of different divisions.
    """
    if how.data is not None:
        reason = f"every fold is measured on the photographs it held out; {setting('folds')} cannot use other images"
        raise InvalidOption("data", how.data, reason, f"leave {setting('data')} out")
    opened = [open_trained(source) for source in sources]
    _check_models({str(trained.given): trained for trained in opened})
    groups: dict[str, dict[str, Trained]] = {}
    for trained in opened:
        if trained.fold is None:
            raise InputError(
                f"{trained.given}: trained without {setting('fold')}; `segdet train ... {setting('fold', '1/5')}` makes the first "
                "of five"
            )
        group = groups.setdefault(_experiment(trained, opened), {})
        if trained.fold in group:
            raise InputError(
                f"{trained.given}: fold {trained.fold} again (so is {group[trained.fold].given}); name each fold once"
            )
        group[trained.fold] = trained
    divisions = {(trained.data, trained.seed, str(trained.fold).split("/")[1]) for trained in opened}
    if len(divisions) > 1:
        raise InputError(
            f"{opened[0].given} and others divide the photographs differently ({setting('data')}, {setting('seed')} or the "
            "number of folds); use folds of one division"
        )
    entrants, result = [], []
    for name, group in groups.items():
        counted = {
            fold: _count(trained, how, None) for fold, trained in sorted(group.items(), key=lambda item: _k(item[0]))
        }
        entrants += [Entrant(f"{name} {fold}", group[fold], tally) for fold, tally in counted.items()]
        number = int(str(opened[0].fold).split("/")[1])
        missing = [f"{k}/{number}" for k in range(1, number + 1) if f"{k}/{number}" not in group]
        result.append({"name": name, "missing": missing, **comparison.summary(counted)})
    whole = {
        one["name"]: comparison.joined(
            [e.tally for e in entrants if e.name.rsplit(" ", 1)[0] == one["name"] and isinstance(e.tally, MaskTally)]
        )
        for one in result
        if entrants[0].tally.task == "segmentation"
    }
    if len(whole) > 1:
        comparison.check_alike(whole)
    return Compared(
        {
            "task": entrants[0].tally.task,
            "main": entrants[0].tally.main,
            "data": opened[0].data,
            "experiments": result,
            "differences": comparison.pairs(whole) if len(whole) > 1 else [],
        },
        entrants,
        None,
    )


def seen(entrant: Entrant, dataset: Dataset, split: str, chosen: Sequence[int], how: How) -> Measured[Any]:
    """What a model answers on a few images of a split (indices), for pictures."""
    records = [dataset.splits[split][index] for index in chosen]
    return validate(entrant.trained.file, records, "pictures", workers=0, device=how.device)


def telling(first: Tally, second: Tally, count: int) -> list[int]:
    """Indices of the images in which two differ most, those that the first does better alternating with those it does worse."""
    gap = first.of_each() - second.of_each()
    better = [int(k) for k in np.argsort(-gap, kind="stable")[:count] if gap[k] > 0]
    worse = [int(k) for k in np.argsort(gap, kind="stable")[:count] if gap[k] < 0]
    mixed = [k for pair in zip(better, worse, strict=False) for k in pair] + better[len(worse) :] + worse[len(better) :]
    return mixed[:count]


def _count(trained: Trained, how: How, shared: Dataset | None) -> Tally:
    """Stored counts where they are what is asked for, else a new measurement."""
    stored = trained.run / tallies.FILE if trained.run is not None and trained.file.name == "best.safetensors" else None
    plain = shared is None and how.split == "val" and how.limit is None
    if plain and stored is not None and stored.is_file():
        tally = tallies.load(stored)
        if _belongs(tally, trained.metadata):
            return tally
    dataset = shared if shared is not None else part_of(dataset_for(trained, how.data, how.limit), how.split)
    say(f"measuring {trained.given} on {dataset.name} {how.split}")
    measured = validate(
        trained.file, dataset.splits[how.split], how.split, classes=dataset.classes, workers=how.workers, device=how.device,
    )  # fmt: skip
    return measured.tally


def _belongs(tally: Tally, metadata: Metadata) -> bool:
    """Whether stored counts are those of these weights: they tell the threshold and the score of the same measurement."""
    score, known = float(tally.scores()[tally.main][0]), metadata.metrics.get(tally.main)
    return tally.threshold == metadata.threshold and known is not None and abs(score - known) < 1e-9


def _names(opened: Sequence[Trained]) -> list[str]:
    """Short names where they tell the models apart, else longer ones; numbered when the same is named twice."""
    names = [trained.name for trained in opened]
    for longer in (["/".join(one.given.parts[-2:]) for one in opened], [str(one.given) for one in opened]):
        if len(set(names)) < len(names):
            names = longer
    out: list[str] = []
    for name in names:
        out.append(name if name not in out else f"{name} ({sum(one.split(' (')[0] == name for one in out) + 1})")
    return out


def _experiment(trained: Trained, opened: Sequence[Trained]) -> str:
    """What the folds of one experiment have in common, in the settings in which the runs differ at all."""
    varying = [
        key
        for key in trained.settings
        if key not in _OWN and len({repr(other.settings.get(key)) for other in opened}) > 1
    ]
    differences = ", ".join(
        f"{trained.settings[key]}" if key in ("arch", "backbone") else f"{key} {trained.settings[key]}"
        for key in varying
    )
    return differences or trained.metadata.arch


def _check_divisions(opened: Sequence[Trained], shared: Dataset, how: How) -> None:
    """Models that divided these very images differently were each trained on what the other held out."""
    for trained in opened:
        own = part_of(dataset_for(trained, how.data, how.limit), how.split)
        if [one.image for one in own.splits[how.split]] != [one.image for one in shared.splits[how.split]]:
            raise InputError(
                f"{trained.given} was trained on photographs of {how.data} that {opened[0].given} held out, or the other way "
                f"round; combine folds with {setting('folds')}, or name other images"
            )


def _check_models(opened: Mapping[str, Trained]) -> None:
    """Tell at once what no measurement could mend."""
    (first, one), *others = ((name, trained.metadata) for name, trained in opened.items())
    for name, other in others:
        if one.task != other.task:
            raise InputError(f"{first} does {one.task}, {name} {other.task}: they have no score in common")
        if one.classes != other.classes:
            raise InputError(f"{first} knows the classes {one.classes}, {name} {other.classes}; compare like with like")


def _k(fold: str) -> int:
    return int(fold.split("/")[0])


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
