"""`segdet compare`, folds, operating points, and what a run, its weights and its ONNX file say about the same images."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import yaml

import segdet
from segdet.cli.main import run
from segdet.data.catalog import cards, splits
from segdet.errors import InputError
from segdet.evaluation import tally as tallies
from segdet.evaluation.operating import parse
from segdet.inference.backends.select import open_session
from segdet.models import weights
from segdet.validation.checkpoint import dataset_for, open_trained, part_of
from segdet.validation.run import validate
from segdet.validation.threshold import store
from tests.conftest import TINY
from tests.drawn import yolo_dataset

SCORES = ("iou", "f1", "precision", "recall", "f1_2px", "cldice", "boundary_iou", "average_precision", "iou_per_image")


@dataclass
class _Done:
    returncode: int
    stdout: str
    stderr: str


Cli = Callable[..., _Done]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command line within this process, which is much faster (tests/test_cli.py runs the real one)."""

    def call(*arguments: object) -> _Done:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return _Done(code, said.out, said.err)

    return call


@pytest.fixture(scope="module")
def weaker(trained: Path, walls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second run on the same images, stopped after two epochs."""
    import segdet

    return segdet.train("unet", str(walls), **TINY, epochs=2, out=str(tmp_path_factory.mktemp("weak")), name="weaker")


@pytest.fixture(scope="module")
def halves(walls: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The two folds of a division in two."""
    out = str(tmp_path_factory.mktemp("folds"))
    return [segdet.train("unet", str(walls), **TINY, epochs=2, out=out, fold=f"{k}/2", seed=3) for k in (1, 2)]


def test_run_weights_and_onnx_say_the_same(trained: Path, exported: Path, walls: Path) -> None:
    dataset = cards.load(str(walls))
    stored = json.loads((trained / "metrics.json").read_text())
    files = (trained / "weights" / "best.safetensors", exported)
    ours, onnx_s = (validate(file, dataset.splits["val"], "val", workers=0).metrics for file in files)
    for name in SCORES:
        assert ours[name] == stored[name], name
        assert onnx_s[name] == pytest.approx(ours[name], abs=1e-3), name
    assert onnx_s["threshold"] == pytest.approx(ours["threshold"], abs=2e-3)
    assert onnx_s["calibration"]["ece"] == pytest.approx(ours["calibration"]["ece"], abs=1e-4)
    assert sum(row["pixels"] for row in ours["calibration"]["bins"]) == 6 * 96 * 96
    matrix = ours["confusion"]["matrix"]
    assert matrix[1][1] / (matrix[1][1] + matrix[0][1] + matrix[1][0]) == pytest.approx(ours["iou"])


def test_another_size_is_still_scored_at_the_images_own(trained: Path, exported: Path, walls: Path) -> None:
    records = cards.load(str(walls)).splits["val"]
    found = [
        validate(file, records, "val", imgsz=144, workers=0).metrics
        for file in (trained / "weights/best.safetensors", exported)
    ]
    plain = json.loads((trained / "metrics.json").read_text())
    assert found[0]["imgsz"] == 144 and 0.1 < found[0]["iou"] != plain["iou"]
    assert found[1]["iou"] == pytest.approx(found[0]["iou"], abs=1e-3)
    assert sum(map(sum, found[0]["confusion"]["matrix"])) == 6 * 96 * 96


def test_an_operating_point_is_stored_and_kept(trained: Path, exported: Path, walls: Path, tmp_path: Path) -> None:
    records = cards.load(str(walls)).splits["val"]
    copied = shutil.copytree(trained, tmp_path / "run")
    file = copied / "weights" / "best.safetensors"
    before = weights.read_metadata(file)
    tensors = file.read_bytes()[-1000:]
    measured = validate(file, records, "val", rule=parse("recall=0.9"), workers=0)
    assert measured.metrics["recall"] >= 0.9 and measured.metrics["threshold"] != before.threshold
    store(file, before, measured.metrics)
    after = weights.read_metadata(file)
    assert (after.threshold, after.operate) == (measured.metrics["threshold"], "recall=0.9") and file.read_bytes()[
        -1000:
    ] == tensors
    # measured again, the rule holds; on another split the stored threshold is used as it is
    again = validate(file, records, "val", workers=0).metrics
    assert (again["threshold"], again["operate"]) == (after.threshold, "recall=0.9")
    assert validate(file, records, "test", workers=0).metrics["threshold"] == after.threshold
    with pytest.raises(InputError, match="thresholds are chosen on val"):
        validate(file, records, "test", rule=parse("max-f1"), workers=0)

    copy = Path(shutil.copy(exported, tmp_path / "model.onnx"))
    store(copy, open_session(copy, "cpu").metadata, measured.metrics)
    onnx.checker.check_model(onnx.load(copy), full_check=True)
    session = open_session(copy, "cpu")
    (default,) = [onnx.numpy_helper.to_array(t) for t in onnx.load(copy).graph.initializer if t.name == "threshold"]
    assert session.metadata.threshold == after.threshold and float(default) == pytest.approx(after.threshold)


def test_the_command_chooses_and_the_run_follows(cli: Cli, trained: Path, tmp_path: Path) -> None:
    chosen = shutil.copytree(trained, tmp_path / "run")
    done = cli("val", chosen, "--threshold-rule", "precision=0.9", "--report", tmp_path / "page.html", "--workers", 0)
    assert done.returncode == 0, done.stderr
    assert "(precision=0.9) stored in" in done.stdout and "average_precision" in done.stdout
    metrics = json.loads((chosen / "metrics.json").read_text())
    assert metrics["precision"] >= 0.9 and metrics["operate"] == "precision=0.9"
    assert tallies.load(chosen / tallies.FILE).threshold == metrics["threshold"]
    assert (
        "rule <code>precision=0.9</code>" in (chosen / "report.html").read_text() and (tmp_path / "page.html").is_file()
    )
    for arguments, reason in (
        (("--threshold-rule", "recall=2"), "--threshold-rule recall=2"),
        (("--threshold-rule", "recall=0.9", "--limit", 3), "on all images"),
        (("--threshold-rule", "recall=0.9", "--split", "test"), "no such split"),
        (("--report", "page.pdf"), "must end in .html"),
        (("--split", "test"), "has no such split"),
    ):
        wrong = cli("val", chosen, *arguments)
        assert wrong.returncode == 2 and reason in wrong.stderr and "Traceback" not in wrong.stderr, wrong.stderr


def test_two_runs_are_compared_and_one_with_itself_is_the_same(
    cli: Cli, trained: Path, weaker: Path, tmp_path: Path
) -> None:
    done = cli("compare", trained, weaker, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0 and "measuring" not in done.stderr, done.stderr  # what the runs have counted is enough
    result = json.loads(done.stdout)
    assert [row["name"] for row in result["runs"]] == [trained.name, "weaker"]
    (pair,) = result["differences"]
    said = re.fullmatch(
        rf"{trained.name} is better than weaker by ([\d.]+) IoU points \(95 % CI ([\d.]+) to ([\d.]+)\)",
        pair["sentence"],
    )
    assert said is not None and float(said[2]) <= float(said[1]) <= float(said[3])
    first, second = (json.loads((one / "metrics.json").read_text())["iou"] for one in (trained, weaker))
    assert pair["scores"]["iou"]["value"] == pytest.approx(first - second)
    page = (tmp_path / "out" / "compare.html").read_text()
    assert pair["sentence"] in page and "http:" not in page and "https:" not in page and "<script" not in page
    assert page.count("data:image/jpeg") == 6 and page.count("<svg") == 2

    twice = cli("compare", trained, trained / "weights" / "best.safetensors", "--out", tmp_path / "same")
    assert twice.returncode == 0 and "no difference between" in twice.stdout and "better" not in twice.stdout


def test_other_images_are_measured_anew(cli: Cli, trained: Path, exported: Path, walls: Path, tmp_path: Path) -> None:
    done = cli(
        "compare",
        trained,
        exported,
        "--data",
        walls,
        "--split",
        "train",
        "--limit",
        5,
        "--out",
        tmp_path / "out",
        "--json",
    )
    assert done.returncode == 0 and done.stderr.count("measuring") == 2, done.stderr
    result = json.loads(done.stdout)
    assert result["images"] == 5 and result["runs"][0]["iou"] > 0.4


def test_folds_are_summed_up_and_never_measured_on_what_they_have_seen(
    cli: Cli, halves: list[Path], walls: Path, tmp_path: Path
) -> None:
    for fold, k in zip(halves, (1, 2), strict=True):
        held_out = splits.fold(cards.load(str(walls)), k, 2, seed=3).splits["val"]
        for source in (fold, fold / "weights" / "best.safetensors"):
            chosen = dataset_for(open_trained(source)).splits["val"]
            assert [r.image.name for r in chosen] == [r.image.name for r in held_out]
        stored = json.loads((fold / "metrics.json").read_text())
        again = json.loads(cli("val", fold, "--workers", 0, "--json").stdout)
        assert again["iou"] == stored["iou"] and again["images"] == len(held_out)
        # moved, and its images named: still its own fold
        moved = shutil.copy(fold / "weights" / "best.safetensors", tmp_path / f"{k}.safetensors")
        chosen = dataset_for(open_trained(moved), str(walls)).splits["val"]
        assert [r.image.name for r in chosen] == [r.image.name for r in held_out]
    # a file alone knows its fold as well
    metadata = weights.read_metadata(halves[1] / "weights" / "best.safetensors")
    assert metadata.data.model_extra == {"fold": "2/2", "seed": 3}

    done = cli("compare", "--folds", *halves, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    (one,) = json.loads(done.stdout)["experiments"]
    each = [json.loads((fold / "metrics.json").read_text())["iou"] for fold in halves]
    assert one["spread"]["iou"]["mean"] == pytest.approx(sum(each) / 2) and one["missing"] == []
    assert min(each) <= one["pooled"]["iou"] <= max(each) and one["ci95"]["iou"][0] < one["ci95"]["iou"][1]
    assert "Mean ± sd" in (tmp_path / "out" / "compare.html").read_text()
    table = cli("compare", "--folds", halves[0], "--out", tmp_path / "half").stdout
    assert "missing: 2/2" in table and "all photographs" in table


def test_other_images_are_taken_as_they_are(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = open_trained(trained)
    whole = dataset_for(model, str(yolo_dataset(tmp_path / "all", train=9, val=0)))
    assert len(part_of(whole, "val").splits["val"]) == 9
    assert "all has no val split: measured on all 9 images of train" in capsys.readouterr().err
    apart = dataset_for(model, str(yolo_dataset(tmp_path / "apart", train=5, val=4)), limit=3)
    assert [len(records) for records in apart.splits.values()] == [3, 3]
    only = yolo_dataset(tmp_path / "test", train=1, val=2, test=3)
    for kind in ("images", "labels"):
        shutil.rmtree(only / kind / "train")
    (only / "data.yaml").write_text("val: images/val\ntest: images/test\nnames: [crack]\n")
    found = part_of(dataset_for(model, str(only)), "test")
    assert {split: len(records) for split, records in found.splits.items()} == {"val": 2, "test": 3}


def test_what_was_left_out_of_training_is_left_out_of_measuring(tmp_path: Path) -> None:
    """Images whose objects have boxes only are no use for masks: the division is that of the others, there as here."""
    data = yolo_dataset(tmp_path / "walls", train=20, val=0)
    for file in sorted((data / "labels" / "train").iterdir())[::2]:
        file.write_text("0 0.5 0.5 0.2 0.2")
    run = segdet.train("unet", str(data), **TINY, epochs=1, out=str(tmp_path), fold="1/5")
    held_out = dataset_for(open_trained(run)).splits["val"]
    assert all(record.outlined for record in held_out)
    assert json.loads((run / "metrics.json").read_text())["images"] == len(held_out) == 2
    again = validate(run / "weights" / "best.safetensors", held_out, "val", workers=0).metrics
    assert again["iou"] == json.loads((run / "metrics.json").read_text())["iou"]


def test_what_cannot_be_compared_is_told(
    cli: Cli, trained: Path, halves: list[Path], walls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, reason in (
        ((trained,), "segdet compare RUN RUN"),
        ((trained, tmp_path / "none"), "no such run folder"),
        (tuple(halves), "--folds"),
        ((trained, halves[0]), "--folds"),
        ((*halves, "--data", walls), "the other way round"),
        (("--folds", trained, halves[0]), "trained without --fold"),
        (("--folds", halves[0], halves[0]), "name each fold once"),
        (("--folds", *halves, "--data", "crack"), "leave --data out"),
    ):
        done = cli("compare", *arguments)
        assert done.returncode == 2 and reason in done.stderr and "Traceback" not in done.stderr, (
            arguments,
            done.stderr,
        )
    assert not (tmp_path / "runs").exists()
    other = shutil.copytree(trained, tmp_path / "other")
    settings = yaml.safe_load((other / "config.yaml").read_text())
    (other / "config.yaml").write_text(yaml.safe_dump({**settings, "data": str(tmp_path / "gone")}))
    done = cli("val", other)
    assert done.returncode == 2 and "name them with --data" in done.stderr
