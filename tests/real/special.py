"""Cases whose README expects more than counts and words. Each function returns why it does not hold, or ""."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile

from segdet.data import formats
from segdet.data.images import ImageError, encode_jpeg, read_image
from segdet.errors import SegdetError
from tests.drawn import crack_picture
from tests.real.harness import ROOT, UNET, Place, Result, Skipped

_MODEL = ROOT / "exports" / "crack.onnx"


def make_link(place: Place) -> None:
    """The folder holds the link as a text file; make it a link."""
    link = place.data / "images" / "train" / "siteA"
    if not link.is_symlink():
        target = link.read_text().strip()
        link.unlink()
        link.symlink_to(target)


def make_latin1(place: Place) -> None:
    """Write the files with Latin-1 names, which not every archive or share can hold."""
    folder = place.work / "data" / "latin1"
    subprocess.run([sys.executable, str(place.data / "make.py"), str(folder)], check=True)
    place.data = folder


def one_class(place: Place) -> str:
    classes = place.described.get("classes", [])
    return "" if len(classes) == 1 else f"classes {classes}"


def no_complaint(place: Place) -> str:
    if place.check.code != 0:
        return f"check ends with {place.check.code}"
    return "says that the colour is ignored" if "ignored" in place.info.text + place.check.text else ""


def trains(place: Place) -> str:
    result = place.train(limit=6)
    detector = place.train("dfine", limit=6) if result.code and "box" in result.last else result
    return "" if detector.code == 0 and place.weights else f"train (exit {detector.code}): {detector.last}"


def same_names(place: Place) -> str:
    """Every record's boxes are those of its own site's JSON file."""
    dataset = formats.read(place.data)
    if not any(dataset.splits.values()):
        return "no image was read"
    for record in (record for records in dataset.splits.values() for record in records):
        site = record.image.parent.name
        content = json.loads((place.data / "json" / site / f"{record.image.stem}.json").read_bytes())
        points = [np.asarray(shape["points"]) for shape in content["shapes"]]
        own = sorted([*one.min(axis=0), *one.max(axis=0)] for one in points)
        boxes = sorted(list(instance.box) for instance in record.instances)
        if len(own) != len(boxes) or not np.allclose(own, boxes, atol=1):
            return f"{site}/{record.image.name} carries other labels"
    return ""


def pose_boxes(place: Place) -> str:
    """No outline, and the box of every row is made of its first four numbers."""
    try:
        dataset = formats.read(place.data)
    except SegdetError as error:
        return f"refused: {error}"
    for record in (record for records in dataset.splits.values() for record in records):
        if record.outlined:
            return f"{record.image.name}: keypoints became an outline"
        rows = (place.data / "labels" / record.image.parent.name / f"{record.image.stem}.txt").read_text().splitlines()
        size = np.array([record.width, record.height, record.width, record.height])
        values = np.array([[float(word) for word in row.split()[1:5]] for row in rows])
        corners = np.concatenate([values[:, :2] - values[:, 2:] / 2, values[:, :2] + values[:, 2:] / 2], axis=1) * size
        boxes = np.array([instance.box for instance in record.instances])
        if boxes.shape != corners.shape or not np.allclose(np.sort(boxes, 0), np.sort(corners, 0), atol=1.5):
            return f"{record.image.name}: boxes {boxes.tolist()}"
    return "" if any(dataset.splits.values()) else "no image was read"


def voc_lists(place: Place) -> str:
    seen = place.described
    if not seen:
        return f"refused: {place.info.last}"
    images = sum(row["images"] for row in seen["splits"].values())
    if images != 3 or sorted(seen["classes"]) != ["Riß", "spalling"]:
        return f"{images} images, classes {seen['classes']}"
    return "" if all(seen["objects"].values()) else f"objects {seen['objects']}"


def _reads_as(file: Path, pictures: list[np.ndarray], refusal: str) -> str:
    """The file's pixels are one of the pictures (one step of rounding), or it is refused with `refusal` in the message."""
    try:
        pixels = read_image(file)
    except ImageError as error:
        return "" if re.search(refusal, str(error), re.IGNORECASE) else f"refused without the reason: {error}"
    off = [int(np.abs(pixels.astype(int) - one).max()) for one in pictures if one.shape == pixels.shape]
    if not off:
        return f"{file.name}: shape {pixels.shape}"
    return "" if min(off) <= 1 else f"{file.name}: up to {min(off)} grey values off"


def _all_read(place: Place, whys: list[str]) -> str:
    if any(whys):
        return "; ".join(filter(None, whys))
    result = place.run("predict", place.data, "--model", _MODEL, "--out", place.work / "out", "--imgsz", 64)
    return "" if result.clean else result.last


def planar(place: Place) -> str:
    same = read_image(place.data / "same_picture.png")
    return _all_read(place, [_reads_as(file, [same], ".") for file in sorted(place.data.glob("*.tif"))])


def minisblack(place: Place) -> str:
    """The first three bands, by the picture or by tifffile's reading of them: 65535 or 1.0 is white."""
    refusal = r"(bands|channels|samples).*(16|32|float|int)|(16|32|float|int).*(bands|channels|samples)"
    same, whys = read_image(place.data / "same_picture.png"), []
    for file in sorted(place.data.glob("*.tif")):
        bands = tifffile.imread(file)
        bands = bands.transpose(1, 2, 0) if bands.shape[0] < bands.shape[2] else bands
        white = 65535 if bands.dtype.kind == "u" else 1.0
        whys.append(_reads_as(file, [same, np.round(bands[..., :3] / white * 255).astype(int)], refusal))
    return _all_read(place, whys)


