"""Remembered image sizes: fast the second time, and never wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from segdet import places
from segdet.data import formats, images, index
from tests.data.helpers import blank
from tests.drawn import plain, yolo_dataset


@pytest.fixture
def walls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset whose files are old enough to be remembered, and a cache folder of its own."""
    monkeypatch.setenv("SEGDET_CACHE", str(tmp_path / "cache"))
    root = yolo_dataset(tmp_path / "walls", train=3, val=2, size=(24, 32))
    monkeypatch.setattr(index, "_SETTLED", -10_000_000_000)
    return root


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images whose header is really read."""
    seen: list[str] = []
    real = images.image_size
    monkeypatch.setattr(images, "image_size", lambda path: seen.append(path.name) or real(path))  # type: ignore[func-returns-value]
    return seen


def kept(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "cache" / "index").iterdir()
    return file


def test_the_second_reading_opens_no_image(walls: Path, opened: list[str]) -> None:
    first = formats.read(walls)
    assert len(opened) == 5
    opened.clear()
    assert plain(formats.read(walls)) == plain(first) and opened == []


def test_a_changed_image_is_opened_again(walls: Path, opened: list[str]) -> None:
    formats.read(walls)
    opened.clear()
    image = sorted((walls / "images/train").iterdir())[0]
    blank(image, 24, 48)
    assert formats.read(walls).splits["train"][0].size == (24, 48) and opened == [image.name]


def test_a_change_that_keeps_length_and_time_is_seen(walls: Path, opened: list[str]) -> None:
    """As `cp --preserve` or a restored backup leave it: the time of the last change of the inode tells."""
    picture = blank(walls / "images/train/zz.bmp", 16, 64)
    formats.read(walls)
    before = picture.stat()
    blank(picture, 64, 16)
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert picture.stat().st_size == before.st_size
    assert formats.read(walls).splits["train"][-1].size == (64, 16)


def test_a_file_touched_just_now_is_not_remembered(
    walls: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_SETTLED", 2_000_000_000)
    formats.read(walls)
    formats.read(walls)
    assert len(opened) == 10
    assert not (Path(os.environ["SEGDET_CACHE"]) / "index").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"schema": 1}', b'{"schema": 1, "images": [1]}', b'{"schema": 1, "images": {"a": 3}}',
     b'{"schema": 1, "images": {"a": [1, 2, 3, 4, "5"]}}', b'{"schema": 99, "images": {}}', b"\xff\x00", b"[" * 100_000],
)  # fmt: skip
def test_a_damaged_index_is_as_good_as_none(walls: Path, opened: list[str], tmp_path: Path, content: bytes) -> None:
    first = formats.read(walls)
    kept(tmp_path).write_bytes(content)
    opened.clear()
    assert plain(formats.read(walls)) == plain(first) and len(opened) == 5
    assert len(json.loads(kept(tmp_path).read_bytes())["images"]) == 5


def test_a_cache_that_cannot_be_written_only_costs_time(walls: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert len(formats.read(walls).splits["train"]) == 3


def test_damage_is_not_remembered(walls: Path, tmp_path: Path) -> None:
    image = sorted((walls / "images/train").iterdir())[0]
    good = image.read_bytes()
    image.write_bytes(b"no image")
    assert len(formats.read(walls).problems) == 1
    image.write_bytes(good)
    assert formats.read(walls).problems == ()


def test_files_that_are_gone_are_forgotten(walls: Path, tmp_path: Path) -> None:
    formats.read(walls)
    sorted((walls / "images/train").iterdir())[0].unlink()
    formats.read(walls)
    assert len(json.loads(kept(tmp_path).read_bytes())["images"]) == 4


def test_nothing_is_written_beside_the_data(walls: Path) -> None:
    before = sorted(walls.rglob("*"))
    formats.read(walls)
    assert sorted(walls.rglob("*")) == before


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGDET_CACHE", "/somewhere")
    assert places.cache_folder() == Path("/somewhere")
    monkeypatch.delenv("SEGDET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert places.cache_folder() == Path("/xdg/segdet")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert places.cache_folder() == Path("/home/me/.cache/segdet")


def test_without_a_dataset_being_read_sizes_come_from_the_file(tmp_path: Path) -> None:
    assert index.image_size(blank(tmp_path / "a.png", 10, 20)) == (10, 20)
