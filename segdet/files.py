"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segdet.errors import InputError
from segdet.text import encoded

# It can only be read by setting it, and it belongs to all threads: read once, before there are several.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


@contextmanager
def replacing(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced to disk and takes the place of `path`.

    Without `durable` it is not synced: after a power cut the file may be empty. For thousands of files that can be made again.

    The temporary file is in the same folder because replacing is atomic only within one file system.
    If the body raises, the temporary file is removed and the old `path`, if any, is untouched.

    Raises:
        InputError: the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot write there ({error.strerror}); choose another folder") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if durable:
            _sync(temporary)
        temporary.chmod(0o666 & ~_UMASK)  # mkstemp makes files private; results are meant to be shared
        temporary.replace(path)
        if durable:
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def building(folder: str | Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` on success; if the body raises, nothing is left.

    Raises:
        InputError: `folder` is there already and not empty, or cannot be created.
    """
    folder = Path(folder)
    empty = folder.is_dir() and not any(folder.iterdir())
    if (folder.exists() and not empty) or folder.is_symlink():
        raise InputError(f"{folder}: exists already; remove it or choose another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        outer = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise InputError(f"{folder}: cannot be created ({error.strerror}); choose another folder") from error
    try:
        inner = outer / folder.name  # mkdtemp makes private folders; this one gets ordinary permissions
        inner.mkdir()
        yield inner
        if empty:
            folder.rmdir()
        inner.rename(folder)
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def write_bytes(path: str | Path, content: bytes, durable: bool = True) -> None:
    """Write `content` to `path` atomically; `durable` as for `replacing`."""
    with replacing(path, durable) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, content: str) -> None:
    """Write `content` to `path` atomically, as UTF-8 (`text.encoded`)."""
    write_bytes(path, encoded(content))


def write_json(path: str | Path, content: Any, indent: int | None = 2) -> None:
    """Write `content` to `path` atomically, as JSON with lists of numbers on one line; NaN and infinities are refused."""
    text = json.dumps(content, indent=indent, allow_nan=False, ensure_ascii=False)
    if indent:  # a line break within a string is written as \n, so only lists can match
        text = re.sub(r"\[\s*\n[-+\d.eE,\s]+\]", lambda found: re.sub(r"\s+", "", found[0]).replace(",", ", "), text)
    write_text(path, text + "\n")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def new_folder(parent: str | Path, name: str) -> Path:
    """Create and return `parent/name`, or `parent/name-2`, `-3`, ... when that exists.

    Raises:
        InputError: the folder cannot be created.
    """
    number = 1
    while True:
        folder = Path(parent) / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise InputError(f"{folder}: cannot be created ({error.strerror}); choose another with --out") from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
