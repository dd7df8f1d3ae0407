"""What `segdet predict SOURCE...` may name: images, videos, folders, patterns, lists, and standard input."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segdet.console import say
from segdet.data.images import EXTENSIONS, is_image
from segdet.errors import InputError
from segdet.inference import ledger
from segdet.inference.coco_ids import unique_names
from segdet.places import expanded
from segdet.text import decoded

# fmt: off
VIDEOS = frozenset({
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v",
    ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".qt", ".ts", ".vob", ".webm",
    ".wmv", ".y4m",
})  # what OpenCV opens when it is built with FFmpeg
# fmt: on
LISTS = frozenset({".txt", ".lst", ".list"})


@dataclass(frozen=True)
class Source:
    """An image or video to predict, and the name its results get (a relative path without extension, unique in the job).

    data: the encoded image where it came by standard input.
    """

    path: Path
    name: str
    data: bytes | None = None

    @property
    def file_name(self) -> str:
        """The file's own name, with its path below the source."""
        return (PurePosixPath(self.name).parent / self.path.name).as_posix()

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its name."""
        return self.data is None and is_video(self.path)


def is_video(path: Path) -> bool:
    """Whether the file's name ends like a video's (hidden files do not count)."""
    return path.suffix.lower() in VIDEOS and not path.name.startswith(".")


def expand(sources: Sequence[str], out: Path | None = None) -> list[Source]:
    """Images and videos behind files, folders (with all below), glob patterns, lists (`.txt`: a path a line, relative to
    the list or the working folder) and `-` (standard input: an image, or such a list), in order, each once.

    Args:
        out: where results go. Folders and patterns leave out what lies in it, or, where they start in it themselves, what
            earlier runs wrote there: they would predict their own results.

    Raises:
        InputError: a source that does not exist or leads to no image.
    """
    found: dict[Path, Path] = {}  # file -> name before it is made unique
    given: dict[Path, bytes] = {}
    results = _Results(out)
    for source in sources:
        if not source.strip():
            raise InputError('"": no name of an image or folder (a shell variable without a value?)')
        if source == "-":
            data = sys.stdin.buffer.read()
            if _looks_like_paths(data):
                _add_lines(data.decode(), "standard input", Path(), found)
            else:
                given[Path("stdin")] = data
                found.setdefault(Path("stdin"), Path("stdin"))
        elif Path(source).suffix.lower() in LISTS and Path(source).is_file():
            text = _text(Path(source))
            _add_lines(text, source, Path(source).parent, found)
        else:
            _add(source, found, results)
    if results.met:
        count = f"{len(results.met)} file{'s' if len(results.met) != 1 else ''}"
        say(f"left out {count} in {out}, where the results go")
    names = unique_names([relative.as_posix() for relative in found.values()])
    return [Source(file, name, given.get(file)) for file, name in zip(found, names, strict=True)]


class _Results:
    """The folder that results go to, as folders and patterns meet it. met: files that were left out."""

    def __init__(self, out: Path | None) -> None:
        self._folder = None if out is None else out.resolve()
        self._written = set() if out is None else ledger.read(out).written
        self.met: set[Path] = set()

    def without(self, files: Iterable[Path], start: Path) -> list[Path]:
        """The `files`, which were found from `start` on, that are no results."""
        place, folder = start.resolve(), self._folder
        if folder is None:
            return list(files)
        below = folder != place and folder.is_relative_to(place)
        kept = []
        for file in files:
            whole = place / file.relative_to(start)
            if whole.is_relative_to(folder) and (below or whole.relative_to(folder).as_posix() in self._written):
                self.met.add(whole)
            else:
                kept.append(file)
        return kept


def _add(source: str, found: dict[Path, Path], results: _Results) -> None:
    path = expanded(source)
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if (is_image(p) or is_video(p)) and p.is_file())
        inside = results.without(inside, path)
        if not inside:
            but = " but results of segdet" if results.met else ""
            raise InputError(f"{source}: no image in that folder{but} (segdet reads {_endings()})")
        found.update({file: file.relative_to(path) for file in inside if file not in found})
    elif path.is_file():
        found.setdefault(path, Path(path.name))
    else:
        names = (Path(name) for name in sorted(glob.glob(str(path), recursive=True)))
        matched = results.without((name for name in names if is_image(name) or is_video(name)), _start(path))
        if not matched:
            raise InputError(
                f"{source}: no such file or folder"
                + (", and nothing matches the pattern" if glob.has_magic(source) else "")
            )
        found.update({file: Path(file.name) for file in matched if file.is_file() and file not in found})


def _start(pattern: Path) -> Path:
    """The folder in which a pattern starts: what stands before its first wildcard."""
    start = Path(pattern.anchor)
    for part in pattern.relative_to(pattern.anchor).parts[:-1]:
        if glob.has_magic(part):
            break
        start /= part
    return start


def _add_lines(text: str, source: str, folder: Path, found: dict[Path, Path]) -> None:
    """The paths of a list; one that does not exist is told with its line."""
    named = 0
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip().removeprefix("\ufeff")
        if not entry or entry.startswith("#"):
            continue
        file = next((p for p in (folder / entry, Path(entry)) if p.is_file()), None)
        if file is None:
            raise InputError(f"{source}, line {number}: {entry}: no such file")
        named += 1
        relative = Path(entry)
        found.setdefault(file, Path(file.name) if relative.is_absolute() or ".." in relative.parts else relative)
    if not named:
        raise InputError(f"{source}: names no image; write one path a line")


def _looks_like_paths(data: bytes) -> bool:
    """Text without control characters; encoded images have some within their first bytes."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    return bool(text.strip()) and all(character.isprintable() or character in "\r\n\t\ufeff" for character in text)


def _text(path: Path) -> str:
    try:
        return decoded(path.read_bytes(), "surrogateescape")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file; a list of images has one path a line") from error


def _endings() -> str:
    return " ".join(sorted(EXTENSIONS | VIDEOS))
