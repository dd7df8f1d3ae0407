"""What became of every file in a dataset's folder: read, or left out and why.

The adapters need not take part: what they read through `base` is noted there, and the walk over the folder compares. Only
a few files of each folder and ending are opened to say what they are, and examples are bounded, so that a folder of
100,000 files costs about as much as listing it.
"""

# ruff: noqa: PTH114, PTH118, PTH119, PTH122
# Strings, because a Path object for every file of a large folder costs several times as much.
from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from segdet.data.folders import DeadEnd, Folder, walk
from segdet.data.formats import sniffing
from segdet.data.images import EXTENSIONS
from segdet.data.leftovers import ARCHIVES, OTHER_IMAGES, Leftovers
from segdet.data.records import Account, Dataset, Kind, Reason, Unread, iterate

_SNIFFED = 3  # files opened of each folder and ending

# What a problem says of the file that it is about, where that file was not used.
_PROBLEMS: dict[Kind, str] = {
    "malformed": "files that cannot be read",
    "size": "images or masks of another size than their labels",
    "image": "images that cannot be used",
    "mask": "masks that cannot be used",
    "unlabelled": "images without labels, where others have some",
    "orphan": "label files whose image is not there or not listed",
    "image-missing": "label files whose image is not there or not listed",
    "ambiguous": "files that cannot be matched unambiguously",
    "stray": "files that are no label files",
}


class _Real:
    """Absolute paths without links, for many files of few folders."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def of(self, path: Path) -> str:
        folder, name = os.path.split(path)
        if folder not in self._folders:
            try:
                self._folders[folder] = os.path.realpath(folder)
            except ValueError:  # a name out of a label file that no file can have
                self._folders[folder] = folder
        return self.at(self._folders[folder], name)

    @staticmethod
    def at(folder: str, name: str) -> str:
        whole = os.path.join(folder, name)
        return os.path.realpath(whole) if os.path.islink(whole) else whole


class _Books:
    """Groups of unread files while the walk goes on."""

    def __init__(self, dataset: Dataset, consumed: Iterable[Path]) -> None:
        real = _Real()
        self.root = dataset.root
        self.images = {real.of(record.image) for _, record in iterate(dataset)}
        self.labels = {real.of(file) for file in consumed} - self.images
        self.problems: dict[str, Kind] = {}
        for problem in dataset.problems:
            if problem.kind in _PROBLEMS:
                for path in (problem.path, problem.image):
                    if path is not None:
                        self.problems.setdefault(real.of(path), problem.kind)
        self.leftovers = Leftovers()
        self.other_classes: dict[str, set[str]] = defaultdict(set)  # by kind of the labels that were not read
        self.own = self._own_kinds()
        self._stems: set[str] | None = None

    def _own_kinds(self) -> set[str]:
        """What kinds of labels were read, by a few files of each ending."""
        asked: dict[str, int] = defaultdict(int)
        kinds: set[str] = set()
        for file in self.labels:
            ending = os.path.splitext(file)[1].lower()
            asked[ending] += 1
            if asked[ending] <= _SNIFFED:
                found = sniffing.MASKS if ending in EXTENSIONS else sniffing.sniff(Path(file)).kind
                kinds |= {found} if found else set()
        return kinds

    def add(self, folder: Folder, names: Sequence[str], neighbours: set[str]) -> None:
        """Count the unread files `names` of one folder.

        Args:
            neighbours: endings of the label files that were read in it.
        """
        alike: dict[str, list[str]] = defaultdict(list)
        for name in names:
            kind = self.problems.get(_Real.at(folder.real, name))
            if kind is not None:
                self._count("problem", _PROBLEMS[kind], folder, [name])
            else:
                alike[os.path.splitext(name)[1].lower()].append(name)
        for ending, some in alike.items():
            if ending in EXTENSIONS:
                self._add_images(folder, some, ending in neighbours)
            elif ending in OTHER_IMAGES or ending in ARCHIVES:
                self.leftovers.count_ending(ending, [folder.path / name for name in some], self.short)
            else:
                self._add_labels(folder, some, ending, ending in neighbours)

    def _add_images(self, folder: Folder, names: Sequence[str], among_masks: bool) -> None:
        masks: list[str] = []
        others: list[str] = []
        for name in names:
            (masks if among_masks or self._mask_like(folder, name) else others).append(name)
        if masks and (among_masks or sniffing.MASKS in self.own):
            self._count("label-orphan", "mask images of no image that was read", folder, masks)
        elif masks:
            self._count("labels-other", sniffing.MASKS, folder, masks)
        if others:
            self._count("image-unlisted", "images in no list and in no label file", folder, others)

    def _mask_like(self, folder: Folder, name: str) -> bool:
        """Whether an image lies in a folder for masks and has the name of a picture that was read."""
        if not sniffing.mask_folder(folder.path.relative_to(self.root).parts):
            return False
        if self._stems is None:
            self._stems = {sniffing.mask_stem(os.path.basename(image)) for image in self.images}
        return sniffing.mask_stem(name) in self._stems

    def _add_labels(self, folder: Folder, names: Sequence[str], ending: str, among_labels: bool) -> None:
        seen = [sniffing.sniff(folder.path / name) for name in names[:_SNIFFED]]
        kind = next((one.kind for one in seen if one.kind), None)
        if kind in self.own or (kind is None and among_labels):
            self._count(
                "label-orphan", f"label files{f' ({kind})' if kind else ''} of no image that was read", folder, names
            )
        elif kind is not None:
            self._count("labels-other", kind, folder, names)
            self.other_classes[kind].update(*(one.classes for one in seen))
        else:
            self.leftovers.count_ending(ending, [folder.path / name for name in names], self.short)

    def _count(self, reason: Reason, what: str, folder: Folder, names: Sequence[str]) -> None:
        self.leftovers.count(reason, what, [folder.path / name for name in names], self.short)

    def short(self, path: Path) -> str:
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def unread(self, dead_ends: Sequence[DeadEnd]) -> tuple[Unread, ...]:
        for end in dead_ends:
            self.leftovers.count_dead_end(end, self.short)
        return self.leftovers.unread(self._spelled)

    def _spelled(self, reason: Reason, what: str) -> str:
        if reason != "labels-other":
            return what
        own, named = ", ".join(sorted(self.own)), sorted(self.other_classes[what])
        classes = f"; classes {', '.join(named[:8])}{', ...' if len(named) > 8 else ''}" if named else ""
        return f"files with labels of another kind ({what}{classes}) beside those that were read ({own or 'none'})"


def account(dataset: Dataset, consumed: Iterable[Path]) -> Account:
    """Account for every file in the dataset's folder.

    Args:
        consumed: the label, list and class files that were read.
    """
    books = _Books(dataset, consumed)
    dead_ends: list[DeadEnd] = []
    seen: set[str] = set()
    images = labels = 0
    for folder in walk(dataset.root, dead_ends):
        unread, neighbours = [], set()
        for name in folder.files:
            key = _Real.at(folder.real, name)
            if key in seen:
                continue
            seen.add(key)
            if key in books.images:
                images += 1
            elif key in books.labels:
                labels += 1
                neighbours.add(os.path.splitext(name)[1].lower())
            else:
                unread.append(name)
        books.add(folder, unread, neighbours)
    groups = books.unread(dead_ends)
    total = images + labels + sum(group.count for group in groups)
    return Account(total, images, labels, groups)
