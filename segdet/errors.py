"""Errors as data: what is wrong, with which setting or file, and what to do; each caller renders them in its own words.

The library names settings by their Python names (`threshold`). `SegdetError.render` turns a name into what the reader
knows: the command line renders `--conf`, the server and Python render `threshold`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

_OPEN, _CLOSE = "\ue000", "\ue001"  # private-use characters: they cannot be mistaken for text of a message
_REFERENCE = re.compile(f"{_OPEN}([a-z0-9_]+)(?:=([^{_CLOSE}]*))?{_CLOSE}")


def setting(name: str, value: object = None) -> str:
    """A reference to a setting, for use inside the message of a `SegdetError`.

    Args:
        name: the Python name of the setting, such as "imgsz".
        value: a value to show with it, or None.

    Returns:
        Marked text that `SegdetError.render` replaces: `imgsz=320` in Python, `--imgsz 320` on the command line.
    """
    return f"{_OPEN}{name}{'' if value is None else f'={value}'}{_CLOSE}"


def one_line(text: str) -> str:
    """The text with line breaks, which file names may hold, written as `\\n` and `\\r`."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


def python_name(name: str, value: str | None) -> str:
    """Render a setting as a Python argument: `imgsz` or `imgsz=320`."""
    return name if value is None else f"{name}={value}"


class SegdetError(Exception):
    """The work itself failed (a parity gate, NaN, nothing to train on). Exit code 1.

    The message is one line that a user can act on. Settings in it are written with `setting(...)`.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    def render(self, name: Callable[[str, str | None], str] = python_name) -> str:
        """The message as one line of text.

        Args:
            name: turns the Python name of a setting and its value (or None) into the words of the reader.
        """
        return one_line(_REFERENCE.sub(lambda match: name(match[1], match[2]), self.message))

    def __str__(self) -> str:
        return self.render()


class InputError(SegdetError):
    """Wrong usage or bad input: names the file or setting, what is wrong and what to do. Exit code 2."""

    exit_code = 2


class InvalidOption(InputError):
    """A setting has a value that cannot be used.

    Attributes:
        field: the Python name of the setting.
        value: the value that was given, or None when the setting itself is the fault.
        reason: what is wrong with it, in a few words; may hold `setting(...)` references.
        hint: what to do, or an empty string; may hold `setting(...)` references.
    """

    def __init__(self, field: str, value: Any, reason: str, hint: str = "") -> None:
        self.field = field
        self.value = value
        self.reason = reason
        self.hint = hint
        super().__init__(f"{setting(field, value)}: {reason}" + (f"; {hint}" if hint else ""))

    def __reduce__(self) -> tuple[type[InvalidOption], tuple[str, Any, str, str]]:
        return type(self), (self.field, self.value, self.reason, self.hint)


def nearest(word: str, choices: Iterable[object], limit: int = 3) -> str:
    """Return `; did you mean "x"?` for the closest of `choices`, or an empty string."""
    import difflib

    close = difflib.get_close_matches(word, [str(choice) for choice in choices], n=limit, cutoff=0.5)
    if not close:
        return ""
    return "; did you mean " + " or ".join(f'"{match}"' for match in close) + "?"
