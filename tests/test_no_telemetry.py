"""segdet switches off the telemetry of the libraries that it uses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segdet.data.images import encode_png
from segdet.telemetry import OFF

ROOT = Path(__file__).parents[1]


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in OFF and not name.startswith("XDG_")}
    return {**kept, "HOME": str(home), "SEGDET_CACHE": str(home / "segdet-cache"), "PYTHONPATH": str(ROOT)}


def test_predict_writes_nothing_into_the_home_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "photo.png").write_bytes(encode_png(np.full((64, 96, 3), 120, np.uint8)))
    command = [sys.executable, "-m", "segdet", "predict", str(tmp_path / "photo.png"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=_environment(home), capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path for path in home.rglob("*") if "segdet-cache" not in path.parts] == []


@pytest.mark.parametrize("name", sorted(OFF))
def test_import_segdet_sets_the_variable_and_keeps_a_users_own_value(name: str, tmp_path: Path) -> None:
    code = f"import os, segdet; print(os.environ[{name!r}])"
    environment = _environment(tmp_path)
    for expected, extra in ((OFF[name], {}), ("mine", {name: "mine"})):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**environment, **extra}, capture_output=True, text=True, timeout=60
        )
        assert done.stdout.strip() == expected, done.stderr
