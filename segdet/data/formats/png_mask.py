"""Roboflow's png-mask-semantic export: `x.jpg` with `x_mask.png` beside it, and `_classes.csv` in every split.

Another `_classes.csv`, whose header starts with `filename`, belongs to Roboflow's classification exports: those say what
is somewhere in a picture, not where, and are refused with that reason.
"""

from __future__ import annotations

from pathlib import Path

from segdet.data.formats import class_list
from segdet.data.formats.base import Adapter, Malformed, in_order, noting
from segdet.data.formats.layout import Tree, file_in
from segdet.data.formats.mask_records import Pair, read_pairs
from segdet.data.formats.matching import Name, match, pairs
from segdet.data.images import is_image
from segdet.data.records import Dataset, Problem

_SUFFIX = "_mask"
_CLASSES = "_classes.csv"


def _recognise(path: Path) -> str | None:
    found = _folders(path) if path.is_dir() else {}
    return ", ".join(str((folder / _CLASSES).relative_to(path)) for folder in found.values()) or None


def _folders(root: Path) -> dict[str, Path]:
    """Folders with a `_classes.csv`, by split."""
    folders = Tree(root).splits()
    found = {split: folder for split, folder in folders.items() if file_in(folder, _CLASSES) is not None}
    if not found and file_in(root, _CLASSES) is not None:
        found["train"] = root
    return found


def _read(path: Path, name: str, evidence: str) -> Dataset:
    problems: list[Problem] = []
    pairs: dict[str, list[Pair]] = {}
    listed: class_list.ClassList | None = None
    for split, folder in _folders(path).items():
        pairs[split] = _pairs(folder, problems)
        with noting(problems):
            own = _listed(file_in(folder, _CLASSES) or folder / _CLASSES, problems)
            if listed is not None and own.names != listed.names:
                raise Malformed(own.source, f"other classes than {listed.source}; export all splits together")
            listed = own
    meaning, records = read_pairs(pairs, listed, path, problems)
    return Dataset(
        name, path, "PNG masks", meaning.classes, in_order(records), tuple(problems), None, (evidence, meaning.why)
    )


def _listed(file: Path, problems: list[Problem]) -> class_list.ClassList:
    if not class_list.is_roboflow(file):
        what = "the class list of a classification export, which says what is in a picture but not where"
        raise Malformed(file, f"{what}; export the project as semantic segmentation masks or COCO")
    return class_list.roboflow(file, problems)


def _pairs(folder: Path, problems: list[Problem]) -> list[Pair]:
    """Images with their masks; an image without one is left out, because no mask says that it is empty."""
    files = [file for file in sorted(folder.iterdir()) if is_image(file)]
    masks = [file for file in files if file.stem.lower().endswith(_SUFFIX)]
    images = [file for file in files if file not in set(masks)]
    names = {mask: Name((), (mask.stem[: -len(_SUFFIX)],)) for mask in masks}
    return pairs(match(names, lambda: images, folder, parallel=True), images, masks, folder, problems)


ADAPTER = Adapter("png-mask", "PNG masks (x.jpg, x_mask.png, _classes.csv)", _recognise, _read)
