"""`segdet val`: of a detection model, of spoilt images, of images that training has not seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from segdet.data.catalog import cards
from segdet.errors import InputError
from segdet.evaluation.operating import parse
from segdet.models.weights import read_metadata
from segdet.validation.run import validate
from tests.conftest import Cli
from tests.detectors import COLOURS, blob_dataset, blob_model


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blob_dataset(tmp_path_factory.mktemp("data") / "blobs", count=8)


def test_a_detector_is_measured_at_each_images_own_size(blobs: Path, tmp_path: Path) -> None:
    model = blob_model(tmp_path / "blobs.onnx", threshold=0.85)
    dataset = cards.load(str(blobs))
    records = dataset.splits["val"]
    torn = records[1].image
    whole = torn.read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    try:
        measured = validate(model, records, "val", classes=COLOURS)
    finally:
        torn.write_bytes(whole)
    assert (measured.metrics["ap"], measured.metrics["images"], measured.metrics["skipped"]) == (1.0, 7, 1)
    assert measured.metrics["threshold"] < 0.7 and measured.metrics["f1"] == 1.0
    assert measured.metrics["errors"]["correct"] == sum(len(r.instances) for r in records if r.image != torn)
    stored = validate(model, records, "test")
    assert stored.metrics["threshold"] == 0.85 and stored.metrics["recall"] < 1.0  # only red is that sure
    with pytest.raises(InputError, match="knows the classes"):
        validate(model, records, "val", classes=["crack"])


def test_the_command_says_it_in_lines_and_in_json(cli: Cli, blobs: Path, tmp_path: Path) -> None:
    model = blob_model(tmp_path / "blobs.onnx")
    done = cli("val", model, "--data", blobs, "--out", "val.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "8 images, threshold 0." in lines[0]
    assert lines[2].split() == ["ap", "1.0000", "1.0000", "..", "1.0000"]
    assert "12 correct, 0 classification" in lines[-1]
    metrics = json.loads((tmp_path / "val.json").read_text())
    assert metrics["task"] == "detection" and metrics["ap_large"] is None and metrics["ap50"] == 1.0


def test_spoilt_images_are_judged_at_the_stored_threshold(trained: Path, walls: Path) -> None:
    """As in the field, where nobody chooses a threshold anew; the numbers are those of images spoilt beforehand."""
    dataset = cards.load(str(walls))
    weights = trained / "weights" / "best.safetensors"
    plain = validate(weights, dataset.splits["val"], "val", workers=0).metrics
    dim = validate(weights, dataset.splits["val"], "val", degrade="dark+blur", workers=0).metrics
    assert dim["degrade"] == "dark+blur" and "degrade" not in plain
    assert dim["threshold"] == read_metadata(weights).threshold
    assert dim["iou"] != plain["iou"]
    with pytest.raises(InputError, match="chosen on unchanged images"):
        validate(weights, dataset.splits["val"], "val", degrade="dark", rule=parse("max-f1"), workers=0)
    with pytest.raises(InputError, match="no such kind"):
        validate(weights, dataset.splits["val"], "val", degrade="fog", workers=0)


def test_images_that_training_shows_can_be_left_out(trained: Path, walls: Path, tmp_path: Path, cli: Cli) -> None:
    copy = tmp_path / "walls"
    shutil.copytree(walls, copy)
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    asked = ("--json", "val", trained, "--data", copy, "--exclude-leaks", "--workers", "0")
    refused = cli(*asked, env=cache)
    assert refused.returncode == 2 and "segdet data check" in refused.stderr
    dataset = cards.load(str(copy))
    first = dataset.splits["val"][0].image
    first.write_bytes(dataset.splits["train"][0].image.read_bytes())  # training has seen it
    assert cli("data", "check", copy, env=cache).returncode in (0, 1)
    told = cli(*asked, env=cache)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["images"] == len(dataset.splits["val"]) - 1
