"""Results join with ground truth, and other tools take the files for what they are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import segdet
from segdet.data import formats
from segdet.data.convert import convert
from segdet.errors import InvalidOption
from segdet.inference.io.coco_ids import Instances, keys_of, unique_names
from tests.conftest import Cli
from tests.detectors import COLOURS, blob_dataset, blob_model


@pytest.fixture(scope="module")
def coco_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO dataset that segdet wrote."""
    root = tmp_path_factory.mktemp("sets")
    convert(formats.read(blob_dataset(root / "blobs", 5)), root / "coco", "coco")
    return root / "coco"


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blob_model(tmp_path_factory.mktemp("models") / "blobs.onnx")


def test_results_load_against_the_ground_truth_that_segdet_wrote(
    cli: Cli, coco_set: Path, detector: Path, tmp_path: Path
) -> None:
    truth = coco_set / "annotations/instances_val.json"
    done = cli(
        "predict", coco_set / "images/val", "--model", detector, "--save", "coco", "--coco-ids", truth,
        "--out", tmp_path / "o",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    known = COCO(str(truth))
    found = known.loadRes(str(tmp_path / "o/predictions.coco.json"))
    scored = COCOeval(known, found, "bbox")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    assert scored.stats[1] > 0.99  # the detector finds what was drawn: ids of images and classes are right
    for row in found.loadAnns(found.getAnnIds()):
        assert row["file_name"] == known.loadImgs(row["image_id"])[0]["file_name"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": []}, "has no image val-0.png"),
        ({"categories": [{"id": 1, "name": "red"}]}, 'no category "green"'),
        ({"images": [{"id": 1, "file_name": "a/val-0.png"}, {"id": 2, "file_name": "b/val-0.png"}]}, "equally well"),
        ({"images": {"a": 1}}, "holds no COCO images"),
        ({"images": [{"id": 1}]}, "holds no COCO images"),
        (None, "holds no COCO images"),
        ("missing", "cannot be read"),
    ],
)
def test_what_cannot_join_is_refused_before_anything_is_written(
    cli: Cli, coco_set: Path, detector: Path, tmp_path: Path, change: Any, words: str
) -> None:
    truth, file = coco_set / "annotations/instances_val.json", tmp_path / "t.json"
    if change != "missing":
        file.write_text("[1" if change is None else json.dumps({**json.loads(truth.read_text()), **change}))
    done = cli(
        "predict", coco_set / "images/val", "--model", detector, "--save", "coco", "--coco-ids", file,
        "--out", tmp_path / "o",
    )  # fmt: skip
    assert done.returncode == 2 and not (tmp_path / "o").exists(), done.stdout
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("segdet: --coco-ids ") and words in line


def test_ids_of_a_file_without_coco_results_are_refused(
    cli: Cli, coco_set: Path, detector: Path, tmp_path: Path
) -> None:
    truth = coco_set / "annotations/instances_val.json"
    done = cli("predict", coco_set / "images/val", "--model", detector, "--coco-ids", truth, "--out", tmp_path / "o")
    assert done.returncode == 2 and "add coco to --save" in done.stderr


def test_the_longest_common_end_of_the_path_decides(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    names = ["north/wall.jpg", "south/wall.jpg", "wall.jpg", "C:\\photos\\pier.jpg", "http://host/x/dam.jpg"]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names, 10)]
    file.write_text(json.dumps({"images": images, "categories": [{"id": 0, "name": "crack"}]}))
    instances = Instances(file)
    for path, expected in (
        ("/any/north/wall.jpg", 10), ("/any/south/wall.jpg", 11), ("/any/photos/pier.jpg", 13), ("dam.jpg", 14),
    ):  # fmt: skip
        key = instances.key(Path(path), ["crack"])
        assert (key.image_id, key.categories) == (expected, (0,))
    with pytest.raises(InvalidOption, match="equally well"):
        instances.key(Path("/any/wall.jpg"), ["crack"])


def test_ids_without_ground_truth_are_unique() -> None:
    def ids(*names: str) -> list[int | str]:
        keys = keys_of(names)
        assert [key.file_name for key in keys] == list(names) and len({key.image_id for key in keys}) == len(names)
        return [key.image_id for key in keys]

    assert ids("000000000139.jpg", "wall.jpg") == [139, "wall"]
    assert ids("a/7.jpg", "b/007.jpg") == ["a/7", "b/007"]
    assert ids("wall.jpg", "wall.png", "wall.jpg") == ["wall", "wall.png", "wall.jpg"]
    assert ids("flight.mp4", "flight.jpg") == ["flight.mp4", "flight"]
    ids("", ".", "..", "/", "a/", "\udcff.jpg", ".jpg", "x" * 300)
    assert unique_names(["a.jpg", "a.png", "a.jpg", "a.jpg"]) == ["a", "a.png", "a.jpg", "a.jpg-2"]


def test_yolo_boxes_are_read_back_by_segdet(coco_set: Path, detector: Path, tmp_path: Path) -> None:
    model = segdet.load(detector)
    for folder in ("images/train", "labels/train"):
        (tmp_path / folder).mkdir(parents=True)
    count = 0
    for image in sorted((coco_set / "images/val").iterdir()):
        result = model.predict(image)
        os.link(image, tmp_path / "images/train" / image.name)
        (tmp_path / "labels/train" / f"{image.stem}.txt").write_text(result.to_yolo())
        count += len(result.boxes)
    (tmp_path / "data.yaml").write_text(f"train: images/train\nval: images/train\nnames: {list(COLOURS)}\n")
    dataset = formats.read(tmp_path)
    assert sum(len(record.instances) for record in dataset.splits["train"]) == count > 3
    assert not [problem for problem in dataset.problems if problem.kind == "malformed"]


def test_geojson_says_that_it_holds_pixels(coco_set: Path, detector: Path, tmp_path: Path) -> None:
    """GDAL takes GeoJSON for longitude and latitude unless its `crs` names another system."""
    result = segdet.load(detector).predict(coco_set / "images/val/val-3.png")
    content = result.to_geojson()
    assert content["crs"]["type"] == "name" and content["crs"]["properties"]["name"].startswith("ENGCRS[")
    assert len(content["features"]) == len(result.boxes) > 0
    pyogrio = pytest.importorskip("pyogrio")
    (tmp_path / "a.geojson").write_text(json.dumps(content))
    assert "4326" not in pyogrio.read_info(tmp_path / "a.geojson")["crs"]


def test_results_become_detections_of_supervision(coco_set: Path, detector: Path) -> None:
    supervision = pytest.importorskip("supervision")
    result = segdet.load(detector).predict(coco_set / "images/val/val-3.png")
    found = supervision.Detections(xyxy=result.boxes, confidence=result.scores, class_id=result.labels)
    assert len(found) == len(result.boxes) and np.allclose(
        found.area, [(b[2] - b[0]) * (b[3] - b[1]) for b in found.xyxy]
    )
