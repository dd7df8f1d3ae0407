"""Which image a label belongs to, where names alone do not say: the longest matching end of the path decides.

Labels call their images by paths of other machines, by bare names, with or without an ending. Two sites may both hold a
`000.jpg`, so a name's last part is never enough while more of the path agrees, and what fits two images fits none.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import unquote, urlsplit

from segdet.data.formats.base import there
from segdet.data.records import Problem

K = TypeVar("K", bound=Hashable)

_LONGEST = 1000  # characters of a path that a label may name

_Rank = tuple[int, int, int]  # equal parts from the end, those of them equal in case too, how trusted the path is
_EXACT: _Rank = (1_000_000, 0, 0)


@dataclass(frozen=True)
class Name:
    """What a label says about its image.

    places: where the image should be, best first.
    paths: what it is called, most trusted first, with or without an ending. The first that fits any image decides; the
        others decide between images that it fits equally well.
    """

    places: tuple[Path, ...] = ()
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Doubt(Generic[K]):
    """Labels and images that cannot be matched unambiguously: several of one of them."""

    labels: tuple[K, ...]
    images: tuple[Path, ...]


@dataclass
class Matches(Generic[K]):
    """The image of each label that has one, and the doubtful ones."""

    images: dict[K, Path] = field(default_factory=dict)
    doubts: list[Doubt[K]] = field(default_factory=list)

    @property
    def doubtful(self) -> set[K | Path]:
        """Labels and images that are in doubt."""
        found: set[K | Path] = set()
        for doubt in self.doubts:
            found.update(doubt.labels, doubt.images)
        return found


def match(
    names: Mapping[K, Name], images: Callable[[], Iterable[Path]], root: Path, parallel: bool = False
) -> Matches[K]:
    """Find the image of every label.

    Args:
        images: lists the images that paths are compared with; called only where places do not suffice.
        root: the folder below which the images' paths are compared.
        parallel: labels and images lie in parallel folders, so one path must be the whole end of the other: `train/a` never
            means `val/a`. Without it, folders of another machine may stand before the part that agrees.
    """
    result: Matches[K] = Matches()
    claims: dict[Path, list[tuple[_Rank, K]]] = defaultdict(list)
    index: Index | None = None
    for key, name in names.items():
        place = next((place for place in name.places if there(place)), None)
        if place is not None:
            claims[place].append((_EXACT, key))
            continue
        index = index or Index(images(), root)
        rank, fitting = index.find(name.paths, parallel)
        if len(fitting) == 1:
            claims[fitting[0]].append((rank, key))
        elif fitting:
            result.doubts.append(Doubt((key,), tuple(fitting)))
    for image, claimed in claims.items():
        best = max(rank for rank, _ in claimed)
        keys = tuple(key for rank, key in claimed if rank == best)
        if len(keys) == 1 or best == _EXACT:  # a place named twice is no doubt about which image it is
            result.images.update(dict.fromkeys(keys, image))
        else:
            result.doubts.append(Doubt(keys, (image,)))
    return result


def named(name: str, *folders: Path) -> Name | None:
    """The name of an image that a label file lists by a path: below one of the folders, else by the end of its path.

    Links inside the folders are the owner's and may lead anywhere; a name may not. A path of another machine or an address
    decides by its end alone. None for what no file can be called.
    """
    parts = parts_of(name)
    if not parts or parts[-1] == "..":
        return None
    below = ".." not in parts and "://" not in name and not name.startswith(("/", "\\"))
    return Name(tuple(folder.joinpath(*parts) for folder in folders) if below else (), (name,))


def by_stem(labels: Iterable[Path], folder: Path, images: Sequence[Path], image_root: Path) -> Matches[Path]:
    """Match label files below `folder`, whose place and stem are those of their images below `image_root`."""
    names = {label: Name((), (label.relative_to(folder).with_suffix("").as_posix(),)) for label in labels}
    return match(names, lambda: images, image_root, parallel=True)


def pairs(
    matches: Matches[Path], images: Iterable[Path], labels: Iterable[Path], root: Path, problems: list[Problem]
) -> list[tuple[Path, Path]]:
    """(image, label file) in the order of `images`; every image and label file without the other becomes a problem."""
    label_of = {image: label for label, image in matches.images.items()}
    doubtful = matches.doubtful
    found = []
    for image in images:
        if image in label_of:
            found.append((image, label_of[image]))
        elif image not in doubtful:
            problems.append(Problem(image, "no mask of that name", "unlabelled", image))
    for label in labels:
        if label not in matches.images and label not in doubtful:
            problems.append(Problem(label, "no image of that name", "orphan", label))
    report(matches.doubts, root, problems)
    return found


def report(
    doubts: Iterable[Doubt[K]],
    root: Path,
    problems: list[Problem],
    where: Callable[[K], tuple[Path, str]] | None = None,
) -> None:
    """A problem for every label and image in doubt, which names all that it could belong to.

    Args:
        where: the file of a label and what to call it there; None when labels are files themselves.
    """

    def short(path: object) -> str:
        return str(path.relative_to(root)) if isinstance(path, Path) and path.is_relative_to(root) else str(path)

    for doubt in doubts:
        said = [where(label) if where is not None else (Path(str(label)), "") for label in doubt.labels]
        shown = [f"{short(file)}{f' ({what})' if what else ''}" for file, what in said]
        images = " and ".join(short(image) for image in doubt.images[:4])
        labels = " and ".join(shown[:4])
        for file, what in said:
            start = f"{what}: " if what else ""
            if len(doubt.images) > 1:
                text = f"{start}fits {images} alike; name its image with its folder and ending"
            else:
                text = f"{start}{labels} fit {images} alike; name the images with their folders"
            problems.append(Problem(file, text, "ambiguous"))
        for image in doubt.images:
            text = f"its label is ambiguous: {labels} could mean {images}"
            problems.append(Problem(image, text, "ambiguous", image))


class Index:
    """Images by name and by stem, whatever the case."""

    def __init__(self, images: Iterable[Path], root: Path) -> None:
        self.root = root
        self.by_name: dict[str, list[Path]] = defaultdict(list)
        self.by_stem: dict[str, list[Path]] = defaultdict(list)
        for image in images:
            self.by_name[image.name.casefold()].append(image)
            self.by_stem[image.stem.casefold()].append(image)

    def find(self, paths: Sequence[str], parallel: bool) -> tuple[_Rank, list[Path]]:
        """How well the best images fit what a label calls its image (see `Name.paths`), and those images."""
        fitting: list[Path] = []
        rank: _Rank = (0, 0, 0)
        for place, path in enumerate(paths):
            parts = parts_of(path)
            if not parts:
                continue
            if not fitting:
                key = parts[-1].casefold()
                named = self.by_name.get(key)
                fitting = named or self.by_stem.get(key, [])
                rank, fitting = self._best(fitting, parts, parallel, named is None, -place)
            elif len(fitting) > 1:
                _, fitting = self._best(fitting, parts, False, parts[-1].casefold() not in self.by_name, -place)
        return rank, fitting

    def _best(
        self, images: Sequence[Path], parts: Sequence[str], parallel: bool, stem: bool, trust: int
    ) -> tuple[_Rank, list[Path]]:
        ranks = [self._rank(image, parts, parallel, stem, trust) for image in images]
        best = max(ranks, default=(0, 0, 0))
        if parallel and best[0] == 0:
            return best, []
        return best, [image for image, rank in zip(images, ranks, strict=True) if rank == best]

    def _rank(self, image: Path, parts: Sequence[str], parallel: bool, stem: bool, trust: int) -> _Rank:
        place = image.relative_to(self.root) if image.is_relative_to(self.root) else image
        own = (*place.parts[:-1], image.stem if stem else image.name)
        equal = exact = 0
        for mine, said in zip(reversed(own), reversed(parts), strict=False):
            if mine.casefold() != said.casefold():
                break
            equal += 1
            exact += mine == said
        if parallel and equal < min(len(own), len(parts)):
            return 0, 0, 0
        return equal, exact, trust


def parts_of(path: str) -> tuple[str, ...]:
    """The parts of a path as a label names it: with slashes of either kind, or an address.

    >>> parts_of("C:\\\\photos\\\\bridge\\\\000.jpg")[-2:]
    ('bridge', '000.jpg')
    >>> parts_of("https://example.com/set%201/a.jpg?key=1")
    ('set 1', 'a.jpg')
    """
    if "\0" in path or len(path) > _LONGEST:
        return ()
    if re.match(r"^[a-zA-Z][a-zA-Z0-9+.-]+://", path):
        try:
            path = unquote(urlsplit(path).path)
        except ValueError:
            return ()
    return tuple(part for part in path.replace("\\", "/").split("/") if part not in ("", "."))
