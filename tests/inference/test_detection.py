"""Prediction with a detection model: boxes, tiles, pictures and files, without PyTorch."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import segdet
from segdet import drawing
from segdet.errors import InputError
from segdet.inference.backends.select import open_session
from segdet.inference.predict import tiling
from segdet.inference.predict.results import DetectionResult
from tests.conftest import ROOT, Cli
from tests.detectors import COLOURS, blob_model, blob_picture


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blob_model(tmp_path_factory.mktemp("exports") / "blobs.onnx")


def _result(
    *rows: tuple[float, float, float, float, float, int], size: tuple[int, int] = (100, 200)
) -> DetectionResult:
    table = np.array(rows, np.float32).reshape(-1, 6)
    image = np.full((*size, 3), 120, np.uint8)
    return DetectionResult(image, table[:, :4], table[:, 4], table[:, 5].astype(np.int64), COLOURS, 0.5)


def test_detecting_imports_no_torch(model: Path, tmp_path: Path) -> None:
    Image.fromarray(blob_picture({"red": (3, 4, 50, 60)})).save(tmp_path / "a.png")
    code = (
        "import sys, segdet\n"
        f"p = segdet.load({str(model)!r}).predict({str(tmp_path / 'a.png')!r})\n"
        "assert p.boxes.tolist() == [[3, 4, 50, 60]], p.boxes\n"
        "p.overlay()\n"
        "heavy = {'torch', 'torchvision', 'timm', 'accelerate', 'albumentations', 'matplotlib', 'skimage', 'scipy', 'onnx',"
        " 'faster_coco_eval'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_boxes_from_the_threshold_on(model: Path) -> None:
    image = blob_picture({"red": (0, 0, 10, 20), "green": (30, 40, 60, 90), "blue": (100, 5, 200, 100)})
    found = segdet.load(model).predict(image)
    assert isinstance(found, DetectionResult) and found.size == (100, 200) and found.threshold == 0.5
    assert found.boxes.tolist() == [[0, 0, 10, 20], [30, 40, 60, 90], [100, 5, 200, 100]]
    assert found.labels.tolist() == [0, 1, 2] and found.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert segdet.load(model, threshold=0.75).predict(image).counts == {"red": 1, "green": 1, "blue": 0}
    nothing = segdet.load(model).predict(blob_picture({}))
    assert nothing.boxes.shape == (0, 4) and nothing.to_dict()["detections"] == []


@pytest.mark.parametrize("tile", [80, 96, 128])
def test_tiles_find_what_the_whole_image_holds(model: Path, tile: int) -> None:
    """Small objects anywhere: inside a tile, in the overlap of two or four, and at the image's edge."""
    rng = np.random.default_rng(tile)
    session = open_session(model, "cpu")
    largest = 2 * min(tiling.MARGIN, tile // 8) - 4  # fits whole into some tile wherever it lies
    for _ in range(12):
        rectangles = {}
        for name in COLOURS:
            x, y = int(rng.integers(0, 300 - largest)), int(rng.integers(0, 200 - largest))
            w, h = (int(v) for v in rng.integers(4, largest, 2))
            rectangles[name] = (x, y, x + w, y + h)
        boxes, scores, labels = tiling.detect_tiled(session, blob_picture(rectangles, 200, 300), 0.5, tile)
        assert labels.tolist() == [0, 1, 2] and scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
        assert boxes.tolist() == [list(rectangles[name]) for name in COLOURS]


def test_boxes_of_different_tiles_are_merged_by_the_stated_rule() -> None:
    boxes = np.array(
        [
            [0, 0, 40, 40],  # 0: whole, tile 0
            [1, 1, 41, 41],  # 1: the same object seen from tile 1, surer: stays instead of 0
            [2, 2, 42, 42],  # 2: again in tile 1, which answers for itself: stays
            [0, 0, 40, 40],  # 3: another class: stays
            [5, 5, 25, 40],  # 4: cut, from tile 2, three quarters and more inside: goes, however sure
            [5, 5, 25, 40],  # 5: as 4 but whole: another object inside, stays
            [30, 30, 80, 80],  # 6: cut, little of it inside: stays
        ],
        np.float32,
    )
    scores = np.array([0.6, 0.7, 0.65, 0.6, 0.99, 0.6, 0.6], np.float32)
    labels = np.array([0, 0, 0, 1, 0, 0, 0])
    cut = np.array([False, False, False, False, True, False, True])
    tiles = np.array([0, 1, 1, 0, 2, 2, 2])
    kept = tiling._merged(boxes, scores, labels, cut, tiles)
    assert sorted(kept.tolist()) == [1, 2, 3, 5, 6]
    assert scores[kept].tolist() == sorted(scores[kept].tolist(), reverse=True)


def test_detection_shrinks_large_images_inside_the_graph_unless_tiles_are_asked_for(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    image = blob_picture({"red": (2000, 1500, 2040, 1530)}, 1700, 2500)
    for tile in ("auto", "off", 1024):
        predictor = segdet.load(model, tile=tile)
        run = predictor.session.run
        monkeypatch.setattr(
            predictor.session, "run", lambda images, run=run: (seen.append(images.shape), run(images))[1]
        )
        assert predictor.predict(image).boxes.tolist() == [[2000, 1500, 2040, 1530]]
    assert seen[:2] == [(1, 1700, 2500, 3)] * 2 and set(seen[2:]) == {(1, 1024, 1024, 3)}


@pytest.mark.parametrize("size", [(24, 40), (100, 200), (900, 1400), (3000, 60)])
def test_overlays_show_every_box_and_name_at_any_size(size: tuple[int, int]) -> None:
    height, width = size
    whole = _result((0, 0, width, height, 0.9, 0), (width / 2, height / 2, width, height, 0.8, 1), size=size)
    painted = whole.overlay()
    factor = painted.shape[0] // height
    assert painted.shape == (height * factor, width * factor, 3) and painted.dtype == np.uint8
    assert max(painted.shape[:2]) >= 640 and (factor == 1 or max(painted.shape[:2]) < 1280)
    for label in (0, 1):  # lines and plates in the class's colour, letters on them in black or white
        share = (painted == drawing.colour_of(label)).all(axis=2).mean()
        assert 0.0005 < share < 0.6, share
    assert ((painted == 255).all(axis=2) | (painted == 0).all(axis=2)).any()
    assert (_result(size=size).overlay()[:: max(1, factor), :: max(1, factor)] == 120).all()


def test_one_job_writes_every_form(cli: Cli, model: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "sub").mkdir(parents=True)
    Image.fromarray(blob_picture({"red": (10, 20, 50, 60), "blue": (100, 0, 200, 50)})).save(
        photos / "000000000139.png"
    )
    Image.fromarray(blob_picture({})).save(photos / "sub" / "empty, nothing.png")
    (photos / "torn.jpg").write_bytes(b"\xff\xd8torn")
    done = cli(
        "predict",
        photos,
        "--model",
        model,
        "--out",
        "out",
        "--save",
        "overlay,json,csv,coco,yolo",
        "--json",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told["images"]) == 2 and list(told["skipped"]) == [str(photos / "torn.jpg")]
    out = tmp_path / "out"
    written = {str(path.relative_to(out)) for path in out.rglob("[!.]*") if path.is_file()}
    assert written == {
        "000000000139_overlay.png", "sub/empty, nothing_overlay.png", "labels/000000000139.txt",
        "labels/sub/empty, nothing.txt", "predictions.json", "predictions.csv", "predictions.coco.json",
    }  # fmt: skip
    content = json.loads((out / "predictions.json").read_text())
    assert content["classes"] == list(COLOURS) and list(content["skipped"]) == [str(photos / "torn.jpg")]
    first = content["images"][0]
    assert first["classes"] == {"red": 1, "green": 0, "blue": 1}
    assert first["detections"][0] == {"class": "red", "label": 0, "score": 0.9, "box": [10.0, 20.0, 50.0, 60.0]}
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert [(Path(r["image"]).name, r["class"], float(r["score"]), float(r["x2"])) for r in rows] == [
        ("000000000139.png", "red", 0.9, 50.0), ("000000000139.png", "blue", 0.7, 200.0),
    ]  # fmt: skip
    name = {"image_id": 139, "file_name": "000000000139.png"}
    assert json.loads((out / "predictions.coco.json").read_text()) == [
        {**name, "category_id": 1, "bbox": [10.0, 20.0, 40.0, 40.0], "score": 0.9},
        {**name, "category_id": 3, "bbox": [100.0, 0.0, 100.0, 50.0], "score": 0.7},
    ]
    lines = [line.split() for line in (out / "labels/000000000139.txt").read_text().splitlines()]
    assert [[float(v) for v in line] for line in lines] == [
        [0, 0.15, 0.4, 0.2, 0.4], [2, 0.75, 0.25, 0.5, 0.5],
    ]  # fmt: skip
    assert (out / "labels/sub/empty, nothing.txt").read_text() == ""


def test_the_usual_files_the_sentence_and_what_cannot_be_written(cli: Cli, model: Path, tmp_path: Path) -> None:
    Image.fromarray(blob_picture({"red": (10, 20, 50, 60), "blue": (0, 0, 9, 9)})).save(tmp_path / "a.png")
    done = cli("predict", "a.png", "--model", model, "--conf", "0.8", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0 and "a.png: 1 red (model" in done.stdout
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == {"a_overlay.png", "predictions.json"}
    refused = cli("predict", "a.png", "--model", model, "--save", "json,mask", "--out", "none", cwd=tmp_path)
    assert refused.returncode == 2 and not (tmp_path / "none").exists()
    assert (
        refused.stderr.strip()
        == "segdet: --save mask: a detection model writes any of overlay,json,csv,coco,geojson,yolo"
    )


def test_a_model_that_breaks_the_contract_of_its_task_is_refused(model: Path, tmp_path: Path) -> None:
    renamed = onnx.load(model)
    renamed.graph.output[1].name = "confidences"
    for node in renamed.graph.node:
        node.output[:] = ["confidences" if name == "scores" else name for name in node.output]
    onnx.save(renamed, tmp_path / "renamed.onnx")
    blob_model(tmp_path / "other.onnx", task="pose")
    blob_model(tmp_path / "masks.onnx", task="segmentation")
    for name, message in (
        ("renamed", "not those of the segdet contract"),
        ("other", "a pose model"),
        ("masks", "contract"),
    ):
        with pytest.raises(InputError, match=message):
            open_session(tmp_path / f"{name}.onnx")
