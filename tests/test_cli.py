"""The real command, end to end, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segdet.cli.main import _dashed
from tests.conftest import ROOT, TINY, Cli
from tests.drawn import yolo_dataset


def _one_line(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The single line an error is told in."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line]
    assert lines[-1].startswith("segdet: ") and "Traceback" not in done.stderr
    return lines[-1]


@pytest.fixture(scope="module")
def job(cli: Cli, walls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which train, val, export and predict were run one after the other, as a user would."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    for arguments in (
        ("train", "unet", "--data", walls, "--epochs", 10, "--config", "tiny.yaml"),
        ("val", "runs/unet-walls", "--out", "val.json"),
        ("export", "runs/unet-walls"),
        ("predict", walls / "images" / "val", "--out", "found"),
    ):
        done = cli(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def test_the_main_job(job: Path, walls: Path) -> None:
    trained = json.loads((job / "runs/unet-walls/metrics.json").read_text())
    again = json.loads((job / "val.json").read_text())
    assert (
        trained["iou"] > 0.4
        and again["iou"] == pytest.approx(trained["iou"])
        and again["threshold"] == trained["threshold"]
    )
    assert (job / "exports/unet-walls.onnx").is_file() and (job / "exports/unet-walls.parity.json").is_file()
    found = json.loads((job / "found/predictions.json").read_text())
    assert len(found["images"]) == 6 and not found["skipped"]
    for image in found["images"]:
        mask = np.asarray(Image.open(job / image["files"]["mask"]))
        assert mask.shape == (96, 96) and (mask > 0).sum() == image["classes"]["crack"]["pixels"]
        assert Image.open(job / image["files"]["overlay"]).size == (96, 96)


def test_a_signal_to_the_whole_group_saves_and_resume_goes_on(cli: Cli, job: Path, walls: Path) -> None:
    """As `timeout`, a terminal's Ctrl-C or a scheduler send it: the loader's workers get it too."""
    arguments = (
        "train",
        "unet",
        "--data",
        walls,
        "--config",
        "tiny.yaml",
        "--epochs",
        300,
        "--workers",
        1,
        "--name",
        "cut",
    )
    started = subprocess.Popen(
        [sys.executable, "-m", "segdet", *map(str, arguments)], cwd=job, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while not (job / "runs/cut/resume/state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(started.pid, signal.SIGTERM)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 128 + signal.SIGTERM and "continue with: segdet train --resume runs/cut" in said, said
    config = yaml.safe_load((job / "runs/cut/config.yaml").read_text())
    state = torch.load(job / "runs/cut/resume/state.pt", weights_only=True)
    (job / "runs/cut/config.yaml").write_text(yaml.safe_dump({**config, "epochs": state["epoch"] + 1}))
    assert "that run has --lr" in _one_line(cli("train", "--resume", "runs/cut", "--lr", 0.5, cwd=job))
    assert "ARCH fcn: cannot resume with it: runs/cut was started with unet" in _one_line(
        cli("train", "fcn", "--resume", "runs/cut", cwd=job)
    )
    done = cli("train", "unet", "--data", walls, "--resume", "runs/cut", cwd=job)
    assert done.returncode == 0 and (job / "runs/cut/report.html").is_file(), done.stderr


def test_json_is_one_object_on_standard_output(cli: Cli, job: Path, walls: Path) -> None:
    for arguments in (
        ("predict", walls / "images" / "val", "--out", "again"), ("val", "exports/unet-walls.onnx", "--data", walls),
        ("data", "info", walls), ("data", "list"),
    ):  # fmt: skip
        done = cli(*arguments, "--json", cwd=job)
        assert isinstance(json.loads(done.stdout), dict), done.stderr


def test_a_corrupt_image_among_good_ones_is_named_skipped_and_counted(
    cli: Cli, job: Path, walls: Path, tmp_path: Path
) -> None:
    good = sorted((walls / "images" / "val").iterdir())[:2]
    for image in good:
        (tmp_path / image.name).write_bytes(image.read_bytes())
    (tmp_path / "broken.jpg").write_bytes(good[0].read_bytes()[: good[0].stat().st_size // 2])
    done = cli("predict", tmp_path, "--out", tmp_path / "out", cwd=job)
    assert done.returncode == 0 and "2 images predicted" in done.stdout and "1 skipped" in done.stdout
    assert f"skipped {tmp_path / 'broken.jpg'}: damaged image" in done.stderr
    assert list(json.loads((tmp_path / "out/predictions.json").read_text())["skipped"]) == [
        str(tmp_path / "broken.jpg")
    ]


def test_bad_input_is_one_line_and_exit_code_two(cli: Cli, job: Path, walls: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.jpg").write_text("this is no image")
    (tmp_path / "foreign.onnx").write_bytes(b"not onnx")
    (tmp_path / "bad.yaml").write_text("epocs: 3\n")
    garbage = yolo_dataset(tmp_path / "garbage", train=3, val=2)
    label = sorted((garbage / "labels" / "train").iterdir())[0]
    label.write_text("0 0.1 0.2 hello\n")
    cases: list[tuple[tuple[object, ...], str]] = [
        (("train", "unet", "--data", "nowhere"), "nowhere"),
        (("train", "unet", "--data", tmp_path / "empty"), "the folder is empty"),
        (("train", "unet", "--data", garbage), f"{label}: row 1"),
        (("train", "unett", "--data", garbage), 'did you mean "unet"'),
        (("train", "unet", "--data", job.parent, "--epocs", 3), "--epocs"),
        (("train", "--resume", tmp_path / "none"), "no such run folder"),
        (("train", "unet", "--data", walls, "--lr", "abc"), "--lr abc: not a valid number"),
        (("train", "unet", "--data", walls, "--mix", "crack-drawn=3"), "--mix crack-drawn=3: must be NAME=SHARE"),
        (("train", "unet", "--data", walls, "--mix", "0.3"), "--mix 0.3: must be NAME=SHARE"),
        (("train", "unet", "--data", walls, "--name", "../evil"), "--name ../evil: must be a plain name"),
        (("train", "unet", "--data", walls, "--config", "tiny.yaml", "--optimizer", "adamm"), 'did you mean "adam"'),
        (("train", "unet", "--data", walls, "--config", "tiny.yaml", "--schedule", "cosin"), 'did you mean "cosine"'),
        (("train", "unet", "--data", walls, "--config", "tiny.yaml", "--freeze", "99"), "--freeze 99: must be none"),
        (("train", "dfine", "--data", walls, "--weights", "none", "--num-queries", 0), "--num-queries 0"),
        (("train", "--resume", tmp_path / "empty"), "not a run folder"),
        (("train", "unet", "--data", "x", "--config", tmp_path / "bad.yaml"), 'did you mean "epochs"'),
        (("train", "unet", "--data", "x", "--fold", "6/5"), "--data x"),
        (("train",), "no architecture"),
        (("train", "unet", "--data", "crack-demo", "--epochs", "0"), "--epochs 0"),
        (("val", tmp_path / "none"), "no such run folder"),
        (("export", tmp_path / "none"), "no such run folder"),
        (("predict", tmp_path / "text.jpg"), "not an image segdet reads"),
        (("predict", tmp_path / "empty"), "no image in that folder"),
        (("predict", tmp_path / "gone.jpg"), "no such file"),
        (("predict", tmp_path / "text.jpg", "--model", tmp_path / "foreign.onnx"), "not an ONNX file"),
        (("predict", tmp_path / "text.jpg", "--save", "svg"), "--save svg"),
        (("trian",), "train"),
        (("data", "info", "crak"), 'did you mean "crack"'),
    ]
    for arguments, message in cases:
        assert message in _one_line(cli(*arguments, cwd=job)), arguments
    assert not (job / "runs" / "predict").exists()  # nothing half-written
    assert {run.name for run in (job / "runs").iterdir()} <= {"unet-walls", "cut"}


def test_help_names_the_commands_and_is_light(cli: Cli) -> None:
    done = cli("--help")
    assert done.returncode == 0 and all(word in done.stdout for word in ("train", "val", "export", "predict", "data"))
    code = "import sys; from segdet.cli import main; print(sorted({'torch', 'numpy', 'cv2', 'PIL', 'onnxruntime'} & set(sys.modules)))"
    light = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert light.stdout.strip() == "[]", light.stderr


def test_help_tells_the_defaults(cli: Cli) -> None:
    """They stand in brackets, which the printer of the help would take for markup."""
    for command, default in (("train", "[default: 30;"), ("serve", "[default: newest"), ("serve", "$SEGDET_API_KEY]")):
        assert default in cli(command, "--help").stdout


def test_without_the_training_packages_one_line_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from segdet.cli.main import run; sys.exit(run(['export', 'runs/x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "export needs the package torch" in _one_line(done) and "pip install 'segdet[train]'" in done.stderr


def test_models_are_listed_with_what_they_cost(cli: Cli) -> None:
    done = cli("models", "fcn", "--backbone", "resnet50", "--json")
    (row,) = json.loads(done.stdout)["models"]
    torchvision = 35_322_218 - 20 * (512 + 1) - 20 * (256 + 1)  # its fcn_resnet50 has 20 outputs more, in both heads
    assert row["parameters"] == torchvision and row["stride"] == 8 and 180 < row["gflops"] < 185
    assert "no such architecture" in _one_line(cli("models", "fcnn"))


def test_models_refuses_what_it_cannot_measure(cli: Cli) -> None:
    for arguments, message in (
        (("fcn", "--imgsz", -3), "--imgsz"),
        (("fcn", "--imgsz", 0), "--imgsz"),
        (("unet", "--backbone", "resnte18"), "--backbone resnte18: not a timm model; did you mean"),
        (("--backbone", "resnte18"), "--backbone resnte18: not a timm model; did you mean"),
        (("segmenter", "--backbone", "resnet18"), "resnet18"),
    ):
        done = cli("models", *arguments)
        assert message in _one_line(done) and not done.stdout, arguments


def test_val_looks_first_where_it_will_write(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "page.html").mkdir()
    for option, name, message in (
        ("--out", ".", "--out .: is a folder"),
        ("--out", "file/val.json", "--out file/val.json: cannot write there"),
        ("--report", "page.html", "--report page.html: is a folder"),
    ):  # before the model is so much as looked for
        assert message in _one_line(cli("val", "none", option, name, cwd=tmp_path))


def test_key_value_arguments() -> None:
    words = ["train", "arch=unet", "data=crack", "epochs=10", "--name", "a=b", "lr=1e-3"]
    assert _dashed(words) == ["train", "unet", "--data", "crack", "--epochs", "10", "--name", "a=b", "--lr", "1e-3"]
    assert _dashed(["data", "info", "data=crack"]) == ["data", "info", "crack"]
    assert _dashed(["serve", "--model", "model=a.onnx", "port=1"]) == [
        "serve",
        "--model",
        "model=a.onnx",
        "--port",
        "1",
    ]
    assert _dashed(["train", "unet", "val-every=2", "val_every=3"]) == [
        "train",
        "unet",
        "--val-every",
        "2",
        "--val-every",
        "3",
    ]
    assert _dashed(["train", "unet", "compile=True", "sync-bn=false"]) == ["train", "unet", "--compile"]
    assert _dashed(["predict", "size=3.jpg", "conf=0.5"]) == ["predict", "size=3.jpg", "--conf", "0.5"]


def test_data_convert_and_split(cli: Cli, walls: Path, tmp_path: Path) -> None:
    done = cli("data", "convert", walls, tmp_path / "masks", "--to", "png-mask", "--json")
    report = json.loads(done.stdout)
    assert report["splits"] == {"train": 24, "val": 6} and report["agreement"]["iou"] == 1.0 and report["losses"]
    done = cli("data", "split", tmp_path / "masks", tmp_path / "new", "val=0.25", "--test", 0.1, "--to", "yolo")
    assert done.returncode == 0 and "connected parts" in done.stdout and "IoU 1.000000" in done.stdout, done.stderr
    info = json.loads(cli("data", "info", tmp_path / "new", "--json").stdout)
    assert {split: row["images"] for split, row in info["splits"].items()} == {"train": 19, "val": 8, "test": 3}
    for arguments, reason in (
        (("convert", walls, tmp_path / "new", "--to", "coco"), "exists already"),
        (("convert", walls, tmp_path / "other", "--to", "cocoo"), 'did you mean "coco"'),
        (("convert", walls, tmp_path / "other", "--to", "coco", "--compare", "some"), "--compare some"),
        (("split", walls, tmp_path / "other", "--val", 1.5), "--val 1.5"),
    ):
        assert reason in _one_line(cli("data", *arguments))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["masks", "new"]
