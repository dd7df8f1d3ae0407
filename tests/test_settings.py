"""A setting is declared once: help, table, config file, Python signature and errors follow from its declaration."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
import yaml
from typer.testing import CliRunner

import segdet
from scripts import make_derived
from segdet import api
from segdet.cli.options import from_settings
from segdet.errors import InputError, InvalidOption
from segdet.settings import Settings, option
from segdet.training.config import TrainConfig


class Example(Settings):
    """The settings of an example command."""

    speed: int = option(3, "How fast it goes.", group="Movement", ge=1, le=9)
    mode: Literal["soft", "hard"] = option("soft", "How it goes.", group="Movement")
    limit: int = option(2_000_000, "Megapixels of one image.", group="Limits", unit=1_000_000, gt=0)
    tags: list[str] = option([], "Words to remember.", group="Limits")


@pytest.fixture(name="command")
def _command() -> tuple[typer.Typer, list[dict[str, Any]]]:
    calls: list[dict[str, Any]] = []

    @from_settings(Example)
    def example(written: dict[str, Any], *, extra: bool = typer.Option(False, "--extra", help="One more.")) -> None:
        """An example."""
        calls.append({**written, "extra": extra})

    app = typer.Typer()
    app.command()(example)
    return app, calls


def test_one_declaration_makes_an_option_with_help_default_and_group(
    command: tuple[typer.Typer, list[dict[str, Any]]],
) -> None:
    app, _ = command
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120", "NO_COLOR": "1"}).output
    assert "Movement" in text and "Limits" in text
    assert re.search(r"--speed .*How fast it goes\.\s+\[default: 3\]", text)
    assert re.search(r"--mode\s+soft\|hard", text)
    assert re.search(r"--limit .*Megapixels of one image\.\s+\[default: 2\]", text)


def test_only_what_was_written_reaches_the_command(command: tuple[typer.Typer, list[dict[str, Any]]]) -> None:
    app, calls = command
    CliRunner().invoke(app, [])
    CliRunner().invoke(app, ["--speed", "5", "--limit", "0.5", "--tags", "a", "--tags", "b", "--extra"])
    assert calls == [{"extra": False}, {"speed": 5, "limit": 500_000, "tags": ["a", "b"], "extra": True}]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"speed": 0}, "speed=0: must be at least 1"),
        ({"speed": 10}, "speed=10: must be at most 9"),
        ({"speed": "fast"}, "speed=fast: must be a whole number"),
        ({"mode": "hart"}, 'mode=hart: must be soft or hard; did you mean "hard"?'),
        ({"limit": 0}, "limit=0: must be more than 0"),
        ({"sped": 1}, 'sped: no such setting; did you mean "speed"?'),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_the_reason(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Example.from_options(**values)
    assert str(caught.value) == message


def test_an_invalid_option_carries_its_field_and_value() -> None:
    with pytest.raises(InvalidOption) as caught:
        TrainConfig.from_options(arch="unet", data="crack", epochs=0)
    assert (caught.value.field, caught.value.value, caught.value.reason) == ("epochs", 0, "must be at least 1")


@pytest.mark.parametrize("name", sorted(make_derived.COMMANDS))
def test_help_table_and_declaration_agree(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "segdet", name, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "400", "NO_COLOR": "1", "PATH": "/usr/bin", "PYTHONPATH": str(make_derived.ROOT)},
    )
    table = (make_derived.ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    section = table.partition(f"## segdet {name}\n")[2].partition("\n## segdet")[0]
    for one in make_derived.COMMANDS[name].declared():
        shown = one.name.upper() if one.argument else f"`--{one.option}`"
        assert shown in section, one.name
        assert one.help.replace("|", "\\|") in section, one.name
        assert one.help in re.sub(r"\s+", " ", done.stdout), one.name
        assert one.group in done.stdout, one.name


def test_derived_files_are_up_to_date() -> None:
    assert make_derived.outdated() == [], "run python scripts/make_derived.py"


@pytest.mark.parametrize("name", ["train", "evaluate", "export", "predict"])
def test_python_functions_have_every_setting_as_a_typed_parameter(name: str) -> None:
    parameters = inspect.signature(getattr(segdet, name)).parameters
    config, _ = api.settings_of(name)
    for one in config.declared():
        assert one.name in parameters
        assert parameters[one.name].annotation not in (inspect.Parameter.empty, "Any")


def test_a_config_file_holds_every_setting_and_reads_back(tmp_path: Path) -> None:
    config = TrainConfig.from_options(arch="unet", data="crack", mix=["crack-drawn=0.25"], class_weights="1,4", lr=0.01)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert TrainConfig.from_file(file) == config
    assert {one.name for one in TrainConfig.declared()} <= yaml.safe_load(file.read_text()).keys()


def test_a_config_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("arch: dfine\ndata: crack\noptions: {size: s, queries: 20}\n")
    assert TrainConfig.from_file(file).arch_options == {"variant": "s", "num_queries": 20}
    file.write_text("arch: unet\ndata: crack\ncalm: 0.3\nenlarge: 3\noptions: {upscale: 2}\n")
    config = TrainConfig.from_file(file)
    assert (config.clean_fraction, config.max_scale, config.arch_options) == (0.3, 3, {"input_scale": 2})
