"""What is said while work goes on: lines and progress bars on standard error, so that standard output stays data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_muted = False


def mute() -> None:
    """Say nothing more in this process: with several of them, one speaks for all."""
    global _muted
    _muted = True


def say(line: str) -> None:
    """Print one line to standard error."""
    if not _muted:
        print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[..., None]]:
    """A progress bar for as long as the block runs; off when standard error is not a terminal.

    Yields:
        `advance(count=1, note="")`.
    """
    if _muted or not sys.stderr.isatty():
        yield lambda count=1, note="": None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda count=1, note="": bar.update(task, advance=count, note=note)
