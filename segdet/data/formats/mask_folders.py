"""Images in one folder, masks of the same names in another: `images/` and `masks/`, with or without splits.

A mask's values are class numbers (0 = background, 255 = ignore), whatever its palette; 0/255 alone is one class. Names
come from `_classes.csv`, `labelmap.txt`, `classes.txt` or a data.yaml where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from segdet.data.formats import class_list
from segdet.data.formats.base import SPLIT_FOLDERS, Adapter, images_under, in_order, split_of
from segdet.data.formats.layout import Tree
from segdet.data.formats.mask_records import Pair, read_pairs
from segdet.data.images import is_image
from segdet.data.records import Dataset, Problem

# (images, masks), with {} for a split's name. What is not listed here can be renamed to the first.
_PLAIN = (
    ("images", "masks"), ("images", "mask"), ("image", "mask"), ("image", "masks"), ("imgs", "masks"), ("img_dir", "ann_dir"),
    ("images", "labels"), ("images", "annotations"), ("images", "gt"), ("images", "ground_truth"), ("image", "label"),
)  # fmt: skip
_SPLIT = tuple(f"{{}}{s}{i}|{{}}{s}{m}" for s in ("/", "_") for i, m in (*_PLAIN, ("img", "lab"), ("img", "mask")))
_SUFFIXES = ("", "_mask", "-mask", "_masks", "_label", "_labels", "_gt", "_seg", "_lab")


def _recognise(path: Path) -> str | None:
    root = _root(path)
    found = [f"{images.relative_to(root)} with {masks.relative_to(root)}" for _, images, masks in _folders(root)]
    return ", ".join(found) or None


def _root(path: Path) -> Path:
    """The folder itself, or that of a data.yaml."""
    return path.parent if path.is_file() and path.suffix in (".yaml", ".yml") else path


def _folders(root: Path) -> list[tuple[str | None, Path, Path]]:
    """(split, images, masks); the split is None when folders below say it."""
    if not root.is_dir():
        return []
    tree = Tree(root)
    for images, masks in _PLAIN:
        pair = _pair(tree, images, masks)
        if pair is not None:
            return [(None, *pair)]
    found: list[tuple[str | None, Path, Path]] = []
    for split, name, pattern in _candidates():
        images, masks = pattern.format(name, name).split("|")
        pair = _pair(tree, images, masks) if split not in [one for one, _, _ in found] else None
        if pair is not None:
            found.append((split, *pair))
    return found


def _candidates() -> Iterator[tuple[str, str, str]]:
    for split, names in SPLIT_FOLDERS.items():
        for name in names:
            for pattern in _SPLIT:
                yield split, name, pattern


def _pair(tree: Tree, images: str, masks: str) -> tuple[Path, Path] | None:
    """Two folders with pictures, and no text files of YOLO's in the second or in `labels`: then those are the labels."""
    pair = tree.at(images), tree.at(masks)
    if pair[0] is None or pair[1] is None:
        return None
    labels = Tree(pair[0].parent).at("labels")
    if any(next(folder.rglob("*.txt"), None) is not None for folder in (pair[1], labels) if folder is not None):
        return None
    return (pair[0], pair[1]) if _has_image(pair[0]) and _has_image(pair[1]) else None


def _has_image(folder: Path) -> bool:
    return next((True for path in folder.rglob("*") if is_image(path)), False)


def _read(path: Path, name: str, evidence: str) -> Dataset:
    problems: list[Problem] = []
    pairs: dict[str, list[Pair]] = {split: [] for split in SPLIT_FOLDERS}
    root = _root(path)
    for split, images, masks in _folders(root):
        for pair in _pairs(images, masks, problems):
            pairs[split or split_of(pair[0], images)].append(pair)
    meaning, records = read_pairs(pairs, class_list.find(root, problems), root, problems)
    return Dataset(
        name, root, "mask folders", meaning.classes, in_order(records), tuple(problems), None, (evidence, meaning.why)
    )


def _pairs(images: Path, masks: Path, problems: list[Problem]) -> list[Pair]:
    """Pairs with the same place and stem, or a mask's stem with a suffix such as `_mask`; others are reported."""
    by_key = {mask.relative_to(masks).with_suffix("").as_posix(): mask for mask in images_under(masks)}
    found = []
    for image in images_under(images):
        key = image.relative_to(images).with_suffix("").as_posix()
        taken = next((key + suffix for suffix in _SUFFIXES if key + suffix in by_key), None)
        if taken is None:
            problems.append(Problem(image, f"no mask of that name in {masks}", "unlabelled", image))
        else:
            found.append((image, by_key.pop(taken)))
    problems.extend(Problem(mask, f"no image of that name in {images}", "orphan", mask) for mask in by_key.values())
    return found


ADAPTER = Adapter(
    "mask-folders",
    "images and masks in folders (images/ and masks/; train/images and train/masks; img_dir/ and ann_dir/)",
    _recognise,
    _read,
)
