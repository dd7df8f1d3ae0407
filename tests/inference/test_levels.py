"""Coarser looks at large photographs: what is wider than in training is found, and nothing thin is marked wider."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import segdet
from segdet.data.records import Instance, Record
from segdet.errors import InputError
from segdet.inference.batch.job import run_job
from segdet.inference.io.sources import expand
from segdet.inference.predict import multiscale
from segdet.inference.predict.predictor import open_predictor
from segdet.inference.predict.results import SegmentationResult
from segdet.validation.run import validate
from tests.conftest import Cli
from tests.detectors import blob_model
from tests.segmenters import channel_model, thin_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return thin_model(tmp_path_factory.mktemp("models") / "thin.onnx", down_to=200)


def wall() -> np.ndarray:
    """400 x 600: a thin line, one that a half shows, and one that only a quarter shows."""
    image = np.full((400, 600, 3), 255, np.uint8)
    for x, thickness in ((80, 3), (250, 13), (450, 29)):
        cv2.line(image, (x, 0), (x + 60, 399), (0, 0, 0), thickness)
    return image


def shares(prediction: object) -> list[float]:
    """How much of each of the three lines is marked, and of the rest."""
    assert isinstance(prediction, SegmentationResult)
    dark, marked = wall()[..., 0] < 128, prediction.mask > 0
    parts = [slice(40, 190), slice(210, 360), slice(390, 580)]
    found = [float(marked[:, part][dark[:, part]].mean()) for part in parts]
    return [*found, float(marked[~dark].mean())]


def test_sides_halve_down_to_the_smallest() -> None:
    assert multiscale.sides((400, 600), 200) == [(200, 300)]
    assert multiscale.sides((3000, 4000), 400) == [(1500, 2000), (750, 1000), (375, 500)]
    assert multiscale.sides((416, 799), 400) == [] and multiscale.sides((1, 900), 400) == [(1, 450)]


def test_what_is_wider_than_in_training_is_found(model: Path) -> None:
    own = shares(open_predictor(model, device="cpu", multiscale_to=0).predict(wall()))
    assert own[0] > 0.95 and max(own[1:]) < 0.02
    as_exported = shares(open_predictor(model, device="cpu").predict(wall()))
    assert min(as_exported[:2]) > 0.9 and as_exported[2] < 0.02 and as_exported[3] < 0.01
    further = shares(open_predictor(model, device="cpu", multiscale_to=100).predict(wall()))
    assert min(further[:3]) > 0.85 and further[3] < 0.015


def test_thin_things_are_marked_as_before(model: Path) -> None:
    thin = np.full((600, 900, 3), 255, np.uint8)
    for x in (100, 400, 700):
        cv2.line(thin, (x, 0), (x + 90, 599), (0, 0, 0), 5)
    with_looks, without = (open_predictor(model, device="cpu", multiscale_to=n).predict(thin) for n in (150, 0))
    assert isinstance(with_looks, SegmentationResult) and isinstance(without, SegmentationResult)
    assert (with_looks.mask == without.mask).all() and without.mask.any()


def test_confidence_is_the_same_whatever_threshold_is_asked_for(model: Path) -> None:
    faint = wall()
    faint[:, :200][faint[:, :200] < 128] = 140  # confidence 0.45: below the stored 0.5
    stored = open_predictor(model, device="cpu").predict(faint)
    asked = open_predictor(model, threshold=0.4, device="cpu").predict(faint)
    assert isinstance(stored, SegmentationResult) and isinstance(asked, SegmentationResult)
    assert (asked.confidence == stored.confidence).all()
    assert (asked.mask == (asked.confidence >= np.float32(0.4))).all()
    assert shares(stored)[0] == 0 and shares(asked)[0] > 0.95 and shares(asked)[1] > 0.9


def test_tiles_resized_images_and_jobs_look_again_too(model: Path, tmp_path: Path) -> None:
    tiled = shares(open_predictor(model, device="cpu", tile=256).predict(wall()))
    assert min(tiled[:2]) > 0.9 and tiled[2] < 0.02
    big = cv2.resize(wall(), (1200, 800), interpolation=cv2.INTER_NEAREST)
    resized = open_predictor(model, device="cpu", imgsz=600).predict(big)
    assert isinstance(resized, SegmentationResult) and resized.mask.shape == (800, 1200)
    assert (resized.mask[:, 420:720] > 0).mean() > 0.03  # the middle line
    Image.fromarray(wall()).save(tmp_path / "wall.png")
    run_job(
        open_predictor(model, device="cpu"), expand([str(tmp_path / "wall.png")]), tmp_path / "out", ("mask", "json")
    )
    assert json.loads((tmp_path / "out/predictions.json").read_text())["down_to"] == 200
    with pytest.raises(InputError, match="made with another down_to"):
        once = open_predictor(model, device="cpu", multiscale_to=0)
        run_job(once, expand([str(tmp_path / "wall.png")]), tmp_path / "out", ("mask", "json"), skip_done=True)
    expected = segdet.load(model, device="cpu").predict(wall())
    assert isinstance(expected, SegmentationResult)
    assert (np.asarray(Image.open(tmp_path / "out/wall_mask.png")) == expected.mask).all()


def test_val_measures_what_predict_gives(model: Path, tmp_path: Path) -> None:
    image, truth = wall(), wall()[..., 0] < 128
    Image.fromarray(image).save(tmp_path / "wall.png")
    lines = [
        np.array([[x - w, 0], [x + w, 0], [x + 60 + w, 400], [x + 60 - w, 400]])
        for x, w in ((80, 1), (250, 6.5), (450, 14))
    ]
    shapes = tuple(Instance(0, (line.astype(np.float32),), (0, 0, 600, 400)) for line in lines)
    record = Record(tmp_path / "wall.png", 600, 400, shapes, "wall")
    recall = {}
    for name, file in (("again", model), ("once", thin_model(tmp_path / "once.onnx"))):
        recall[name] = validate(file, [record], "test", workers=0).metrics["recall"]
        found = segdet.load(file, device="cpu").predict(image)
        assert isinstance(found, SegmentationResult)
        assert recall[name] == pytest.approx((found.mask > 0)[truth].mean(), abs=0.06)
    assert recall["again"] > recall["once"] + 0.2


def test_coarser_looks_are_refused_where_they_cannot_be(model: Path, tmp_path: Path, cli: Cli) -> None:
    for other in (channel_model(tmp_path / "c.onnx"), blob_model(tmp_path / "d.onnx")):
        with pytest.raises(InputError, match="only for segmentation models of one class"):
            open_predictor(other, device="cpu", multiscale_to=200)
        open_predictor(other, device="cpu", multiscale_to=0)
    with pytest.raises(InputError, match="multiscale_to=9: must be at least 32"):
        open_predictor(model, device="cpu", multiscale_to=9)
    Image.fromarray(wall()).save(tmp_path / "wall.png")
    done = cli("predict", "wall.png", "--model", model, "--multiscale-to", "-1", cwd=tmp_path)
    assert done.returncode == 2 and "--multiscale-to" in done.stderr


def test_hairlines_are_not_found_anew_from_farther_away() -> None:
    """A line two pixels wide fades in the average of a cell; it is known all the same, and not marked wide."""
    confidence = np.zeros((1600, 1600), np.float32)
    confidence[:, 800:802] = 0.95
    image = np.zeros((1600, 1600, 3), np.uint8)

    def look(small: np.ndarray) -> np.ndarray:
        height, width = small.shape[:2]
        seen = np.zeros((height, width), np.float32)
        seen[:, width // 2 - 2 : width // 2 + 3] = 0.99
        seen[:, width // 5 : width // 5 + 8] = 0.99  # and something that only shows from there
        return seen

    found = multiscale.looked_again(image, confidence, 200, look)
    assert (found[:, 600:1000] == confidence[:, 600:1000]).all()
    assert (found[:, 324:340] > 0.9).all()
