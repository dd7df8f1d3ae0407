"""Names that are not UTF-8, an ASCII locale, text in UTF-16, and users without a home folder they can write to."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from segdet import text
from segdet.data import formats
from tests.conftest import ROOT, TINY
from tests.drawn import yolo_dataset
from tests.segmenters import dark_model

ODD = os.fsdecode(b"Br\xfccke")  # as a file system from Windows 98 or an archive leaves it
SHOWN = "Br\\udcfccke"
# Runs several command lines in one process, which saves the imports: argv[1] is a JSON list of lists of words.
_RUN = """
import json, sys
from segdet.cli.main import run
for words in json.load(open(sys.argv[1])):
    print("\\n<<<", run(words), ">>>", flush=True)
"""
_PREDICT = [
    "predict",
    "--model",
    "dark.onnx",
    "--save",
    "overlay,mask,json,confidence,csv,coco,geojson,yolo",
    "--out",
    "out",
]


@dataclass
class Done:
    """codes: exit code of each command. err: standard error of all of them."""

    codes: list[int]
    out: str
    err: str


def run_commands(work: Path, commands: list[list[str]], prefix: list[str], **environment: str) -> Done:
    """Run segdet's command lines with nothing in the environment but these variables and what Python needs."""
    (work / "commands.json").write_text(json.dumps(commands))
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [*prefix, sys.executable, "-c", _RUN, "commands.json"], cwd=work, env=clean, capture_output=True, timeout=600
    )
    out, err = (stream.decode("utf-8", "surrogateescape") for stream in (done.stdout, done.stderr))
    codes = [int(code) for code in re.findall(r"<<< (\d+) >>>", out)]
    assert len(codes) == len(commands) and "Traceback" not in err, err
    return Done(codes, out, err)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with a small dataset `set`, a model `dark.onnx` and settings `tiny.yaml`."""
    folder = tmp_path / "work"
    yolo_dataset(folder / "set", train=4, val=4)
    dark_model(folder / "dark.onnx")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return folder


@pytest.fixture
def odd(work: Path) -> Path:
    """`work` with a folder, an image and a label file of each split whose names are not UTF-8, and data.yaml in UTF-16."""
    for split in ("train", "val"):
        image = sorted((work / "set/images" / split).iterdir())[0]
        label = work / "set/labels" / split / f"{image.stem}.txt"
        image.rename(image.with_stem(ODD))
        label.rename(label.with_stem(ODD))
    description = work / "set/data.yaml"
    description.write_bytes(description.read_text().encode("utf-16"))
    (work / "set").rename(work / ODD)
    return work


def test_every_command_takes_names_that_are_not_utf_8_in_an_ascii_locale(odd: Path) -> None:
    train = ["train", "unet", "--config", "tiny.yaml", "--data", ODD, "--epochs", "1", "--out", "runs", "--name", "run"]
    layouts = ("coco", "voc", "yolo", "png-mask")
    commands = [
        [*_PREDICT, f"{ODD}/images/val"],
        ["data", "info", ODD],
        ["data", "check", ODD, "--quick", "--out", "check"],
        *(["data", "convert", ODD, f"as-{layout}", "--to", layout] for layout in layouts),
        train,
        ["val", "runs/run", "--report", f"{ODD}.html"],
        ["export", "runs/run", "--tolerance", "1", "--out", f"{ODD}.onnx"],
        ["predict", f"{ODD}/images/val", "--model", f"{ODD}.onnx", "--out", "out-2", "--save", "json"],
        [
            "predict",
            f"{ODD}/images/val",
            "--model",
            f"{ODD}.onnx",
            "--out",
            "out-3",
            "--device",
            "cpu",
            "--save",
            "json",
        ],
    ]
    done = run_commands(
        odd, commands, [], LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", SEGDET_CACHE=str(odd / "cache")
    )
    assert set(done.codes) == {0}, (done.codes, done.err)

    rows = json.loads((odd / "out/predictions.json").read_text())["images"]
    assert [Path(row["image"]).name for row in rows if "Br" in Path(row["image"]).name] == [f"{ODD}.jpg"]
    table = list(csv.reader((odd / "out/predictions.csv").read_bytes().decode().splitlines()))
    assert any(SHOWN in cell for row in table for cell in row)
    for name in (f"{ODD}_overlay.png", f"{ODD}_mask.png", f"{ODD}_confidence.png", f"{ODD}.geojson"):
        assert (odd / "out" / name).is_file(), name
    for layout in layouts:
        again = formats.read(odd / f"as-{layout}")
        assert {split: len(records) for split, records in again.splits.items()} == {"train": 4, "val": 4}, layout
        assert again.problems == (), layout
    assert (odd / "runs/run/report.html").is_file() and (odd / f"{ODD}.html").is_file()


def test_a_command_started_in_an_ascii_locale(odd: Path) -> None:
    """The command starts itself once more in UTF-8, so a file name in the arguments reaches it as it is on disk."""
    command = [sys.executable, "-m", "segdet", "predict", f"{ODD}/images/val", "--model", "dark.onnx", "--out", "out"]
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "SEGDET_CACHE": str(odd / "cache")}
    done = subprocess.run(
        command, cwd=odd, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment}, capture_output=True
    )
    assert done.returncode == 0 and b"4 images predicted" in done.stdout, done.stderr


def _another_user() -> list[str] | None:
    """How to start a command as a user who is not root, and who may read the interpreter wherever it is installed."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return None
    ids = ["--reuid", "23456", "--regid", "23456", "--clear-groups"]
    reading = ["--inh-caps", "-all,+dac_read_search", "--ambient-caps", "-all,+dac_read_search"]
    prefix = ["setpriv", *ids, *reading]
    done = subprocess.run([*prefix, sys.executable, "-c", ""], capture_output=True)
    return prefix if done.returncode == 0 else None


