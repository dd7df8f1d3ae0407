"""Large photographs go through networks in tiles wherever a model is measured, as in `segdet predict`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import segdet
from segdet.data.catalog import cards
from segdet.data.images import read_image
from segdet.data.loading import loader
from segdet.data.loading.datasets import evaluation_plan, largest
from segdet.inference.predict import tiling
from segdet.inference.predict.predictor import open_predictor
from segdet.models import common, network, weights
from segdet.models.network import Network
from segdet.validation.run import validate
from tests.conftest import TINY
from tests.drawn import yolo_dataset
from tests.segmenters import channel_model, dark_model

PIXELS = 20_000  # what counts as large here


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Pixels of everything that networks in PyTorch are asked at once, where tiles have 64 pixels a side."""
    monkeypatch.setattr(tiling.is_large, "__defaults__", (64, PIXELS))
    monkeypatch.setattr(tiling.run_tiled, "__defaults__", (64, 1))
    sizes: list[int] = []
    before = common.bounded

    def counting(model: torch.nn.Module, x: torch.Tensor, most: int | None) -> torch.Tensor:
        sizes.append(x.shape[0] * x.shape[-1] * x.shape[-2])
        return before(model, x, most)

    monkeypatch.setattr(network, "bounded", counting)
    monkeypatch.setattr("segdet.training.segmentation.bounded", counting)
    yield sizes


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of 160 x 200 pixels."""
    return yolo_dataset(tmp_path_factory.mktemp("data") / "large", train=4, val=2, size=(160, 200))


def test_weights_are_measured_in_tiles(trained: Path, large: Path, seen: list[int]) -> None:
    records = cards.load(str(large)).splits["val"]
    measured = validate(trained / "weights" / "best.safetensors", records, "val", workers=0)
    assert seen and max(seen) <= 64 * 64
    session = Network(*weights.load(trained / "weights" / "best.safetensors"))
    for index, record in enumerate(records):
        _, confidence = tiling.run_tiled(session, read_image(record.image), 0.5, 64)
        threshold = measured.metrics["threshold"]
        assert (measured.evaluation.mask(index, threshold) == (confidence >= np.float32(threshold))).mean() > 0.999


def test_training_validates_and_measures_in_tiles(large: Path, seen: list[int], tmp_path: Path) -> None:
    run = segdet.train("unet", str(large), **{**TINY, "imgsz": 32, "batch": 2}, epochs=1, out=str(tmp_path))
    assert max(seen) <= max(64 * 64, 2 * 32 * 32)
    row = (run / "results.csv").read_text().splitlines()[1].split(",")
    assert float(row[3]) > 0  # the loss of validation, from the tiles
    seen.clear()
    file = segdet.export(run, out=tmp_path / "large.onnx")
    assert seen and max(seen[-1:]) <= 64 * 64
    assert json.loads(file.with_suffix(".parity.json").read_text())["passed"]


def test_the_loss_of_tiles_is_near_that_of_the_whole(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []
    for whole in (10**9, PIXELS):
        monkeypatch.setattr(tiling.is_large, "__defaults__", (64, whole))
        run = segdet.train("unet", str(large), **TINY, epochs=1, loss="ce", out=str(tmp_path / str(whole)))
        losses.append(float((run / "results.csv").read_text().splitlines()[1].split(",")[3]))
    assert losses[0] == pytest.approx(losses[1], rel=0.3)


def test_files_are_measured_in_tiles_as_predicted(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of one class and one of several: what `val` measures is what `predict` answers."""
    records = cards.load(str(large)).splits["val"]
    asked: list[tuple[int, ...]] = []
    before = tiling.run_tiled

    def watching(session: tiling.Segmenting, image: np.ndarray, *rest: float) -> tuple[np.ndarray, np.ndarray]:
        asked.append(image.shape)
        return before(session, image, *rest)

    monkeypatch.setattr(tiling, "run_tiled", watching)
    monkeypatch.setattr(tiling.is_large, "__defaults__", (64, PIXELS))
    monkeypatch.setattr(before, "__defaults__", (64, 1))
    for file in (dark_model(tmp_path / "dark.onnx"), channel_model(tmp_path / "channels.onnx")):
        evaluation = validate(file, records, "test", workers=0).evaluation
        predictor = open_predictor(file, tile=128, device="cpu")
        assert len(asked) == len(records)
        for index, record in enumerate(records):
            expected = predictor.predict(record.image).mask
            assert (evaluation.mask(index, predictor.threshold) == expected).mean() > 0.999
        asked.clear()


@pytest.mark.parametrize(("workers", "pixels", "ahead"), [(1, (96, 96), 4), (1, (5000, 4000), 4), (8, (5000, 4000), 1)])
def test_large_batches_are_not_prepared_far_in_advance(workers: int, pixels: tuple[int, int], ahead: int) -> None:
    from segdet.data.records import Record

    records: Sequence[Record] = [Record(Path("a"), *pixels, (), "a") for _ in range(12)]
    plan = evaluation_plan(records, 4)
    assert loader._ahead(workers, largest(plan, records)) == ahead