def nothing_to_measure(place: Place) -> str:
    """For both tasks: refused before the first epoch, or usable weights and a word that nothing could be measured."""
    for arch in ("dfine", "unet"):
        before = len(place.weights)
        result = place.train(arch)
        if result.code:
            if "epoch 1/" in result.text or not re.search(r"object|label", result.last):
                return f"{arch}: {result.last}"
        elif len(place.weights) == before or not re.search(r"nothing (to|can|could)|not (be )?measured", result.text):
            return f"{arch}: trained without a word that nothing can be measured"
    return ""


def endings(place: Place) -> str:
    videos = sorted(path for path in place.data.iterdir() if path.name != "README")
    out = place.work / "out"
    result = place.run("predict", *videos, "--model", _MODEL, "--out", out, "--imgsz", 64, "--save", "json")
    if result.code:
        return f"exit {result.code}: {result.last}"
    rows = json.loads((out / "predictions.json").read_text())["images"]
    lacks = [video.name for video in videos if not any(video.name in row["image"] for row in rows)]
    return f"no frame of {', '.join(lacks)}" if lacks else ""


def frame_times(place: Place) -> str:
    out = place.work / "out"
    video = place.data / "vfr.mp4"
    result = place.run("predict", video, "--model", _MODEL, "--out", out, "--imgsz", 64, "--save", "json")
    if result.code:
        return f"exit {result.code}: {result.last}"
    rows = json.loads((out / "predictions.json").read_text())["images"]
    times = [row.get("time") for row in rows]
    known = [0, 0.033, 0.066, 0.1, 1.1, 2.1, 3.1, 3.133]
    if len(times) == len(known) and np.allclose([float(time) for time in times], known, atol=0.002):
        return ""
    return "" if re.search(r"(frame )?rate .*var|variable (frame )?rate", result.text) else f"times {times}"


def _val_and_predict(place: Place) -> list[list[object]]:
    runs, out = place.work / "runs", place.work / "out"
    (place.work / "tiny.json").write_text(json.dumps(UNET))
    train = ["train", "unet", "--config", "tiny.json", "--data", place.data, "--out", runs, "--name", "run"]
    weights = runs / "run" / "weights" / "best.safetensors"
    return [
        ["data", "info", place.data],
        ["data", "check", "--quick", place.data, "--out", place.work / "check"],
        train,
        ["val", weights, "--data", place.data],
        ["predict", place.data / "images" / "train", "--model", _MODEL, "--out", out, "--imgsz", 64, "--save", "json,csv"],
    ]  # fmt: skip


def latin1(place: Place) -> str:
    commands = _val_and_predict(place)
    for command, result in zip(commands, place.process(*commands, PYTHONUTF8="0", LC_ALL="C.UTF-8"), strict=False):
        if _only_findings(command, result):
            continue
        if result.code and "ckke" not in result.last and "Br" not in result.last:
            return f"exit {result.code}: {result.last}"
        if result.code:  # one clear line that names the file
            return ""
    table = (place.work / "out" / "predictions.csv").read_bytes().decode("utf-8", "replace")
    rows = json.loads((place.work / "out" / "predictions.json").read_text())["images"]
    return (
        "" if len(rows) == 2 and len(list(csv.reader(table.splitlines()))) >= 1 else f"{len(rows)} rows of 2 pictures"
    )


def no_home(place: Place) -> str:
    yolo = place.source.parent / "list-of-folders"
    if not yolo.is_dir():
        raise Skipped("list-of-folders is not there")
    place = Place(yolo, place.work / "no-home")
    for folder in (place.work, place.work.parent):
        folder.chmod(0o777)
    commands = _val_and_predict(place)
    weights = place.work / "runs" / "run" / "weights" / "best.safetensors"
    commands += [["export", weights, "--out", place.work / "model.onnx"], ["doctor"]]
    results = place.process(*commands, user=23456, HOME=None, SEGDET_CACHE=None, XDG_CACHE_HOME=None)
    return "; ".join(
        f"{command[0]} (exit {result.code}): {result.last}"
        for command, result in zip(commands, results, strict=False)
        if (result.code and not _only_findings(command, result)) or not result.clean
    )


def _only_findings(command: list[object], result: Result) -> bool:
    return command[:2] == ["data", "check"] and result.code == 1 and "error" in result.out


def telemetry(place: Place) -> str:
    home = place.work / "home"
    home.mkdir()
    (place.work / "photo.jpg").write_bytes(encode_jpeg(crack_picture(1)[0]))
    [result] = place.process(
        ["predict", "photo.jpg", "--model", _MODEL, "--out", "o"],
        HOME=str(home), SEGDET_CACHE=None, XDG_CACHE_HOME=None, ORT_DISABLE_TELEMETRY=None,
    )  # fmt: skip
    if result.code:
        return f"exit {result.code}: {result.last}"
    files = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    others = [name for name in files if not name.startswith(".cache/segdet/")]
    return f"left {', '.join(others)}" if others else ""


def specks(place: Place) -> str:
    """`measure.py` prints the growth of memory in GB; four times the specks may not cost more."""
    grown = []
    for count in (25, 100):
        done = subprocess.run(
            [sys.executable, str(place.data / "measure.py"), str(count)],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        match = re.search(r"peak \+ ([\d.]+) GB", done.stdout)
        if match is None:
            return f"measure.py ends with {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1]}"
        grown.append(float(match[1]))
    return "" if grown[1] - grown[0] < 0.1 else f"+{grown[0]} GB with 25 specks, +{grown[1]} GB with 100"
