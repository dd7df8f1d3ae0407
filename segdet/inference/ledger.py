"""What a job has done so far, a line an image, in its own folder: it can be taken up again, and needs no memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from segdet.errors import InputError

NAME = ".segdet-done.jsonl"


class Ledger:
    """Rows of one folder.

    Args:
        about: what the rows depend on (model, threshold, ...).
        resume: keep the rows of earlier runs; otherwise start afresh.

    Raises:
        InputError: resume, and the earlier rows depend on something else.
    """

    def __init__(self, folder: Path, about: dict[str, Any], resume: bool) -> None:
        self._path = folder / NAME
        self._known: dict[str, list[int]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if resume and self._path.is_file():
                self._take_up(folder, about)
                self._stream = self._path.open("a", encoding="utf-8")
            else:
                self._stream = self._path.open("w", encoding="utf-8")
                self._write({"about": about})
        except OSError as error:
            raise InputError(f"{folder}: cannot write there ({error.strerror}); choose another folder") from error

    def has(self, source: Path) -> bool:
        """Whether this very file was done before (same path, length and time)."""
        stamp = _stamp(source)
        return bool(stamp) and self._known.get(str(source.absolute())) == stamp

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

    def _take_up(self, folder: Path, about: dict[str, Any]) -> None:
        whole = 0  # bytes up to the end of the last complete line: a run may have been killed in the middle of one
        before: dict[str, Any] | None = None
        with self._path.open("rb") as stream:
            for raw in stream:
                try:
                    line = json.loads(raw)
                except ValueError:
                    break
                if not raw.endswith(b"\n"):
                    break
                whole += len(raw)
                if "about" in line:
                    before = line["about"]
                elif all(Path(file).is_file() for file in line["row"]["files"].values()):
                    self._known[line["source"]] = line["stamp"]
        with self._path.open("r+b") as stream:
            stream.truncate(whole)
        if before is None:
            self._path.write_text(json.dumps({"about": about}) + "\n", encoding="utf-8")
        elif before != json.loads(json.dumps(about)):
            changed = [name for name in about if before.get(name) != about[name]]
            raise InputError(
                f"--skip-done: the results in {folder} were made with another {', '.join(changed)}; "
                "leave --skip-done out to make them anew, or choose another --out"
            )

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self._path.open(encoding="utf-8") as stream:
            for line in stream:
                yield json.loads(line)

    def _write(self, line: dict[str, Any]) -> None:
        self._stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self._stream.flush()


def _stamp(source: Path) -> list[int]:
    with suppress(OSError):
        now = source.stat()
        return [now.st_size, now.st_mtime_ns]
    return []
