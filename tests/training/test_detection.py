"""Detectors trained, measured and exported on drawn rectangles."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import segdet
from segdet.errors import InputError
from segdet.training import loop
from segdet.training.config import TrainConfig
from segdet.training.detection import DetectionTask
from segdet.training.run import train
from tests.detectors import blob_dataset

SETTINGS = {
    "backbone": "test_efficientnet", "weights": "none", "imgsz": 64, "batch": 4, "lr": 2e-3, "precision": "fp32",
    "device": "cpu", "workers": 0, "ema": 0.9,
}  # fmt: skip


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blob_dataset(tmp_path_factory.mktemp("data") / "blobs", count=16)


@pytest.fixture(scope="module")
def run(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segdet.train(
        "dfine", str(blobs), **SETTINGS, options={"variant": "n", "num_queries": 20, "denoising": 20}, epochs=40, val_every=20,
        out=str(tmp_path_factory.mktemp("runs")),
    )  # fmt: skip


def test_the_loss_falls_and_the_run_folder_is_whole(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["task"] == "detection"
    assert metrics["images"] == 16 and metrics["ap"] is not None
    rows = list(csv.DictReader((run / "results.csv").open()))
    assert len(rows) == 40
    assert [bool(row["metrics/ap"]) for row in rows] == [number in (20, 40) for number in range(1, 41)]
    assert float(rows[-1]["train/loss"]) < 0.9 * float(rows[0]["train/loss"])
    for name in ("report.html", "results.png", "labels.png", "samples/train.jpg", "config.yaml"):
        assert (run / name).stat().st_size > 0


def test_export_and_prediction_agree_with_the_weights(run: Path, blobs: Path, tmp_path: Path) -> None:
    file = segdet.export(run, out=tmp_path / "blobs.onnx")
    compared = json.loads(file.with_suffix(".parity.json").read_text())
    assert compared["passed"]
    image = next((blobs).rglob("*.png"), None) or next(blobs.rglob("*.jpg"))
    found = segdet.load(file).predict(image)
    assert found.boxes.shape[1] == 4 and (np.diff(found.scores) <= 0).all()


def test_detr_trains_with_padded_batches(blobs: Path, tmp_path: Path) -> None:
    options = {"layers": 1, "width": 32, "feedforward": 64, "num_queries": 8, "frozen_norm": False}
    out = train(
        TrainConfig.from_options(arch="detr", data=str(blobs), **SETTINGS, options=options, epochs=2, out=str(tmp_path))
    )
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert len(rows) == 2 and all(np.isfinite(float(row["train/loss"])) for row in rows)


def test_an_interrupted_run_goes_on_to_the_same_weights(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(name: str) -> TrainConfig:
        return TrainConfig.from_options(
            arch="dfine",
            data=str(blobs),
            **SETTINGS,
            options={"variant": "n", "num_queries": 10, "denoising": 10},
            epochs=2,
            out=str(tmp_path),
            name=name,
        )

    straight = train(settings("straight"))
    before = DetectionTask.loss
    steps = 0

    def stopping(self: DetectionTask, network: torch.nn.Module, batch: object) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == 3:
            signal.raise_signal(signal.SIGTERM)
        return before(self, network, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(DetectionTask, "loss", stopping)
    with pytest.raises(loop.Interrupted):
        train(settings("cut"))
    monkeypatch.undo()
    cut = tmp_path / "cut"
    train(TrainConfig.from_file(cut / "config.yaml"), resume=cut)
    a, b = ((folder / "weights" / "last.safetensors").read_bytes() for folder in (straight, cut))
    assert len(a) == len(b)
    from safetensors.torch import load_file

    one, two = load_file(straight / "weights" / "last.safetensors"), load_file(cut / "weights" / "last.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_clear_words(blobs: Path) -> None:
    with pytest.raises(InputError, match="loss=ce: dfine is trained with its own set loss; remove the setting"):
        TrainConfig.from_options(arch="dfine", data=str(blobs), loss="ce")
    with pytest.raises(InputError, match=r"clean_fraction=0\.3: dfine turns augmentation off .* remove the setting"):
        TrainConfig.from_options(arch="dfine", data=str(blobs), clean_fraction=0.3)
    with pytest.raises(InputError, match=r"max_scale=4: dfine chooses the scale of each batch; remove the setting"):
        TrainConfig.from_options(arch="dfine", data=str(blobs), max_scale=4)
    with pytest.raises(
        InputError, match=r"max_scale=4: augment=none turns all scale changes off; remove one of the two"
    ):
        TrainConfig.from_options(arch="unet", data=str(blobs), max_scale=4, augment="none")
    with pytest.raises(InputError, match=r"class_weights .*dfine is trained with its own set loss"):
        TrainConfig.from_options(arch="dfine", data=str(blobs), class_weights=[2.0])
    with pytest.raises(InputError, match=r"clean_fraction=0\.4: augment=none turns"):
        TrainConfig.from_options(arch="unet", data=str(blobs), clean_fraction=0.4, augment="none")
    with pytest.raises(InputError, match=r"time_budget=20: must be a time such as 90s, 20m or 1\.5h"):
        TrainConfig.from_options(arch="dfine", data=str(blobs), time_budget="20")


def test_eight_pictures_are_learnt_by_heart() -> None:
    from segdet.data.loading.detection_datasets import shares
    from segdet.data.records import Instance, Record
    from segdet.evaluation.detection import DetectionEvaluation, Detections
    from segdet.models.common import normalise
    from segdet.models.detection import Target
    from segdet.models.detector import Detector, detect
    from segdet.models.registry import build_model
    from segdet.training.detection_losses import DFINELoss

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    images, records, targets = np.full((8, 96, 96, 3), 90, np.uint8), [], []
    for number, image in enumerate(images):
        (x, y), (w, h), label = rng.integers(0, 40, 2), rng.integers(24, 56, 2), number % 2
        image[y : y + h, x : x + w, label] = 240
        box = np.array([[x, y, x + w, y + h]], np.float32)
        records.append(
            Record(Path(f"{number}.png"), 96, 96, (Instance(label, (), tuple(map(float, box[0]))),), str(number))
        )
        targets.append(Target(torch.from_numpy(shares(box, 96, 96)), torch.tensor([label])))
    options = {"variant": "n", "num_queries": 20, "denoising": 20}
    model, backbone = build_model("dfine", "test_efficientnet", ["red", "green"], "none", options, 96)
    criterion, inputs = DFINELoss(2), normalise(torch.from_numpy(images), backbone.mean, backbone.std)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    model.train()
    for _ in range(120):
        optimizer.zero_grad()
        torch.stack(list(criterion(model(inputs, None, targets), targets).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
    result = DetectionEvaluation(["red", "green"], records)
    for index, found in enumerate(detect(Detector(model.eval(), backbone.mean, backbone.std), images)):
        result.add(index, Detections(*found))
    assert result.metrics()["ap50"] > 0.5
