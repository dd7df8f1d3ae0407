"""Errors name settings by their Python names; each caller renders them in its own words."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdet.cli.main import run
from segdet.data.records import Problem
from segdet.errors import CorruptImage, ImageTooLarge, InputError, InvalidOption, SegdetError, setting


def test_python_renders_the_parameter_name() -> None:
    error = InvalidOption("threshold", 2, "must be between 0 and 1", f"or leave {setting('imgsz')} out")
    assert str(error) == "threshold=2: must be between 0 and 1; or leave imgsz out"
    assert (error.field, error.value, error.exit_code) == ("threshold", 2, 2)


def test_a_caller_can_render_settings_in_its_own_words() -> None:
    error = SegdetError(f"out of memory; use {setting('micro_batch', 4)}")
    assert error.render(lambda name, value: f"<{name}:{value}>") == "out of memory; use <micro_batch:4>"


def test_text_of_a_message_is_never_taken_for_a_reference() -> None:
    assert str(SegdetError("{curly}/%s/photo.jpg: broken")) == "{curly}/%s/photo.jpg: broken"


def test_the_command_line_renders_options(monkeypatch, capsys) -> None:
    import segdet.cli.main as main

    def fail(*_: object, **__: object) -> None:
        raise InvalidOption("threshold", 2, "must be between 0 and 1", f"see {setting('backbone_lr')}")

    monkeypatch.setattr(main, "build", lambda arguments: fail)
    assert run(["predict"]) == 2
    assert capsys.readouterr().err == "segdet: --conf 2: must be between 0 and 1; see --backbone-lr\n"


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(SegdetError(f"use {setting('batch', 2)}")))  # noqa: S301
    assert str(error) == "use batch=2"
    option = pickle.loads(pickle.dumps(InvalidOption("batch", 0, "must be positive")))  # noqa: S301
    assert (option.field, str(option)) == ("batch", "batch=0: must be positive")


def test_a_line_break_in_a_file_name_does_not_break_the_line() -> None:
    path = Path("a\nb.jpg")
    assert str(InputError(f"{path}: not an image")) == "a\\nb.jpg: not an image"
    assert str(Problem(path, "no mask of that name")) == "a\\nb.jpg: no mask of that name"


def test_image_errors_carry_their_facts_and_survive_pickling() -> None:
    large = pickle.loads(pickle.dumps(ImageTooLarge("a.png", 900, 100, (30, 30))))  # noqa: S301
    assert (large.name, large.pixels, large.limit, large.size) == ("a.png", 900, 100, (30, 30))
    assert str(ImageTooLarge("a.png", None, 178_000_000)) == (
        "a.png: image has more than 178 million pixels; cut it into parts"
    )
    damaged = pickle.loads(pickle.dumps(CorruptImage(Path("a.tif"), "no tiles", "TIFF")))  # noqa: S301
    assert (damaged.path, damaged.reason) == (Path("a.tif"), "no tiles")
    assert str(damaged) == "a.tif: damaged TIFF (no tiles); replace or remove it"


def test_an_image_over_the_limit_says_how_large_it_is(monkeypatch, tmp_path: Path) -> None:
    from segdet.data import images

    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    for name in ("a.png", "a.tif"):
        Image.new("RGB", (20, 10)).save(tmp_path / name)
        with pytest.raises(ImageTooLarge) as caught:
            images.read_image(tmp_path / name)
        assert (caught.value.pixels, caught.value.limit, caught.value.size) == (200, 100, (20, 10))


def test_a_damaged_image_is_a_corrupt_image(tmp_path: Path) -> None:
    from segdet.data.images import encode_png, read_image

    with pytest.raises(CorruptImage) as caught:
        read_image(encode_png(np.zeros((40, 40, 3), np.uint8))[:-40], "a.png")
    assert caught.value.path == "a.png" and caught.value.reason
