"""How rows of COCO results name their image and category, in `segdet predict` and in the server's answers."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from segdet.data.images import EXTENSIONS
from segdet.errors import InvalidOption, setting


@dataclass(frozen=True)
class ImageKey:
    """What the rows of one image say about it.

    Attributes:
        image_id: the id in the results, and in the ground truth where there is one.
        file_name: the file's name, with its path below the source.
        categories: the category's id for each class of the model; None counts the classes from 1.
    """

    image_id: int | str
    file_name: str
    categories: tuple[int, ...] | None = None

    def frame(self, number: int) -> ImageKey:
        """The key of a video's frame."""
        end = f"#{number:06d}"
        return replace(self, image_id=f"{self.image_id}{end}", file_name=f"{self.file_name}{end}")

    def complete(self, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows of `to_coco()` with this image's id and name, and with the ids of the categories."""
        categories = self.categories
        return [
            {
                **row,
                "image_id": self.image_id,
                "file_name": self.file_name,
                "category_id": row["category_id"] if categories is None else categories[row["category_id"] - 1],
            }
            for row in rows
        ]


def keys_of(names: Sequence[str]) -> list[ImageKey]:
    """Keys of images without ground truth, with ids that are unique among them.

    The id is the file name's number where it is one (COCO's own images), else the file name without its ending. Images
    that would share an id get their unique name instead.

    Args:
        names: the names of the files, with their paths.
    """
    unique = unique_names(names)
    short = [_short_id(name) for name in names]
    count = Counter(short)
    ids: list[int | str] = [
        one if count[one] == 1 else name for one, name in zip(short, unique, strict=True)
    ]  # a unique name may equal the short id of another image
    if len({*ids}) < len(ids):
        ids = list(unique)
    return [ImageKey(id, name) for id, name in zip(ids, names, strict=True)]


def unique_names(names: Sequence[str]) -> list[str]:
    """Names without ending (a/b.jpg -> a/b). Where two clash, the later keeps its ending, then a number is added."""
    taken: set[str] = set()
    unique = []
    for name in names:
        plain = name.removesuffix(PurePosixPath(name).suffix) or name
        options = [plain, name, *(f"{name}-{number}" for number in range(2, len(names) + 2))]
        unique.append(next(option for option in options if option not in taken))
        taken.add(unique[-1])
    return unique


class Instances:
    """The images and categories of a COCO file, so that results join with it."""

    def __init__(self, file: Path) -> None:
        """Read the file.

        Raises:
            InvalidOption: it does not exist or holds no COCO images and categories.
        """
        self.file = file
        try:
            content = json.loads(file.read_bytes())
            self._images = [(image["id"], _parts(image["file_name"])) for image in content["images"]]
            self._categories = {str(category["name"]): category["id"] for category in content["categories"]}
        except OSError as error:
            raise self._invalid(f"cannot be read ({error.strerror})", "name a COCO instances file") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = "holds no COCO images and categories"
            hint = f"name the file that `segdet data convert {setting('to', 'coco')}` writes"
            raise self._invalid(reason, hint) from error
        self._by_name: dict[str, list[tuple[Any, tuple[str, ...]]]] = defaultdict(list)
        for entry in self._images:
            self._by_name[entry[1][-1]].append(entry)

    def categories(self, classes: Sequence[str]) -> tuple[int, ...]:
        """The category ids of a model's classes.

        Raises:
            InvalidOption: a class that is no category of the file.
        """
        missing = [name for name in classes if name not in self._categories]
        if missing:
            known = ", ".join(list(self._categories)[:10])
            raise self._invalid(f'no category "{missing[0]}", which the model finds', f"its categories: {known}")
        return tuple(self._categories[name] for name in classes)

    def key(self, path: Path, classes: Sequence[str]) -> ImageKey:
        """The key of an image: that of the entry whose `file_name` shares the longest end with `path`.

        Raises:
            InvalidOption: no entry of that name, several that fit equally well, or a class without category.
        """
        parts = path.absolute().parts
        entries = self._by_name.get(path.name, [])
        shared = [_shared_end(parts, entry[1]) for entry in entries]
        best = [entry for entry, length in zip(entries, shared, strict=True) if length == max(shared)]
        if not best:
            hint = f"it has {len(self._images)} images; leave this one out or name the file of its split"
            raise self._invalid(f"has no image {path.name} ({path})", hint)
        if len(best) > 1:
            names = " and ".join("/".join(entry[1]) for entry in best[:2])
            raise self._invalid(f"{names} fit {path} equally well", "predict from a folder laid out as in the file")
        image_id, name = best[0]
        return ImageKey(image_id, "/".join(name), self.categories(classes))

    def _invalid(self, reason: str, hint: str) -> InvalidOption:
        return InvalidOption("coco_ids", self.file, reason, hint)


def _short_id(name: str) -> int | str:
    """The file name's number where it is one, else the name without an image's ending; a video keeps its ending."""
    path = PurePosixPath(name)
    stem = (path.stem if path.suffix.lower() in EXTENSIONS else path.name) or name
    whole = stem.isascii() and stem.isdigit() and len(stem) < 16  # longer numbers are inexact in JSON
    return int(stem) if whole else stem


def _parts(name: str) -> tuple[str, ...]:
    parts = tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
    if not parts:
        raise ValueError(name)
    return parts


def _shared_end(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count
