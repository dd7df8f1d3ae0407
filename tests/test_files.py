"""Writing: whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from segdet.errors import InputError
from segdet.files import building, new_folder, replacing, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(target, "new")
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_files_get_ordinary_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "ours", "x")
    (tmp_path / "theirs").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


def test_writing_leaves_the_process_its_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to all threads: while one has set it, the files of another get the wrong permissions."""

    def forbidden(mask: int) -> int:
        raise AssertionError(f"umask({mask})")

    monkeypatch.setattr(os, "umask", forbidden)
    write_text(tmp_path / "a", "x")


def test_numbers_that_json_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_new_folders_never_reuse_one(tmp_path: Path) -> None:
    assert [new_folder(tmp_path, "run").name for _ in range(3)] == ["run", "run-2", "run-3"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be created"):
        new_folder(tmp_path / "file", "run")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), building(tmp_path / "new") as folder:
        (folder / "half.txt").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):  # the second time an empty folder stands there
        with building(tmp_path / "a" / "new") as folder:
            (folder / "whole.txt").write_text("whole")
            assert not list((tmp_path / "a").glob("new/*"))
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]
        (tmp_path / "a" / "new" / "whole.txt").unlink()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="exists already"), building(tmp_path / "file"):
        pass
    with pytest.raises(InputError, match="cannot be created"), building(tmp_path / "file" / "new"):
        pass
