"""What a job has done so far, a line an image, in its own folder: it can be taken up again, and needs no memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segdet.errors import InputError, InvalidOption, setting
from segdet.files import write_text
from segdet.text import ESCAPE

NAME = ".segdet-done.jsonl"
JOB_FILES = {"json": "predictions.json", "csv": "predictions.csv", "coco": "predictions.coco.json"}  # of all images


@dataclass
class Earlier:
    """What the ledger of a folder says about the runs before.

    about: what the rows depend on; None: there is no ledger. done: of each source its stamp and files. written: the names,
    from the folder, of all files that runs wrote or set out to write. whole: bytes up to the end of the last complete line.
    """

    about: dict[str, Any] | None = None
    done: dict[str, tuple[list[int], list[str]]] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    whole: int = 0


def read(folder: Path) -> Earlier:
    """The ledger of `folder`, as far as there is one."""
    found, out = Earlier(), folder
    if not (folder / NAME).is_file():
        return found
    with (folder / NAME).open("rb") as stream:
        for raw in stream:
            try:
                line = json.loads(raw)
            except ValueError:
                break
            if not raw.endswith(b"\n"):  # a run was killed in the middle of it
                break
            found.whole += len(raw)
            if "about" in line:
                found.about = line["about"]
                found.written.update(JOB_FILES[kind] for kind in line["about"].get("save", ()) if kind in JOB_FILES)
            if "written" in line:
                out = Path(line["out"])  # as that run called the folder: the files in its rows begin so
                found.written.update(line["written"])
            if "source" in line:
                files = list(line["row"]["files"].values())
                found.written.update(Path(f).relative_to(out).as_posix() for f in files if Path(f).is_relative_to(out))
                if "time" not in line["row"]:  # a frame is no source
                    found.done[line["source"]] = line["stamp"], files
    return found


class Ledger:
    """Rows of one folder. Nothing is written before `begin`.

    Args:
        about: what the rows depend on (model, threshold, ...).
        resume: keep the rows of earlier runs; otherwise start afresh.

    Raises:
        InputError: resume, and the earlier rows depend on something else.
    """

    def __init__(self, folder: Path, about: dict[str, Any], resume: bool) -> None:
        self._folder, self._path, self._about = folder, folder / NAME, about
        self.earlier = read(folder)
        before = self.earlier.about
        self._resume = resume and before is not None
        if resume and before is not None and before != json.loads(json.dumps(about)):
            changed = [name for name in sorted({*about, *before}) if before.get(name) != about.get(name)]
            reason = f"the results in {folder} were made with another {', '.join(changed)}"
            hint = f"leave it out to predict them again, or choose another {setting('out')}"
            raise InvalidOption("skip_done", None, reason, hint)

    def has(self, source: Path) -> bool:
        """Whether this very file was done before (same path, length and time), and all its results are there."""
        if not self._resume:
            return False
        stamp, files = self.earlier.done.get(str(source.absolute()), ([], []))
        return bool(stamp) and stamp == _stamp(source) and all(Path(file).is_file() for file in files)

    def begin(self, names: Iterable[str]) -> None:
        """Make the folder, and note which files (names from it) this run is about to write: they stay known as segdet's.

        Raises:
            InputError: the folder cannot be written.
        """
        before = self.earlier.written
        written = {*names} - before if self._resume else {*names} | before
        line = _line({"out": str(self._folder), "written": sorted(written)})
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._resume:
                with self._path.open("r+b") as torn:
                    torn.truncate(self.earlier.whole)
                self._stream = self._path.open("a", encoding="utf-8", errors=ESCAPE)
                self._stream.write(line)
            else:  # at once: what earlier runs wrote must not be forgotten on the way
                write_text(self._path, _line({"about": self._about}) + line)
                self._stream = self._path.open("a", encoding="utf-8", errors=ESCAPE)
        except OSError as error:
            raise InputError(f"{self._folder}: cannot write there ({error.strerror}); choose another folder") from error

    def add(self, source: Path, row: dict[str, Any], frame: int | None = None) -> None:
        """Keep what was found in an image, or a frame of a video, whose files are written."""
        key, stamp = str(source.absolute()), _stamp(source)
        self._write({"source": key if frame is None else f"{key}#{frame}", "stamp": stamp, "row": row})

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of all images, earlier runs' first; of an image that changed in between, the last."""
        self._stream.flush()
        last: dict[str, int] = {}
        for number, line in enumerate(self._lines()):
            if "source" in line:
                last[line["source"]] = number
        for number, line in enumerate(self._lines()):
            if last.get(line.get("source", "")) == number:
                yield line["row"]

    def close(self) -> None:
        """Nothing more is added."""
        self._stream.close()

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self._path.open(encoding="utf-8") as stream:
            for line in stream:
                yield json.loads(line)

    def _write(self, line: dict[str, Any]) -> None:
        self._stream.write(_line(line))
        self._stream.flush()


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"


def _stamp(source: Path) -> list[int]:
    with suppress(OSError):
        now = source.stat()
        return [now.st_size, now.st_mtime_ns]
    return []
