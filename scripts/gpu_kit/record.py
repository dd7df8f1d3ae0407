"""Steps that leave a line of JSON each, whatever happens to the next one."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


class LeftOut(Exception):
    """A step cannot be done here; the message says what it lacks."""


class Log:
    """Writes one JSON line for each step, flushed to disk.

    Args:
        path: file to append to.
        deadline: `time.time()` after which steps are left out.
    """

    def __init__(self, path: Path, deadline: float) -> None:
        self.path, self.deadline = path, deadline
        self.part, self.until = "", deadline
        path.parent.mkdir(parents=True, exist_ok=True)

    def begin(self, part: str, until: float) -> None:
        """Start a part, which may take until `time.time()` is `until`."""
        self.part, self.until = part, min(until, self.deadline)

    @property
    def left(self) -> float:
        """Seconds that this part may still take."""
        return self.until - time.time()

    def step(self, name: str, work: Callable[[], dict[str, Any]], **about: Any) -> dict[str, Any]:
        """Do one step and write its row: what `work` returns, or why there is nothing.

        Args:
            name: of the step, unique with `about` within its part.
            about: further fields of the row.
        """
        row: dict[str, Any] = {"part": self.part, "step": name, **about}
        began = time.perf_counter()
        if self.left <= 0:
            row["left_out"] = "no time left"
        else:
            try:
                row.update(work())
            except LeftOut as reason:
                row["left_out"] = str(reason)
            except ModuleNotFoundError as error:
                row["left_out"] = f"the package {error.name} is not installed"
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                message = (str(error) or type(error).__name__).splitlines()[0][:300]
                row["error"] = f"{type(error).__name__}: {message} ({Path(place.filename).name}:{place.lineno})"
        row["seconds"] = round(time.perf_counter() - began, 2)
        self.write(row)
        return row

    def write(self, row: dict[str, Any]) -> None:
        """Append one row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        details = {key: value for key, value in row.items() if key not in ("part", "step", "seconds")}
        short = ", ".join(f"{key} {value}" for key, value in details.items() if not isinstance(value, (dict, list)))
        print(f"[{row['part']}] {row['step']} ({row.get('seconds', 0)} s): {short}", flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; a last line that was cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
