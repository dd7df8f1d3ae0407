"""A training run: what it leaves behind, exact resume, and what stops it."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

import segdet
from segdet.cli.main import run as main
from segdet.data.synthetic import cracks
from segdet.errors import InputError
from segdet.models import weights
from segdet.models.registry import build_model
from segdet.training import loop
from segdet.training.config import TrainConfig
from segdet.training.losses import LOSSES, loss_named
from segdet.training.optim import OPTIMIZERS, SCHEDULES, averaged, build_optimizer, schedule
from segdet.training.run import train
from segdet.training.stepper import Stepper
from tests.conftest import TINY, Cli
from tests.drawn import yolo_dataset


def test_a_run_folder_holds_everything(trained: Path) -> None:
    for name in (
        "config.yaml", "results.csv", "metrics.json", "results.png", "labels.png", "report.html", "samples/train.jpg",
        "samples/val_worst.jpg", "weights/best.safetensors", "weights/last.safetensors", "resume/state.pt",
    ):  # fmt: skip
        assert (trained / name).stat().st_size > 0, name
    assert "quarter_turns: true\n" in (trained / "config.yaml").read_text()  # one class: settled, not left open
    with (trained / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == [str(n) for n in range(1, 13)]
    assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["iou"] > 0.5  # the drawn cracks are easy; a network that learnt nothing gets about 0.05
    assert metrics["rasterizer"] == "4x-coverage-0.5" and metrics["images"] == 6
    assert metrics["ci95"]["iou"][0] <= metrics["iou"] <= metrics["ci95"]["iou"][1]
    assert {"f1_2px", "cldice", "boundary_iou", "oracle", "iou_per_image"} <= metrics.keys()


def test_the_weights_say_what_they_are(trained: Path) -> None:
    metadata = weights.read_metadata(trained / "weights" / "best.safetensors")
    metrics = json.loads((trained / "metrics.json").read_text())
    assert (metadata.arch, metadata.task, metadata.classes) == ("unet", "segmentation", ["crack"])
    assert metadata.threshold == metrics["threshold"] and metadata.metrics["iou"] == metrics["iou"]
    assert len(metadata.data.sha256) == 64


def test_the_report_needs_no_network(trained: Path) -> None:
    page = (trained / "report.html").read_text()
    assert "http://" not in page and "https://" not in page and "<script" not in page
    assert page.count("data:image/") >= 4


class _StopAfter:
    """Asks a trainer to stop after so many steps, as a signal would."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.step = Stepper.step

    def __call__(self, stepper: Stepper, *arguments: object) -> torch.Tensor:
        loss = self.step(stepper, *arguments)  # type: ignore[arg-type]
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGTERM)
        return loss


@pytest.mark.parametrize("steps", [1, 4, 6, 9])
def test_an_interrupted_run_ends_as_a_straight_one(
    walls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """24 photographs in batches of 4 are 6 steps an epoch: stops in the middle, at the end of an epoch, and in the next."""
    config = TrainConfig.from_options(arch="unet", data=str(walls), **TINY, epochs=2, out=str(tmp_path))
    straight = train(config)
    stop = _StopAfter(steps)
    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", lambda *arguments: stop(*arguments))
        with pytest.raises(loop.Interrupted, match="segdet train resume=") as stopped:
            train(config)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    torch.rand(3)  # whatever happened to the generator in between must not matter
    broken = tmp_path / "unet-walls-2"
    train(TrainConfig.from_file(broken / "config.yaml"), resume=broken)
    for which in ("best", "last"):
        ours, theirs = (
            safetensors.torch.load_file(run / "weights" / f"{which}.safetensors") for run in (straight, broken)
        )
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def untimed(run: Path) -> list[list[str]]:
        return [row.split(",")[:1] + row.split(",")[2:10] for row in (run / "results.csv").read_text().splitlines()]

    assert untimed(straight) == untimed(broken)


def test_sigterm_saves_and_says_how_to_go_on(walls: Path, tmp_path: Path) -> None:
    config = TrainConfig.from_options(arch="unet", data=str(walls), **TINY, epochs=500, out=str(tmp_path))
    run = tmp_path / "unet-walls"
    state, rows = run / "resume" / "state.pt", run / "results.csv"

    def send() -> None:
        deadline = time.monotonic() + 600
        while not rows.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        signal.raise_signal(signal.SIGTERM) if rows.exists() else None

    threading.Thread(target=send, daemon=True).start()
    with pytest.raises(loop.Interrupted, match=r"continue with: segdet train resume=.*unet-walls"):
        train(config)
    assert torch.load(state, weights_only=True)["epoch"] >= 1


def test_a_finished_run_is_not_resumed(trained: Path) -> None:
    with pytest.raises(InputError, match=r"is complete \(12 epochs\)"):
        train(TrainConfig.from_file(trained / "config.yaml"), resume=trained)


def test_a_run_goes_on_where_its_data_has_moved(
    trained: Path, walls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, moved = shutil.copytree(trained, tmp_path / "run"), shutil.copytree(walls, tmp_path / "elsewhere" / "walls")
    other = yolo_dataset(tmp_path / "other", train=3, val=3)
    (run / "metrics.json").unlink()  # as if it was killed in its last measurement
    gone = str(tmp_path / "gone")
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "data": gone}))
    for command in (["train", "--resume", str(run)], ["val", str(run)]):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert gone in line and line.endswith("name them with --data FOLDER"), line
    assert main(["train", "--resume", str(run), "--data", str(other)]) == 2
    assert f"--data {other}: not what {run} was trained on" in capsys.readouterr().err
    assert main(["train", "--resume", str(run), "--data", str(moved)]) == 0
    assert (run / "metrics.json").is_file()
    assert yaml.safe_load((run / "config.yaml").read_text())["data"] == str(moved)


