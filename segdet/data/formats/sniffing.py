"""What kind of labels a file holds, and which classes it names, as far as its first look tells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from segdet.data.formats.base import Malformed
from segdet.data.formats.xml_files import read_root, root_tag

MASKS = "mask images"
MASK_SUFFIXES = ("_mask", "-mask", "_masks", "_label", "_labels", "_gt", "_seg", "_lab")

_LARGEST = 64_000_000  # bytes of a file that is opened to see what it is
_FOLDERS = ("mask", "label", "annot", "segmentation", "ground", "gt", "lab", "ann_dir", "seg")


class Sniffed(NamedTuple):
    """kind: in words, None for no labels. classes: the names it holds."""

    kind: str | None
    classes: frozenset[str] = frozenset()


def sniff(file: Path) -> Sniffed:
    """What kind of labels a file holds."""
    try:
        if file.stat().st_size > _LARGEST:
            return Sniffed(None)
        ending = file.suffix.lower()
        if ending == ".json":
            return _json(json.loads(file.read_bytes()))
        if ending == ".xml":
            return _xml(file)
        if ending == ".txt":
            return _rows(file)
        if ending == ".csv":
            header = file.open(encoding="utf-8-sig").readline().lower()
            return Sniffed("table of boxes (CSV)" if "xmin" in header and "class" in header else None)
    except (OSError, ValueError, RecursionError, Malformed):
        pass
    return Sniffed(None)


def mask_stem(name: str) -> str:
    """The stem that a mask shares with its image, in lower case.

    >>> mask_stem("Wall_mask.png")
    'wall'
    """
    stem = Path(name).stem.casefold()
    return next((stem.removesuffix(suffix) for suffix in MASK_SUFFIXES if stem.endswith(suffix)), stem)


def mask_folder(parts: Sequence[str]) -> bool:
    """Whether a folder's path (its parts) reads like one for masks."""
    return any(part.casefold().startswith(word) for part in parts for word in _FOLDERS)


def _json(content: Any) -> Sniffed:
    if not isinstance(content, dict):
        return Sniffed(None)
    if isinstance(content.get("shapes"), list):
        return Sniffed("LabelMe JSON", _names(content["shapes"], "label"))
    if isinstance(content.get("images"), list) and isinstance(content.get("annotations"), list):
        categories = content.get("categories")
        return Sniffed("COCO JSON", _names(categories if isinstance(categories, list) else [], "name"))
    return Sniffed(None)


def _names(entries: Iterable[Any], key: str) -> frozenset[str]:
    return frozenset(
        " ".join(entry[key].split())[:40]
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get(key), str)
    )


def _xml(file: Path) -> Sniffed:
    kinds = {"annotation": ("Pascal VOC XML", "./object/name"), "annotations": ("CVAT XML", ".//labels/label/name")}
    found = kinds.get(root_tag(file) or "")
    if found is None:
        return Sniffed(None)
    root: ElementTree.Element = read_root(file)
    names = frozenset(" ".join((element.text or "").split())[:40] for element in root.iterfind(found[1]))
    return Sniffed(found[0], names - {""})


def _rows(file: Path) -> Sniffed:
    """YOLO's rows of numbers: a class and at least four coordinates."""
    with file.open(encoding="utf-8-sig") as stream:
        lines = [line.split() for line in (stream.readline(4000) for _ in range(5)) if line.strip()]
    try:
        classes = {int(row[0]) for row in lines if len(row) >= 5 and [float(value) for value in row]}
    except ValueError:
        return Sniffed(None)
    if not classes or len(lines) != sum(len(row) >= 5 for row in lines):
        return Sniffed(None)
    return Sniffed("YOLO text", frozenset(f"number {number}" for number in classes))
