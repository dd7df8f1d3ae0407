"""All state of a run, saved so that a killed run goes on exactly where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from segdet.errors import InvalidOption, setting
from segdet.files import replacing, write_text

FILE = "resume/state.pt"


def save_state(run: Path, state: dict[str, Any]) -> None:
    """Write the state atomically: the previous one stays until the new one is whole on disk.

    Raises:
        OSError: the disk is full or damaged.
    """
    with replacing(run / FILE) as temporary:
        try:
            with temporary.open("wb") as file:
                torch.save(state, file)
        except (OSError, RuntimeError) as error:
            # PyTorch's writer raises an error of its own while it handles that of the file.
            reason = error if isinstance(error, OSError) else error.__context__
            if not isinstance(reason, OSError):
                raise
            raise OSError(reason.errno, reason.strerror, str(run / FILE)) from error


def load_state(run: Path) -> dict[str, Any]:
    """Read the state of a run.

    Raises:
        InvalidOption: no run there, or nothing to continue from.
    """
    file = run / FILE
    if not run.is_dir():
        hint = f"runs are under runs/ unless {setting('out')} named another folder"
        raise InvalidOption("resume", run, "no such run folder", hint)
    if not file.is_file() or not (run / "config.yaml").is_file():
        raise InvalidOption("resume", run, f"has no {FILE} to continue from", "train it again")
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive raises many kinds
        reason = f"{FILE} cannot be read ({str(error).splitlines()[0][:80]})"
        raise InvalidOption("resume", run, reason, "train it again") from error
    return state


def clear_unfinished(run: Path) -> None:
    """Remove the temporary files of a process that was killed while it wrote."""
    for name in ("results.csv", FILE, "weights/best.safetensors", "weights/last.safetensors"):
        for file in (run / name).parent.glob(f".{Path(name).name}.*"):
            file.unlink(missing_ok=True)


def write_history(run: Path, history: list[dict[str, float | None]]) -> None:
    """`results.csv`: one row per epoch; rewritten whole, so that a resumed run leaves no double rows."""
    lines = [",".join(history[0])]
    lines += [",".join("" if value is None else f"{value:.6g}" for value in row.values()) for row in history]
    write_text(run / "results.csv", "\n".join(lines) + "\n")
