"""Nothing to learn is refused before the first step; nothing to measure is said, and the run ends with usable weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

import segdet
from segdet.data import summary
from segdet.data.catalog import cards
from segdet.data.doctor import examine
from segdet.errors import InputError, SegdetError
from segdet.evaluation.operating import parse
from segdet.models.weights import read_metadata
from segdet.reporting import publish
from segdet.validation.run import validate
from tests.conftest import TINY, Cli
from tests.drawn import coco_dataset, yolo_dataset

SETTINGS: dict[str, dict[str, Any]] = {
    "unet": TINY,
    "dfine": {**{key: value for key, value in TINY.items() if key != "options"}, "options": {"num_queries": 20, "denoising": 20}},
}  # fmt: skip
ARCHS = pytest.mark.parametrize("arch", list(SETTINGS))


def _emptied(root: Path, split: str) -> Path:
    for file in (root / "labels" / split).iterdir():
        file.write_text("")
    return root


def _changed(root: Path, **fields: Any) -> Path:
    """A COCO set with fields of all its annotations replaced."""
    for file in root.rglob("*.json"):
        content = json.loads(file.read_text())
        for row in content["annotations"]:
            row.update(fields)
        file.write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Objects in training, none in validation."""
    return _emptied(yolo_dataset(tmp_path_factory.mktemp("data") / "walls", train=8, val=3), "val")


@ARCHS
def test_without_objects_to_learn_training_does_not_start(arch: str, tmp_path: Path) -> None:
    empty = _emptied(yolo_dataset(tmp_path / "walls", train=4, val=2), "train")
    with pytest.raises(InputError, match="no object is labelled in its 4 training images; nothing to learn"):
        segdet.train(arch, str(empty), **SETTINGS[arch], epochs=1, out=str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_crowds_alone_are_refused_but_for_masks_of_one_class(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    crowds = _changed(coco_dataset(tmp_path / "walls", train=4, val=2), iscrowd=1)
    with pytest.raises(InputError, match=r"is marked as a crowd \(`iscrowd` 1\) .* set `iscrowd` to 0"):
        segdet.train("dfine", str(crowds), **SETTINGS["dfine"], epochs=1, out=str(tmp_path / "runs"))
    segdet.train("unet", str(crowds), **SETTINGS["unet"], epochs=1, out=str(tmp_path / "runs"))
    assert "marked as crowds: with one class they count as objects" in capfd.readouterr().err
    for row in summary.by_split(cards.load(str(crowds))).values():
        assert row["objects"] == 0 and row["crowds"] > 0
    assert {f.code: f.severity for f in examine(cards.load(str(crowds)), False).checkup.findings}[
        "crowds-only"
    ] == "error"


@ARCHS
def test_without_objects_to_measure_the_last_weights_are_kept(
    arch: str, silent: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = segdet.train(arch, str(silent), **SETTINGS[arch], epochs=2, out=str(tmp_path / "runs"))
    said = capfd.readouterr().err
    assert "no object counts in the 3 validation images: nothing can be measured" in said.split("epoch 1")[0]
    assert "so no score and threshold 0.5" in said
    best, last = (safetensors.torch.load_file(run / "weights" / f"{which}.safetensors") for which in ("best", "last"))
    assert all(torch.equal(best[name], last[name]) for name in last)
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["labelled_images"], metrics["threshold"], metrics["operate"]) == (0, 0.5, None)
    for name in ("f1", "precision", "recall", "iou" if arch == "unet" else "ap"):
        assert metrics[name] is None and metrics["ci95"][name] is None
    assert read_metadata(run / "weights" / "best.safetensors").threshold == 0.5
    assert "No object is labelled in these 3 images" in (run / "report.html").read_text()
    file = segdet.export(run, out=tmp_path / "silent.onnx")
    compared = json.loads(file.with_suffix(".parity.json").read_text())
    assert compared["passed"] and compared["iou" if arch == "unet" else "ap"]["delta"] is None
    card = file.with_suffix(".md").read_text()
    assert "could not be judged, for no object is labelled" in card and "Not measured: no object is labelled" in card


def test_a_stored_threshold_is_not_replaced_by_images_without_objects(trained: Path, silent: Path) -> None:
    weights = trained / "weights" / "best.safetensors"
    records = cards.load(str(silent)).splits["val"]
    assert validate(weights, records, "val", workers=0).metrics["threshold"] == read_metadata(weights).threshold
    with pytest.raises(InputError, match="no object is labelled in the 3 images of val"):
        validate(weights, records, "val", rule=parse("max-f1"), workers=0)


def test_a_class_that_a_split_lacks_is_named(tmp_path: Path, cli: Cli, capfd: pytest.CaptureFixture[str]) -> None:
    root = yolo_dataset(tmp_path / "walls", train=4, val=2)
    content = yaml.safe_load((root / "data.yaml").read_text())
    (root / "data.yaml").write_text(yaml.safe_dump({**content, "nc": 2, "names": ["crack", "stain"]}))
    first = sorted((root / "labels" / "train").iterdir())[0]
    first.write_text("1" + first.read_text()[1:])
    segdet.train("dfine", str(root), **SETTINGS["dfine"], epochs=1, out=str(tmp_path / "runs"))
    assert "no object in val of stain: its score cannot be measured" in capfd.readouterr().err
    done = cli("data", "info", root)
    assert "no object in val of: stain" in done.stdout, done.stderr
    codes = [finding.code for finding in examine(cards.load(str(root)), False).checkup.findings]
    assert "class-lacking" in codes


def test_a_failed_measurement_keeps_the_weights_and_says_how_to_go_on(
    walls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise MemoryError("no room for 9 GB")

    monkeypatch.setattr(publish, "run_folder", broken)
    with pytest.raises(
        SegdetError, match=r"weights are kept, but measuring them failed \(no room for 9 GB\)"
    ) as failure:
        segdet.train("unet", str(walls), **TINY, epochs=1, out=str(tmp_path))
    (run,) = tmp_path.iterdir()
    assert f"segdet val {run}" in str(failure.value)
    assert read_metadata(run / "weights" / "best.safetensors").classes == ["crack"]
    monkeypatch.undo()
    from segdet.training.config import TrainConfig
    from segdet.training.run import train

    train(TrainConfig.from_file(run / "config.yaml"), resume=run)
    assert (run / "metrics.json").is_file() and (run / "report.html").is_file()
    shutil.rmtree(run)
