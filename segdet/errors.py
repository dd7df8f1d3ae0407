"""The two ways a command can end badly, and how each is told to the shell."""

from __future__ import annotations


class SegdetError(Exception):
    """The work itself failed (a parity gate, NaN, nothing to train on). Exit code 1.

    The message is one line that a user can act on; it is printed as it stands.
    """

    exit_code = 1


class InputError(SegdetError):
    """Wrong usage or bad input: names the file, what is wrong and what to do. Exit code 2."""

    exit_code = 2


def nearest(word: str, choices: object, limit: int = 3) -> str:
    """Return `; did you mean "x"?` for the closest of `choices`, or an empty string."""
    import difflib

    close = difflib.get_close_matches(word, [str(choice) for choice in choices], n=limit, cutoff=0.5)  # type: ignore[attr-defined]
    if not close:
        return ""
    return "; did you mean " + " or ".join(f'"{match}"' for match in close) + "?"
