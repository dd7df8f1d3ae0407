"""What is reported while work goes on: log lines and progress, on standard error so that standard output stays data.

Lines go to `logging.getLogger("segdet")`. Unless a program has given that logger a handler of its own, they are printed to
standard error. `on_progress` replaces the progress bar.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

LOGGER = logging.getLogger("segdet")

Listener = Callable[[str, int, int, str], None]
_listener: ContextVar[Listener | None] = ContextVar("segdet progress listener", default=None)


class _StandardError(logging.Handler):
    """Prints messages alone to what standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr, flush=True)


def mute() -> None:
    """Report nothing more in this process: with several of them, one reports for all."""
    LOGGER.setLevel(logging.CRITICAL)


def say(line: str) -> None:
    """Log one line for the user at level INFO."""
    if not LOGGER.handlers:
        LOGGER.addHandler(_StandardError())
    if LOGGER.level == logging.NOTSET:
        LOGGER.setLevel(logging.INFO)
    LOGGER.info("%s", line)


@contextmanager
def on_progress(listener: Listener) -> Iterator[None]:
    """Send progress to `listener` instead of a bar, for as long as the block runs.

    Args:
        listener: called with (title, done, total, note) after every step.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[..., None]]:
    """A progress bar for as long as the block runs; off when standard error is not a terminal.

    Yields:
        `advance(count=1, note="")`.
    """
    listener = _listener.get()
    if listener is not None:
        done = 0

        def advance(count: int = 1, note: str = "") -> None:
            nonlocal done
            done += count
            listener(title, done, total, note)

        yield advance
        return
    if LOGGER.level > logging.INFO or not sys.stderr.isatty():
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
