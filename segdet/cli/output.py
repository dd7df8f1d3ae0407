"""Results on standard output: lines for people, or one JSON object with the global `--json`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

as_json: ContextVar[bool] = ContextVar("the global --json was given", default=False)


def emit(result: Mapping[str, Any], text: str) -> None:
    """Print `result` as JSON or `text`, whichever was asked for."""
    try:
        print(json.dumps(result, ensure_ascii=not _in_utf8(), default=str) if as_json.get() else text, flush=True)
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _in_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows of text in aligned columns; the first row is the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
