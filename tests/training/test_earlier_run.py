"""A run folder that was written before settings and modules were renamed can be resumed, measured and exported.

`tests/fixtures/earlier-run.tar.xz` was made at commit dfbaa9b with `segdet train` on the drawn data of `crack-demo`
(U-Net on timm's test_convnext, options `calm` and `upscale`) and stopped with Ctrl-C after the second of four epochs.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

import segdet
from segdet.training.config import TrainConfig
from segdet.training.run import train

FIXTURE = Path(__file__).parent.parent / "fixtures" / "earlier-run.tar.xz"


@pytest.fixture(name="run")
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path / "runs", filter="data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGDET_DATASETS", str(tmp_path / "datasets"))
    return tmp_path / "runs" / "earlier"


def test_its_settings_have_the_names_of_today(run: Path) -> None:
    config = TrainConfig.from_file(run / "config.yaml")
    assert config.clean_fraction == 0.25 and config.arch_options["input_scale"] == 1.5


def test_it_is_resumed_measured_and_exported(run: Path) -> None:
    rows = (run / "results.csv").read_text().splitlines()
    assert train(TrainConfig.from_file(run / "config.yaml"), resume=run) == run
    after = (run / "results.csv").read_text().splitlines()
    assert after[: len(rows)] == rows and len(after) == 1 + 4
    result = segdet.evaluate(run, limit=4, workers=0)
    assert 0 <= result.metrics["iou"] <= 1
    file = segdet.export(run, limit=2)
    assert segdet.load(file).session.metadata.options["input_scale"] == 1.5
