"""What to say about a path that no adapter recognises: what is there, what is missing, and what helps."""

from __future__ import annotations

import json
import mimetypes
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from segdet.data.formats.layout import folders_in
from segdet.data.formats.xml_files import root_tag
from segdet.data.images import is_image

_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"})
_LABELS = frozenset({".txt", ".json", ".xml", ".csv"})
# Names of folders that are a part of a dataset rather than a dataset.
_PARTS = frozenset({
    "images", "image", "imgs", "labels", "label", "annotations", "annotation", "masks", "mask", "jpegimages",
    "segmentationclass", "segmentationobject", "imagesets", "train", "val", "valid", "validation", "test",
    "obj_train_data",
})  # fmt: skip
_DEEP = 2  # levels searched below and above
_MOST = 60  # folders tried below
_SHOWN = 6  # places listed in a message
_SMALL = 4_000_000  # bytes of a JSON file that is still looked into

_EXPORT = "export the project again with annotations and images, as COCO or YOLO"


def explain(path: Path, recognised: Callable[[Path], bool]) -> str:
    """One line about a path without a known layout.

    Args:
        recognised: whether another folder is a dataset.
    """
    return f"{path}: no dataset layout recognised; {_about_file(path) if path.is_file() else _about(path, recognised)}"


def _about_file(file: Path) -> str:
    kind = _kind(file)
    if kind == "archive":
        return "an archive: unpack it and give the folder"
    if kind == "video":
        return "a video: labels belong to single pictures; save the frames as images and label those"
    if kind == "image":
        return "a single image: give the folder that holds the images and their labels"
    return f"{_content(file) or 'not a label file'}; give the folder that holds the images and their labels"


def _about(root: Path, recognised: Callable[[Path], bool]) -> str:
    elsewhere = _elsewhere(root, recognised)
    if elsewhere is not None:
        return elsewhere
    counts, examples = _counts(root)
    seen = f"seen: {_listed(counts)}" if counts else "seen: folders without files"
    kinds: Counter[str] = Counter()
    for (_, kind), count in counts.items():
        kinds[kind] += count
    labels = [examples[kind] for kind in sorted(_LABELS) if kinds[kind]]
    if kinds["archive"]:
        archive = examples["archive"].relative_to(root)
        return f"{seen}; {archive} is not unpacked: unpack it and give the folder that comes out"
    if kinds["video"] and not kinds["image"]:
        return f"{seen}; labels belong to single pictures: save the frames of the videos as images and label those"
    if kinds["image"] and not labels:
        return (
            f"{seen}; the labels are missing: {_EXPORT}, or copy the label files here; to mark pictures with a model use "
            "`segdet predict`"
        )
    if labels and not kinds["image"]:
        return f"{seen}; the images are missing: copy them into {root / 'images'}, or {_EXPORT}"
    if not labels:
        return f"{seen}; neither images nor labels: give the folder that holds them"
    contents = "; ".join(content for file in labels if (content := _content(file, root)))
    return f"{seen}; no label file of a known format belongs to the images{f' ({contents})' if contents else ''}: {_EXPORT}"


def _elsewhere(root: Path, recognised: Callable[[Path], bool]) -> str | None:
    """The folders below or above that are datasets."""
    for level in _levels(root):
        datasets = [folder for folder in level if recognised(folder)]
        if datasets:
            shown = ", ".join(str(folder) for folder in datasets[:3]) + (", ..." if len(datasets) > 3 else "")
            return f"the dataset is in a folder below: give {shown}"
    folder = root.absolute()
    for _ in range(_DEEP):
        if folder.name.lower() not in _PARTS:
            break
        folder = folder.parent
        if folder == Path(folder.anchor):  # no search of a whole disk
            break
        if recognised(folder):
            return f"this is a part of the dataset in the folder above: give {folder}"
    return None


def _levels(root: Path) -> Iterator[list[Path]]:
    level = [root]
    for _ in range(_DEEP):
        level = [child for folder in level for child in folders_in(folder)][:_MOST]
        yield level


def _kind(file: Path) -> str:
    if is_image(file):
        return "image"
    ending = file.suffix.lower()
    if ending in _ARCHIVES:
        return "archive"
    return "video" if (mimetypes.guess_type(file.name)[0] or "").startswith("video/") else ending


def _counts(root: Path) -> tuple[Counter[tuple[str, str]], dict[str, Path]]:
    """Files by place (a folder, two levels deep at most) and kind, and an example of each kind."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[str, Path] = {}
    for folder, below, names in os.walk(root):
        below.sort()
        place = "/".join(Path(folder).relative_to(root).parts[:_DEEP])
        for name in sorted(names):
            if not name.startswith("."):
                kind = _kind(Path(name))
                counts[place, kind] += 1
                examples.setdefault(kind, Path(folder, name))
    return counts, examples


def _listed(counts: Counter[tuple[str, str]]) -> str:
    def said(kind: str, count: int) -> str:
        name = kind.removeprefix(".") or "other"
        words = {"image": "images", "archive": "archives", "video": "videos"}
        return f"{count} {words.get(name, name) if count > 1 else name}"

    places: dict[str, list[str]] = {}
    for (place, kind), count in sorted(counts.items()):
        places.setdefault(place, []).append(said(kind, count))
    shown = [f"{', '.join(some)} in {f'{place}/' if place else 'the folder'}" for place, some in places.items()]
    more = f"; and {len(shown) - _SHOWN} more folders" if len(shown) > _SHOWN else ""
    return "; ".join(shown[:_SHOWN]) + more


def _content(file: Path, root: Path | None = None) -> str | None:
    """What a label file holds, in a few words; None when that says nothing."""
    name = file.relative_to(root) if root is not None else file.name
    try:
        if file.suffix.lower() == ".xml":
            tag = root_tag(file)
            return f"{name} has the root element <{tag[:40]}>" if tag else f"{name} is not readable XML"
        if file.suffix.lower() == ".json" and file.stat().st_size <= _SMALL:
            content = json.loads(file.read_bytes())
            if isinstance(content, dict):
                return f"{name} has the keys {', '.join(map(str, list(content)[:6]))[:120]}"
            return f"{name} holds a {'list' if isinstance(content, list) else 'single value'}"
        if file.suffix.lower() in (".csv", ".txt"):
            with file.open("rb") as stream:
                first = stream.readline(200).decode("utf-8-sig", errors="replace")
            return f"{name} starts with {' '.join(first.split())[:60]!r}" if first.strip() else f"{name} is empty"
    except (OSError, ValueError, RecursionError):
        return f"{name} cannot be read"
    return None