def test_a_corrupt_image_is_named_and_the_others_go_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from tests.drawn import yolo_dataset

    data = yolo_dataset(tmp_path / "walls", train=9, val=3)
    victim = sorted((data / "images" / "train").iterdir())[2]
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    segdet.train("unet", str(data), **TINY, epochs=2, out=str(tmp_path / "runs"))
    said = capfd.readouterr().err
    assert said.count(f"skipped {victim}") == 1
    assert "1 images could not be read and were skipped" in said


def test_unknown_settings_are_refused_with_a_suggestion() -> None:
    with pytest.raises(InputError, match='epocs: no such setting; did you mean "epochs"'):
        TrainConfig.from_options(arch="unet", data="x", epocs=3)
    with pytest.raises(InputError, match="batch=0"):
        TrainConfig.from_options(arch="unet", data="x", batch=0)


def test_the_schedule_climbs_then_falls() -> None:
    rates = [schedule("cosine", step / 100, 1 / 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(rates[9]) == pytest.approx(1.0)
    assert all(a > b for a, b in itertools.pairwise(rates[10:])) and rates[-1] < 0.02


def test_averaged_weights_are_the_formula() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    mean = averaged(model, 0.9)
    expected = None
    for count in range(30):
        with torch.no_grad():
            model[0].weight.fill_(float(count))
        mean.update_parameters(model)
        share = min(0.9, (1 + count) / (10 + count))
        expected = float(count) if expected is None else share * expected + (1 - share) * count
    assert float(mean.module[0].weight[0, 0]) == pytest.approx(expected)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [1, 2])
def test_every_loss_prefers_the_right_answer_and_learns(name: str, classes: int) -> None:
    torch.manual_seed(0)
    target = torch.zeros(2, 16, 16, dtype=torch.uint8)
    if classes == 1:
        target[:, 4:7] = 255
        right = torch.where(target.bool(), 6.0, -6.0)[:, None]
    else:
        target[:, 4:7], target[:, 10:12], target[:, 0, 0] = 1, 2, 255
        right = torch.stack([torch.where(target == k, 6.0, -6.0) for k in range(3)], dim=1)
    loss = loss_named(name, classes)
    assert float(loss(right, target)) < 0.25 * float(loss(-right, target))
    logits = torch.zeros_like(right, requires_grad=True)
    steps = torch.optim.Adam([logits], 0.3)
    first = float(loss(logits, target))
    for _ in range(30):
        steps.zero_grad()
        loss((logits, logits), target).backward()  # an auxiliary output weighs in
        steps.step()
    assert float(loss(logits, target)) < 0.6 * first
    if classes == 2:
        assert float(logits.grad[:, :, 0, 0].abs().sum()) == 0.0  # the ignored pixel


def test_class_weights_weigh_and_are_checked() -> None:
    target = torch.zeros(1, 4, 4, dtype=torch.uint8)
    target[:, 0] = 255
    logits = torch.full((1, 1, 4, 4), -2.0)
    assert float(loss_named("ce", 1, [5.0])(logits, target)) > 2 * float(loss_named("ce", 1)(logits, target))
    with pytest.raises(InputError, match="3 needed"):
        loss_named("ce", 2, [1.0])
    with pytest.raises(InputError, match="focal does not use them"):
        loss_named("focal", 1, [5.0])
    with pytest.raises(InputError, match='did you mean "lovasz"'):
        loss_named("lovas", 1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_steps(name: str) -> None:
    model, backbone = build_model("unet", "test_efficientnet", ["c"], "none", TINY["options"])
    optimizer = build_optimizer(name, model, backbone, 1e-3, 0.5, 1.0, 0.01)
    assert len(optimizer.param_groups) == 4
    before = [parameter.clone() for parameter in model.parameters()]
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    assert sum(bool((a != b).any()) for a, b in zip(before, model.parameters(), strict=True)) > 0.9 * len(before)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_stays_between_zero_and_one(name: str) -> None:
    rates = [schedule(name, step / 90, 1 / 90, 0.1) for step in range(90)]
    assert min(rates) > 0 and max(rates) <= 1.001 and rates[0] < 0.2
    assert name == "constant" or rates[-1] < 0.2
    with pytest.raises(InputError, match='did you mean "cosine"'):
        schedule("cosin", 0.0, 0.1, 0.1)


def test_losses_are_lowest_for_the_right_answer_and_survive_ignored_and_empty_targets() -> None:
    cover = torch.zeros(1, 8, 8, dtype=torch.uint8)
    cover[0, 2:5] = 255
    right = torch.where(cover.bool(), 9.0, -9.0)[:, None]
    assert float(loss_named("bce+dice", 1)(right, cover)) < 0.01 < float(loss_named("bce+dice", 1)(-right, cover))
    assert torch.isfinite(loss_named("bce+dice", 1)(right, torch.zeros_like(cover)))
    index = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    loss_named("bce+dice", 2)(logits, index).backward()
    assert float(logits.grad.abs().sum()) == 0.0
    index[0, 0, 0] = 2
    loss_named("bce+dice", 2)(logits, index).backward()
    assert float(logits.grad[0, :, 0, 0].abs().sum()) > 0
    assert float(logits.grad[0, :, 5, 5].abs().sum()) == 0.0


def test_a_time_budget_ends_with_a_validated_epoch(walls: Path, tmp_path: Path) -> None:
    config = TrainConfig.from_options(
        arch="unet", data=str(walls), **TINY, time_budget="3s", val_every=1000, out=str(tmp_path)
    )
    run = train(config)
    rows = list(csv.DictReader((run / "results.csv").open()))
    assert [bool(row["metrics/iou"]) for row in rows] == [False] * (len(rows) - 1) + [True]
    assert float(rows[-1]["lr"]) < 0.5 * config.lr  # the schedule ran to its end
    with pytest.raises(InputError, match="is complete"):
        train(TrainConfig.from_file(run / "config.yaml"), resume=run)


@pytest.mark.parametrize("text", ["20", "0m", "-5s", "1d", "m"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"write a time such as 90s, 20m or 1\.5h"):
        TrainConfig.from_options(arch="unet", data="crack", time_budget=text)


def test_a_time_budget_is_for_everything(walls: Path, tmp_path: Path) -> None:
    """Reading the data before training and measuring after it count too."""
    config = TrainConfig.from_options(arch="unet", data=str(walls), **TINY, time_budget="20s", out=str(tmp_path))
    began = time.monotonic()
    run = train(config)
    took = time.monotonic() - began
    rows = list(csv.DictReader((run / "results.csv").open()))
    left = 20 - float(rows[-1]["time"])
    assert left + 1 >= 6 and left <= 11, "room is kept for the final measurement, but not more than half"
    assert took < 60  # not a timing: the loop itself must have ended by its own clock


def test_a_further_dataset_is_mixed_in(walls: Path, tmp_path: Path, cli: Cli) -> None:
    drawn = str(cracks.write(tmp_path / "drawn", train=6, val=1, test=0, size=64))
    given = {"arch": "unet", "data": str(walls), **TINY, "epochs": 1, "augment": "robust", "out": str(tmp_path)}
    run = train(TrainConfig.from_options(**given, mix={drawn: 0.4}))
    kept = TrainConfig.from_file(run / "config.yaml")
    assert kept.mix == {drawn: 0.4} and kept.augment == "robust"
    mixed = weights.read_metadata(run / "weights" / "best.safetensors").data.model_dump()["mixed"]
    assert mixed == {"drawn": {"share": 0.4, "licence": None}}
    other = yolo_dataset(tmp_path / "other", train=2, val=1, classes=["hole"])
    with pytest.raises(InputError, match="must be the same"):
        train(TrainConfig.from_options(**given, mix={str(other): 0.2}))
    none = cracks.write(tmp_path / "none", train=0, val=2, test=0, size=64)
    with pytest.raises(InputError, match="has no training images"):
        train(TrainConfig.from_options(**given, mix={str(none): 0.2}))
    with pytest.raises(InputError, match="segmentation only"):
        train(TrainConfig.from_options(arch="dfine", data=str(walls), precision="fp32", mix={drawn: 0.4}))
    with pytest.raises(InputError, match="shares between 0 and 1"):
        TrainConfig.from_options(**given, mix={drawn: 1.0})
    said = cli("train", "unet", "--data", walls, "--mix", "drawn=much")
    assert said.returncode == 2 and "say NAME=SHARE" in said.stderr
