"""Which model is meant when none is named."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from segdet.errors import InputError, InvalidOption, setting

_SHIPPED = tuple(Path(__file__).parents[up] / "exports" / "crack.onnx" for up in (2, 1))  # checkout, wheel


def find_model(path: str | Path | None = None) -> Path:
    """The ONNX file to use: `path` (a file, or a run folder that was exported), else the newest in `./exports`, else the
    newest exported run under `./runs`, else the model that comes with segdet.

    Raises:
        InputError: nothing there.
    """
    if path is not None:
        given = Path(path)
        if not given.is_dir():
            return given  # opening it says what is wrong with it
        found = _newest(given.rglob("*.onnx")) or _existing(Path("exports") / f"{given.resolve().name}.onnx")
        if found is None:
            hint = f"make one with `segdet export {path}`"
            raise InvalidOption("model", path, "no ONNX file in that folder", hint)
        return found
    own = (file for file in Path("exports").glob("*.onnx") if file.resolve() not in _SHIPPED)
    found = _newest(own) or _newest(Path("runs").glob("**/*.onnx")) or _newest(filter(Path.is_file, _SHIPPED))
    if found is None:
        raise InputError(
            f"no model: none in ./exports or ./runs; `segdet export RUN` makes one, or name one with {setting('model')}"
        )
    return found


def _newest(files: Iterable[Path]) -> Path | None:
    """Newest by time; hidden files are unfinished ones."""
    return max((f for f in files if not f.name.startswith(".")), key=lambda f: f.stat().st_mtime, default=None)


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
