"""What every adapter shares: its interface, split names, and reading image headers."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import yaml

from segdet.data import index
from segdet.data.folders import walk
from segdet.data.images import ImageError, is_image
from segdet.data.records import Dataset, Problem, Record
from segdet.errors import InputError
from segdet.text import decoded

_DEEPEST = 100  # levels of brackets in a YAML file; a card has three
SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


class _Recognise(Protocol):
    def __call__(self, path: Path) -> str | None: ...


class _Read(Protocol):
    def __call__(self, path: Path, name: str, evidence: str) -> Dataset: ...


@dataclass(frozen=True)
class Adapter:
    """A dataset layout.

    layout: what it looks like, in a few words, for messages.
    recognise: the evidence that `path` has this layout, or None.
    read: all its splits. Whatever is wrong becomes a problem of the dataset, and the rest is read.
    """

    name: str
    layout: str
    recognise: _Recognise
    read: _Read


class Malformed(InputError):
    """A file or row that is not what its format says. Adapters note it (`noting`) and go on with the rest."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.problem = Problem(path, what, "malformed")


@contextmanager
def noting(problems: list[Problem], image: Path | None = None) -> Iterator[None]:
    """What is `Malformed` in the block ends the block only, and becomes a problem (about `image`, where one is known)."""
    try:
        yield
    except Malformed as error:
        problems.append(replace(error.problem, image=image))


_consumed: ContextVar[set[Path] | None] = ContextVar("consumed", default=None)


@contextmanager
def consuming() -> Iterator[set[Path]]:
    """Within the block, the set collects the label, list and class files that were read; see `consume`."""
    files: set[Path] = set()
    token = _consumed.set(files)
    try:
        yield files
    finally:
        _consumed.reset(token)


def consume(*files: Path) -> None:
    """Note that files were read as labels, lists or classes. The readers below do so; an adapter does for what it opens itself."""
    collected = _consumed.get()
    if collected is not None:
        collected.update(files)


def give_up(file: Path) -> None:
    """Note that nothing of a file was used after all: its labels belong to no image."""
    collected = _consumed.get()
    if collected is not None:
        collected.discard(file)


def header_size(image: Path, problems: list[Problem]) -> tuple[int, int] | None:
    """(height, width) of the upright image, or None and a problem when the file cannot be used."""
    try:
        return index.image_size(image)
    except ImageError as error:
        problems.append(Problem(image, str(error).removeprefix(f"{image}: "), "image", image))
        return None


def images_under(folder: Path) -> list[Path]:
    """All image files below `folder`, sorted, so that the order is the same on every machine.

    A folder with the name of an image is among them, so that its reader reports it.
    """
    return sorted(
        path
        for at in walk(folder)
        for path in (*([at.path] if at.path != folder else []), *(at.path / name for name in at.files))
        if is_image(path)
    )


def there(path: Path) -> bool:
    """Whether a file is there; no name out of a label file, however odd or long, is an error."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def folder_there(path: Path) -> bool:
    """The same of a folder."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def split_named(word: str) -> str | None:
    """The split that a folder's or a list's name means, whatever its case: "valid" -> "val"."""
    return next((split for split, names in SPLIT_FOLDERS.items() if word.lower() in names), None)


def split_of(path: Path | PurePosixPath, root: Path | PurePosixPath | None = None) -> str:
    """The split whose folder a file lies in (the outermost below `root` counts), else "train"."""
    folders = (path.relative_to(root) if root is not None else path).parts[:-1]
    return next((split for split in map(split_named, folders) if split), "train")


def in_order(splits: Mapping[str, Sequence[Record]]) -> dict[str, tuple[Record, ...]]:
    """Splits that hold something, as train, val, test."""
    return {split: tuple(splits[split]) for split in SPLIT_FOLDERS if splits.get(split)}


def read_text(file: Path, what: str, errors: str = "strict") -> str:
    """A text file as UTF-8, or as its byte order mark says; `errors` as for `text.decoded`.

    Raises:
        Malformed: it cannot be read; the message ends with `what` it should be.
    """
    try:
        content = file.read_bytes()
        text = decoded(content, errors)
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise Malformed(file, f"not a text file (row {row} is not UTF-8); {what}") from error
    except OSError as error:
        raise Malformed(file, f"cannot be read ({error.strerror}); {what}") from error
    consume(file)
    return text


def load_yaml(file: Path, what: str) -> Any:
    """The content of a YAML file.

    Raises:
        Malformed: it is none, or cannot be read; the message says what it should be, or in which row it goes wrong.
    """
    text = read_text(file, what)
    depth = itertools.accumulate(1 if bracket in "[{" else -1 for bracket in re.findall(r"[][{}]", text))
    if max(depth, default=0) > _DEEPEST:  # the reader takes seconds for a thousand
        raise Malformed(file, f"not valid YAML (brackets nested more than {_DEEPEST} deep); correct it or export again")
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        mark = getattr(error, "problem_mark", None)
        row = f"row {mark.line + 1}: " if mark is not None else ""
        raise Malformed(file, f"not valid YAML ({row}{reason}); correct it or export again") from error


def load_json(file: Path, advice: str) -> Any:
    """The content of a JSON file.

    Raises:
        Malformed: it is none; the message says in which line it goes wrong, and ends with `advice`.
    """
    try:
        content = json.loads(file.read_bytes())
    except UnicodeDecodeError as error:
        what = f"not valid JSON, since not UTF-8 (byte {error.start}; GBK or another local encoding?); save it as UTF-8"
        raise Malformed(file, what) from error
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Malformed(file, f"not valid JSON ({reason}); {advice}") from error
    consume(file)
    return content