@pytest.mark.parametrize("home", ["none", "read-only"])
def test_every_command_works_without_a_home_folder(work: Path, home: str) -> None:
    user = _another_user()
    if user is None:
        pytest.skip("only root can become another user, with setpriv")
    work.chmod(0o777)
    (work.parent / "home").mkdir(mode=0o555)
    commands = [
        ["predict", "set/images/val", "--model", "dark.onnx", "--out", "out"],
        ["data", "info", "set"],
        ["data", "check", "set", "--quick", "--out", "check"],
        ["train", "unet", "--config", "tiny.yaml", "--data", "set", "--epochs", "1", "--out", "runs", "--name", "run"],
        ["val", "runs/run"],
        ["export", "runs/run", "--tolerance", "1", "--out", "model.onnx"],
        ["bench", "dark.onnx", "--seconds", "0.1", "--device", "openvino"],
    ]
    environment = {} if home == "none" else {"HOME": str(work.parent / "home")}
    done = run_commands(work, commands, user, **environment)
    assert set(done.codes) == {0}, (done.codes, done.err)
    assert "Permission denied" not in done.err and "MPLCONFIGDIR" not in done.err


def test_lone_surrogates_become_printable() -> None:
    assert text.printable(ODD) == SHOWN
    assert text.printable("Brücke") == "Brücke"


@pytest.mark.parametrize("kind", ["json", "csv", "coco", "geojson"])
def test_the_server_takes_uploads_whose_names_are_not_utf_8(work: Path, kind: str) -> None:
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    from segdet.serving.app import create_app
    from segdet.serving.settings import ServeConfig

    image = next((work / "set/images/val").iterdir()).read_bytes()
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="Br\xfccke.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    with TestClient(create_app(ServeConfig(model=[f"m={work / 'dark.onnx'}"]))) as client:
        answer = client.post(
            f"/v1/predict?format={kind}",
            content=head + image + b"\r\n--b--\r\n",
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
    assert answer.status_code == 200, answer.text
    assert "cke" in answer.content.decode("utf-8")
