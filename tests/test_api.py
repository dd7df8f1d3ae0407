"""The public Python API: types that mypy checks, examples that run, and an import that costs nothing."""

from __future__ import annotations

import doctest
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import segdet
from segdet import api
from segdet.console import progress, say

ROOT = Path(__file__).parent.parent
USER = Path(__file__).parent / "user_script.py"


def test_a_user_script_passes_mypy_strict(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path), str(USER)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"MYPYPATH": str(ROOT), "PATH": ""})
    errors = [line for line in done.stdout.splitlines() if "user_script.py" in line and "error" in line]
    assert not errors and "Traceback" not in done.stderr, done.stdout[-2000:]


def test_mypy_refuses_wrong_types_in_a_user_script(tmp_path: Path) -> None:
    script = tmp_path / "wrong.py"
    script.write_text('import segdet\n\nsegdet.train("unet", "crack", epochs="ten")\nsegdet.load(treshold=0.5)\n')
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path), str(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"MYPYPATH": str(ROOT), "PATH": ""})
    assert 'Argument "epochs" to "train"' in done.stdout and 'Unexpected keyword argument "treshold"' in done.stdout


@pytest.mark.parametrize("name", sorted(name for name, home in segdet.HOMES.items() if home == "segdet.api"))
def test_the_example_of_a_function_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exports").symlink_to(ROOT / "exports")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGDET_DATASETS", str(tmp_path / "datasets"))
    examples = doctest.DocTestFinder().find(getattr(api, name), name, module=api)
    assert sum(len(example.examples) for example in examples) > 0
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for example in examples:
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


def test_every_public_name_can_be_had_and_is_documented() -> None:
    for name in segdet.__all__:
        assert name == "__version__" or getattr(segdet, name).__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        segdet.trian  # noqa: B018


def test_importing_segdet_imports_nothing_heavy() -> None:
    script = (
        "import sys, segdet; print(sorted({'torch', 'numpy', 'pydantic', 'onnxruntime', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_no_message_outside_the_command_line_speaks_of_flags() -> None:
    sources = [path for path in (ROOT / "segdet").rglob("*.py") if "cli" not in path.relative_to(ROOT).parts]
    hits = [
        f"{path}:{number}"
        for path in sources
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if '"--' in line
    ]
    assert hits == []


@pytest.fixture(name="fresh_logger")
def _fresh_logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("segdet")
    before = (list(logger.handlers), logger.level)
    logger.handlers, logger.level = [], logging.NOTSET
    yield logger
    logger.handlers = before[0]
    logger.setLevel(before[1])


def test_lines_are_printed_to_standard_error_by_default(
    fresh_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    say("one line")
    assert capsys.readouterr() == ("", "one line\n")


def test_a_program_can_redirect_and_silence_every_line(
    fresh_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    fresh_logger.addHandler(handler)
    say("one line")
    fresh_logger.setLevel(logging.WARNING)
    say("another line")
    assert lines == ["one line"] and capsys.readouterr() == ("", "")


def test_a_program_can_follow_progress(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int, str]] = []
    with segdet.on_progress(lambda *step: steps.append(step)), progress("measuring", 3) as advance:
        advance()
        advance(2, "last")
    assert steps == [("measuring", 1, 3, ""), ("measuring", 3, 3, "last")]
