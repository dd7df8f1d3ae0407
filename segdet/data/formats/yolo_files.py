"""Where a YOLO dataset's images, label files and class names are: what tools write beside or instead of a data.yaml.

Ultralytics has `images/<split>` and `labels/<split>`, Roboflow `<split>/images` and `<split>/labels`; Darknet, Roboflow's
Darknet export, CVAT (YOLO 1.1) and labelImg put text files beside the images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from segdet.data.formats import class_list
from segdet.data.formats.base import SPLIT_FOLDERS, images_under, load_json, noting, read_text, there
from segdet.data.formats.layout import Tree, files_in
from segdet.data.images import is_image
from segdet.data.records import Problem

_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "notes.json", "labels.txt")
_ROW = re.compile(r"\s*\d+(\.0*)?(\s+-?[\d.]+(e[+-]?\d+)?){4,}\s*", re.IGNORECASE)  # class and numbers
_ASKED = 50  # text files looked into, should the first ones be empty


class Images(NamedTuple):
    """A folder of images, and whether the folders below belong to it."""

    path: Path
    deep: bool = True

    def files(self) -> list[Path]:
        """The images, sorted."""
        return images_under(self.path) if self.deep else sorted(file for file in self.path.iterdir() if is_image(file))


def image_folders(root: Path) -> dict[str, Images]:
    """Folders of images by split, by the folders' names: those that have a folder of labels, else those with text files."""
    tree = Tree(root)
    by_split: dict[str, Images] = {}
    for split, names in SPLIT_FOLDERS.items():
        candidates = [at for name in names for at in (f"images/{name}", f"{name}/images")]
        folder = tree.first(*candidates)
        if folder is not None:
            by_split[split] = Images(folder)
    if not by_split and (folder := tree.at("images")) is not None:
        by_split["train"] = Images(folder)
    return by_split or _flat_folders(tree)


def _flat_folders(tree: Tree) -> dict[str, Images]:
    """Folders whose images have text files with YOLO's rows beside them."""
    by_split: dict[str, Images] = {}
    for split, names in SPLIT_FOLDERS.items():
        folder = tree.first(*(at for name in names for at in (name, f"obj_{name}_data")))
        if folder is not None and has_rows_beside(folder):
            by_split[split] = Images(folder)
    if not by_split and has_rows_beside(tree.root):
        by_split["train"] = Images(tree.root, deep=False)
    return by_split


def has_rows_beside(folder: Path) -> bool:
    """Whether images in a folder have text files of the same name that hold rows of numbers, as YOLO's do."""
    stems = {file.stem for file in folder.iterdir() if is_image(file)}
    texts = [file for file in files_in(folder, ".txt") if file.stem in stems]
    return any(_ROW.fullmatch(_first_row(file)) for file in islice(texts, _ASKED))


def _first_row(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(4096).decode("utf-8-sig", errors="replace")
    except OSError:
        return ""
    return next((line for line in content.splitlines() if line.strip()), "")


class Labels:
    """Finds the label file of an image: in the folder of labels that belongs to a folder of images, else beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[Path, Path] = {}

    def file(self, image: Path) -> Path:
        """`labels/.../x.txt` for `images/.../x.jpg`, else `x.txt` beside the image; it need not be there."""
        return self.folder(image.parent) / f"{image.stem}.txt"

    def folder(self, images: Path) -> Path:
        """The folder of label files for a folder of images, in any case of its name."""
        if images not in self._folders:
            self._folders[images] = self._find(images)
        return self._folders[images]

    def _find(self, images: Path) -> Path:
        parts = images.parts
        start = len(self.root.parts) if images.is_relative_to(self.root) else 0
        for index in range(len(parts) - 1, start - 1, -1):  # the last `images` below the dataset's root counts
            if parts[index].lower() == "images":
                parent, below = Path(*parts[:index]), "/".join(parts[index + 1 :])
                labels = Tree(parent).at(f"labels/{below}" if below else "labels")
                if labels is not None or not has_rows_beside(images):
                    return labels or parent / "labels" / below
                break
        return images


def class_names(
    root: Path, folders: Sequence[Path], read: Path | None, problems: list[Problem]
) -> tuple[list[str], Path | None]:
    """Class names in the order of their numbers from a list that tools leave beside the labels, and that list.

    Args:
        folders: folders of images or labels that may hold a list too.
        read: the card that was read already, or None.
    """
    for folder in dict.fromkeys((root, root / "data", *folders, *(folder.parent for folder in folders))):
        if not folder.is_relative_to(root):
            continue
        for name in _NAME_FILES:
            file = folder / name
            if file.is_file():
                with noting(problems):
                    names = _noted(file) if file.suffix == ".json" else _lines(file)
                    if names:
                        return names, file
    for file in sorted(set(root.glob("*.y*ml")) - {read}):  # a card that names classes but no splits
        with noting(problems):
            card = class_list.card(file)
            if card is not None and card.names:
                return [card.names.get(number, f"class_{number}") for number in range(max(card.names) + 1)], file
    return [], None


def darknet_card(file: Path, problems: list[Problem]) -> dict[str, Any]:
    """`obj.data` as a data.yaml would say it: `train`, `val` and `names`."""
    rows = (line.partition("=") for line in read_text(file, "export it again").splitlines())
    card: dict[str, Any] = {key.strip(): value.strip() for key, sign, value in rows if sign}
    card.pop("classes", None)
    named = str(card.pop("names", ""))
    for names in (file.parent / named, file.parent / Path(named.replace("\\", "/")).name):
        if named and there(names):
            with noting(problems):
                card["names"] = _lines(names)
            break
    return card


def _lines(file: Path) -> list[str]:
    """A name a line; a blank line among them keeps its number."""
    lines = [line.strip() for line in read_text(file, "one class name a line").rstrip().splitlines()]
    return [line or f"class_{number}" for number, line in enumerate(lines)]


def _noted(file: Path) -> list[str]:
    """Label Studio's `notes.json`: categories with `id` and `name`."""
    content = load_json(file, "export it again")
    categories = content.get("categories") if isinstance(content, dict) else None
    named = {
        entry["id"]: str(entry["name"])
        for entry in (categories if isinstance(categories, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("id"), int) and entry.get("name")
    }
    if not named or min(named) < 0 or max(named) > 10_000:
        return []
    return [named.get(number, f"class_{number}") for number in range(max(named) + 1)]
