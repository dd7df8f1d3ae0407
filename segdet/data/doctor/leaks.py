"""What is known about leaks between splits, without the minutes that a full search takes.

Copies by name and identical files are looked for at once. Photographs of the same object are found by `segdet data check` only;
what it found is remembered in the cache folder, so that every later report of that dataset can tell of it.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from segdet.data.doctor.copies import Pair, sibling_leaks
from segdet.data.records import Dataset, by_photograph, iterate
from segdet.errors import SegdetError
from segdet.files import write_json
from segdet.places import cache_folder
from segdet.text import encoded

_SCHEMA = 1
_COPY, _FILE, _ALIKE = "a copy of the same photograph", "the same file", "another photograph of the same object"


@dataclass(frozen=True)
class Leak:
    """Two images of the same thing, `seen` in training and `scored` in the split that scores are taken on. why: in words."""

    seen: Path
    scored: Path
    why: str


def known(dataset: Dataset, split: str = "val") -> tuple[list[Leak], bool]:
    """Leaks from the training images into `split`, one for each scored image, and whether look-alikes were searched for.

    What holds of one image of a photograph holds of all its augmented copies in `split`.
    """
    found = [Leak(p.first.image, p.second.image, _COPY) for p in sibling_leaks(dataset)]
    found += _identical(dataset, split)
    pairs = alike(dataset)
    for first, second in pairs or ():
        found += [Leak(first, second, _ALIKE), Leak(second, first, _ALIKE)]
    train, scored = (_copies(dataset, name) for name in ("train", split))
    single: dict[Path, Leak] = {}
    for leak in found:
        if leak.seen.absolute() in train:
            for image in scored.get(leak.scored.absolute(), ()):
                why = _COPY if leak.why == _FILE and image != leak.scored else leak.why
                single.setdefault(image, Leak(leak.seen, image, why))
    return list(single.values()), pairs is not None


def remember(dataset: Dataset, pairs: Iterable[Pair]) -> None:
    """Keep what a search for look-alikes has found; without a folder to write to, it is found again next time."""
    images = [(pair.first.image, pair.second.image) for pair in pairs]
    content = {"schema": _SCHEMA, "pairs": [[str(image.absolute()) for image in both] for both in images]}
    with suppress(SegdetError, OSError):
        write_json(_file(dataset), content, indent=None)


def alike(dataset: Dataset) -> list[tuple[Path, Path]] | None:
    """Images of the same object as an earlier search found them; None when there was none."""
    try:
        content = json.loads(_file(dataset).read_bytes())
        if content["schema"] != _SCHEMA:
            return None
        return [(Path(first), Path(second)) for first, second in content["pairs"]]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _file(dataset: Dataset) -> Path:
    """Depends on the images, not on how they are divided: folds share what was found."""
    digest = hashlib.sha256()
    for path in sorted({record.image.absolute() for _, record in iterate(dataset)}):
        digest.update(encoded(f"{path} {path.stat().st_size}\n"))
    return cache_folder() / "lookalikes" / f"{digest.hexdigest()[:24]}.json"


def _copies(dataset: Dataset, split: str) -> dict[Path, list[Path]]:
    """The images of a split by their absolute paths, each with all images of its photograph."""
    records = dataset.splits.get(split, ())
    groups = [[records[index].image for index in group] for group in by_photograph(records).values()]
    return {image.absolute(): group for group in groups for image in group}


def _identical(dataset: Dataset, split: str) -> list[Leak]:
    """The same file in both; only files of equal length are read."""
    by_length: dict[int, list[Path]] = defaultdict(list)
    for record in dataset.splits.get("train", ()):
        by_length[record.image.stat().st_size].append(record.image)
    found = []
    for record in dataset.splits.get(split, ()):
        candidates = by_length.get(record.image.stat().st_size, [])
        digest = _digest(record.image) if candidates else b""
        same = next((path for path in candidates if _digest(path) == digest), None)
        if same is not None:
            found.append(Leak(same, record.image, _FILE))
    return found


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
