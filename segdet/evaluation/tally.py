"""What was counted in every image of a measurement: enough to score any resampling of the images, and small enough to keep.

A run keeps its tally (`per_image.npz`), so that runs can be compared without running their models again.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np

from segdet.errors import InputError
from segdet.evaluation import ratios, thin
from segdet.evaluation.matching import Matches
from segdet.files import replacing

FILE = "per_image.npz"
_SCHEMA = 1


@dataclass(frozen=True)
class MaskTally:
    """Counts of pixels in every image, for each class.

    classes: their names. images, photographs: names, in the order of the data set. threshold: None with several classes.
    pixels: int64 `[N]`, those that count (not ignored). counts: int64 `[N, classes, 3]`: hit, extra (marked, not labelled)
    and missed; or `[N, classes, 15]` with the (hit, all) pairs of `thin.counts` behind them.
    """

    task: ClassVar[str] = "segmentation"
    main: ClassVar[str] = "iou"
    rounds: ClassVar[int] = 1000
    shifted: ClassVar[bool] = False

    classes: Sequence[str]
    images: Sequence[str]
    photographs: Sequence[str]
    threshold: float | None
    pixels: np.ndarray
    counts: np.ndarray

    @property
    def labelled(self) -> np.ndarray:
        """Labelled pixels of each image and class, int64 `[N, classes]`: two measurements on the same labels agree in it."""
        return np.asarray(self.counts[..., 0] + self.counts[..., 2])

    @property
    def marked(self) -> np.ndarray:
        """Marked pixels of each image and class, int64 `[N, classes]`."""
        return np.asarray(self.counts[..., 0] + self.counts[..., 1])

    def scores(self, times: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """As `bootstrap.Resampled`: pooled over pixels (the mean over classes when there are several), and per image.

        Where no image has an object, pooled scores are NaN; those per image say on how many of them nothing is marked.
        """
        weights = np.ones((1, len(self.images))) if times is None else times.astype(np.float64)
        flat = self.counts.reshape(len(self.counts), -1).astype(np.float64)  # exact up to 2**53, and BLAS is fast
        out = _averaged((weights @ flat).reshape(len(weights), *self.counts.shape[1:]))
        if not self.labelled.any():
            out = {name: np.full_like(values, np.nan) for name, values in out.items()}
        each = _averaged(self.counts[..., :3])
        for name in ("iou", "f1"):
            out[f"{name}_per_image"] = weights @ each[name] / weights.sum(axis=1)
        return out

    def of_each(self, name: str = "iou") -> np.ndarray:
        """A score of every image, float64 `[N]`; nothing labelled and nothing marked counts 1."""
        return _averaged(self.counts)[name]

    def per_class(self) -> dict[str, dict[str, Any]]:
        """Scores (None where nothing at all is labelled), labelled "pixels" and "negatives" of each class that is labelled or
        marked anywhere."""
        total, any_label = self.counts.sum(axis=0), bool(self.labelled.any())
        scores = _of_classes(total)
        there = total[:, :3].sum(axis=1) > 0
        return {
            name: {
                **{key: float(values[k]) if any_label else None for key, values in scores.items()},
                "pixels": int(self.labelled[:, k].sum()),
                "negatives": self.negatives([k]),
            }
            for k, name in enumerate(self.classes)
            if there[k] or len(self.classes) == 1
        }

    def negatives(self, chosen: Sequence[int] | None = None) -> dict[str, Any]:
        """False alarms on images without any object of the `chosen` classes (default: of any class).

        Returns:
            "images" without; "false_positive_images": in how many of them anything is marked; "false_positive_rate": their share,
            and "false_positive_area": the marked share of all their pixels (both None without such images).
        """
        which = list(range(len(self.classes))) if chosen is None else list(chosen)
        without = self.labelled[:, which].sum(axis=1) == 0
        marked = self.marked[:, which].sum(axis=1)[without]
        count, area = int(without.sum()), int(self.pixels[without].sum())
        return {
            "images": count,
            "false_positive_images": int((marked > 0).sum()),
            "false_positive_rate": float((marked > 0).mean()) if count else None,
            "false_positive_area": float(marked.sum() / area) if area else None,
        }


@dataclass(frozen=True)
class BoxTally:
    """What every detection of every image is worth; see `matching.Matches`."""

    task: ClassVar[str] = "detection"
    main: ClassVar[str] = "ap"
    rounds: ClassVar[int] = 200
    shifted: ClassVar[bool] = True

    classes: Sequence[str]
    images: Sequence[str]
    photographs: Sequence[str]
    threshold: float | None
    matches: Matches

    @property
    def labelled(self) -> np.ndarray:
        """Labelled objects of each image and class, int64 `[N, classes]`."""
        return self.matches.objects

    def scores(self, times: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """As `bootstrap.Resampled`: AP and AP50, and F1, precision and recall at the threshold and IoU 0.5; NaN without object."""
        weights = np.ones((1, len(self.images)), np.int64) if times is None else times
        precision = self.matches.average_precision(weights)
        right, wrong, missed = (weights @ self.matches.at(self.threshold or 0.0)).T
        out = {
            "ap": precision.mean(axis=0),
            "ap50": precision[0],
            "f1": ratios.f1(right, wrong, missed),
            "precision": ratios.precision(right, wrong, missed),
            "recall": ratios.recall(right, wrong, missed),
        }
        if not self.labelled.any():
            out = {name: np.full_like(values, np.nan, float) for name, values in out.items()}
        return out

    def of_each(self, name: str = "f1") -> np.ndarray:
        """F1 at IoU 0.5 of every image, float64 `[N]`; nothing there and nothing found counts 1."""
        return ratios.f1(*self.matches.at(self.threshold or 0.0).T)


Tally: TypeAlias = MaskTally | BoxTally


def save(tally: Tally, path: Path) -> None:
    """Write a tally, atomically."""
    arrays: dict[str, np.ndarray] = {
        "schema": np.array(_SCHEMA),
        "task": np.array(tally.task),
        "threshold": np.array(np.nan if tally.threshold is None else tally.threshold),
        **{name: np.array(list(getattr(tally, name)), dtype=np.str_) for name in ("classes", "images", "photographs")},
    }
    if isinstance(tally, MaskTally):
        arrays |= {"pixels": tally.pixels, "counts": tally.counts}
    else:
        arrays |= {field.name: getattr(tally.matches, field.name) for field in fields(Matches)}
    with replacing(path) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]


def load(path: Path) -> Tally:
    """Read a tally.

    Raises:
        InputError: missing, damaged, or of another version of segdet.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if int(file["schema"]) != _SCHEMA:
                raise InputError(f"{path}: written by another segdet; measure the run again with --data")
            threshold = float(file["threshold"])
            names = {name: file[name].tolist() for name in ("classes", "images", "photographs")}
            known = None if np.isnan(threshold) else threshold
            if str(file["task"]) == MaskTally.task:
                return MaskTally(**names, threshold=known, pixels=file["pixels"], counts=file["counts"])
            matches = Matches(**{field.name: file[field.name] for field in fields(Matches)})
            return BoxTally(**names, threshold=known, matches=matches)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}); measure the run again with --data"
        ) from error


def _of_classes(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Scores `[...]` of one class each from counts `[..., 3]` or `[..., 15]`."""
    counts = [sums[..., k] for k in range(3)]
    out = {
        "iou": ratios.iou(*counts),
        "f1": ratios.f1(*counts),
        "precision": ratios.precision(*counts),
        "recall": ratios.recall(*counts),
    }
    if sums.shape[-1] > 3:
        out |= thin.scores(sums[..., 3:].reshape(*sums.shape[:-1], len(thin.NAMES), 4))
    return out


def _averaged(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Scores `[M]` from counts `[M, classes, 3 or 15]`: the mean over the classes that are labelled or marked; 1 without any."""
    each = _of_classes(sums)
    if sums.shape[1] == 1:
        return {name: values[:, 0] for name, values in each.items()}
    there = sums[..., :3].sum(axis=-1) > 0
    return {name: ratios.share((values * there).sum(axis=1), there.sum(axis=1)) for name, values in each.items()}
