"""Errors name settings by their Python names; each caller renders them in its own words."""

from __future__ import annotations

import pickle
from pathlib import Path

from segdet.cli.main import run
from segdet.data.records import Problem
from segdet.errors import InputError, InvalidOption, SegdetError, setting


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

    monkeypatch.setattr(main, "app", fail)
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
