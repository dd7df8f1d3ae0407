"""What `segdet predict SOURCE...` may name: images, videos, folders, patterns, lists, and standard input."""

from __future__ import annotations

import glob
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segdet.console import say
from segdet.data.folders import DeadEnd, walk
from segdet.data.images import EXTENSIONS, is_image
from segdet.data.leftovers import Leftovers
from segdet.data.records import Unread
from segdet.errors import InputError
from segdet.inference.io import manifest
from segdet.inference.io.coco_ids import unique_names
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


def expand(sources: Sequence[str], out: Path | None = None, left_out: list[Unread] | None = None) -> list[Source]:
    """Images and videos behind files, folders (with all below), glob patterns, lists (`.txt`: a path a line, relative to
    the list or the working folder) and `-` (standard input: an image, or such a list), in order, each once.

    Args:
        out: where results go. Folders and patterns leave out files in it, or, where they start in it themselves, what
            earlier runs wrote there: they would predict their own results.
        left_out: receives the other files of the folders, and why they are no sources.

    Raises:
        InputError: a source that does not exist or leads to no image.
    """
    found: dict[Path, Path] = {}  # file -> name before it is made unique
    given: dict[Path, bytes] = {}
    results = _Results(out)
    leftovers = Leftovers()
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
            _add(source, found, results, leftovers)
    pictures = sum(map(_is_source, results.met))
    if pictures:
        say(f"left out {pictures} file{'s' if pictures != 1 else ''} in {out}, where the results go")
    for one in leftovers.unread():
        say(f"left out {one}")
    if left_out is not None:
        leftovers.count("result", "results of segdet, in the folder where results go", sorted(results.met))
        left_out += leftovers.unread()
    names = unique_names([relative.as_posix() for relative in found.values()])
    return [Source(file, name, given.get(file)) for file, name in zip(found, names, strict=True)]


class _Results:
    """The folder that results go to, as folders and patterns meet it. met: files that were left out."""

    def __init__(self, out: Path | None) -> None:
        self._folder = None if out is None else out.resolve()
        self._written = set() if out is None else manifest.read(out).written
        self.met: set[Path] = set()

    def holds(self, file: Path, start: Path) -> bool:
        """Whether a `file`, which was reached from `start` on, is a result; it is noted as such."""
        if self._folder is None:
            return False
        place = start.resolve()
        whole = place / file.relative_to(start)
        below = self._folder != place and self._folder.is_relative_to(place)
        if whole.is_relative_to(self._folder) and (
            below or whole.relative_to(self._folder).as_posix() in self._written
        ):
            self.met.add(whole)
            return True
        return False


def _add(source: str, found: dict[Path, Path], results: _Results, leftovers: Leftovers) -> None:
    path = expanded(source)
    if path.is_dir():
        inside = _inside(path, results, leftovers)
        if not inside:
            but = " but results of segdet" if results.met else ""
            others = "; ".join(str(one) for one in leftovers.unread()[:3])
            seen = f"; it holds {others}" if others else ""
            raise InputError(f"{source}: no image in that folder{but}{seen} (segdet reads {_endings()})")
        found.update({file: file.relative_to(path) for file in inside if file not in found})
    elif path.is_file():
        found.setdefault(path, Path(path.name))
    else:
        names = (Path(name) for name in sorted(glob.glob(str(path), recursive=True)))
        start = _start(path)
        matched = [name for name in names if _is_source(name) and not results.holds(name, start)]
        if not matched:
            raise InputError(
                f"{source}: no such file or folder"
                + (", and nothing matches the pattern" if glob.has_magic(source) else "")
            )
        found.update({file: Path(file.name) for file in matched if file.is_file() and file not in found})


def _is_source(file: Path) -> bool:
    return is_image(file) or is_video(file)


def _inside(folder: Path, results: _Results, leftovers: Leftovers) -> list[Path]:
    """The images and videos below a folder, sorted; every other file is counted as left out."""
    dead_ends: list[DeadEnd] = []
    inside: list[Path] = []
    for place in walk(folder, dead_ends):
        others: dict[str, list[Path]] = defaultdict(list)
        for name in place.files:
            file = place.path / name
            if results.holds(file, folder):
                continue
            if _is_source(file):
                inside.append(file)
            else:
                others[file.suffix.lower()].append(file)
        for ending, files in others.items():
            leftovers.count_ending(ending, files)
    for end in dead_ends:
        leftovers.count_dead_end(end)
    return sorted(inside)


def _start(pattern: Path) -> Path:
    """The folder in which a pattern starts: what stands before its first wildcard."""
    start = Path(pattern.anchor)
    for part in pattern.relative_to(pattern.anchor).parts[:-1]:
        if glob.has_magic(part):
            break
        start /= part
    return start


def _add_lines(text: str, source: str, folder: Path, found: dict[Path, Path]) -> None:
    """The paths of a list; a missing one is an error that names its line."""
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
