"""Prediction without PyTorch: results, tiles, sources, and which model is meant."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from PIL import Image

import segdet
from segdet.data.geometry.rasterize import binary, coverage
from segdet.errors import InputError, InvalidOption
from segdet.inference.backends import nvidia
from segdet.inference.backends.select import open_session
from segdet.inference.io.raster import ArrayPicture
from segdet.inference.io.sources import expand
from segdet.inference.locate_model import find_model
from segdet.inference.predict import tiling
from segdet.inference.predict.predictor import open_predictor
from segdet.inference.predict.results import SegmentationResult
from tests.conftest import ROOT
from tests.detectors import blob_model
from tests.drawn import crack_picture
from tests.segmenters import channel_model, dark_model


def _prediction(mask: np.ndarray, classes: tuple[str, ...] = ("crack",)) -> SegmentationResult:
    image = np.full((*mask.shape, 3), 120, np.uint8)
    return SegmentationResult(image, mask.astype(np.uint8), np.full(mask.shape, 0.75, np.float32), classes, 0.5)


def test_predicting_imports_no_torch(exported: Path, walls: Path, tmp_path: Path) -> None:
    image = sorted((walls / "images" / "val").iterdir())[0]
    code = (
        "import sys, segdet\n"
        f"p = segdet.load({str(exported)!r}).predict({str(image)!r})\n"
        "assert p.mask.any()\n"
        "heavy = {'torch', 'torchvision', 'timm', 'accelerate', 'albumentations', 'matplotlib', 'skimage', 'scipy', 'onnx'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_paths_bytes_and_arrays_give_the_same_answer(exported: Path, walls: Path) -> None:
    image = sorted((walls / "images" / "val").iterdir())[0]
    predictor = segdet.load(exported)
    first = predictor.predict(image)
    for other in (str(image), image.read_bytes(), np.asarray(Image.open(image))):
        assert (predictor.predict(other).mask == first.mask).all()
    with pytest.raises(InputError, match="RGB uint8"):
        predictor.predict(np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize("seed", range(5))
def test_outlines_give_the_mask_back(seed: int) -> None:
    _, polygons = crack_picture(seed, 96, 96)
    mask = binary(coverage(polygons, 96, 96))
    mask[40:60, 40:60], mask[45:50, 45:50] = True, False  # a part with a hole
    prediction = _prediction(mask)
    again = np.zeros_like(mask)
    for region in prediction.regions:
        outer = [p for p in region.polygons if _signed_area(p) > 0]
        holes = [p for p in region.polygons if _signed_area(p) < 0]
        again |= binary(coverage(outer, 96, 96)) & ~binary(coverage(holes, 96, 96))
    assert (again == mask).mean() > 0.999
    assert sum(region.area for region in prediction.regions) == mask.sum() == prediction.areas["crack"]


def _signed_area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def test_a_prediction_as_json_png_and_overlay() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:8, 2:12], mask[15, 20] = 1, 2
    prediction = _prediction(mask, ("crack", "stain"))
    plain = json.loads(json.dumps(prediction.to_dict()))
    assert plain["classes"]["crack"] == {"pixels": 30, "share": 0.05}
    assert [(r["class"], r["box"], r["area"]) for r in plain["regions"]] == [
        ("crack", [2, 5, 12, 8], 30),
        ("stain", [20, 15, 21, 16], 1),
    ]
    picture = Image.open(io.BytesIO(prediction.mask_png()))
    assert picture.mode == "P" and (np.asarray(picture) == mask).all()
    assert np.asarray(picture.convert("RGB"))[6, 5].tolist() != [0, 0, 0]
    painted = prediction.overlay()
    assert (painted[0, 0] == 120).all() and (painted[6, 5] != 120).any() and painted.shape == (20, 30, 3)


def test_tiles_equal_the_whole_away_from_seams(exported: Path) -> None:
    session = open_session(exported, "cpu")
    image, _ = crack_picture(4, 900, 1300)
    _, whole = (output[0] for output in session.run(image[None]))
    tiled_mask, tiled = tiling.run_tiled(session, image, session.metadata.threshold or 0.5, 512)
    difference = np.abs(tiled - whole)
    assert tiled.shape == whole.shape and difference.mean() < 2e-3
    whole_mask = whole >= np.float32(session.metadata.threshold)
    assert (tiled_mask.astype(bool) != whole_mask).mean() < 1e-3


@pytest.mark.parametrize("size", [(100, 100), (512, 513), (1500, 60), (700, 1100)])
def test_every_pixel_lies_in_a_tile_and_neighbours_overlap(size: tuple[int, int]) -> None:
    seen = np.zeros(size, int)
    for rows, columns in tiling._windows(*size, 512, 128):
        assert rows.stop - rows.start <= 512 and columns.stop - columns.start <= 512
        seen[rows, columns] += 1
    assert seen.min() >= 1
    if max(size) > 512:
        assert seen.max() >= 2


def test_tile_and_threshold_are_checked(exported: Path) -> None:
    for options, message in (
        ({"tile": "x"}, "tile=x: must be auto, off"),
        ({"tile": 8}, "tile=8: must be"),
        ({"threshold": 1.5}, "threshold=1.5: must be between 0 and 1"),
        ({"device": "tpu"}, "device=tpu: no such device; use auto, cpu"),
    ):
        with pytest.raises(InvalidOption, match=message) as caught:
            open_predictor(exported, **options)
        assert {caught.value.field: caught.value.value} == options


def test_the_threshold_decides(exported: Path, walls: Path) -> None:
    image = sorted((walls / "images" / "val").iterdir())[0]
    areas = [segdet.load(exported, threshold=t).predict(image).areas["crack"] for t in (0.01, 0.5, 0.99)]
    assert areas[0] > areas[1] > areas[2]


def test_a_threshold_of_zero_marks_everything_whole_and_in_tiles(tmp_path: Path) -> None:
    model, white = dark_model(tmp_path / "dark.onnx"), np.full((200, 300, 3), 255, np.uint8)  # sure of no pixel
    for tile in ("off", 128):
        predictor = open_predictor(model, 0.0, tile, "cpu")
        found = predictor.predict(white)
        assert isinstance(found, SegmentationResult) and found.threshold == 0.0 and found.mask.all(), tile
        assert all(mask.all() for _, _, mask, _ in predictor.bands(ArrayPicture(white))), tile


def test_a_gpu_that_is_not_there_is_an_error(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the CPU build of ONNX Runtime, or with the GPU build that silently falls back to the CPU."""
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InputError, match=r"device=cuda.*segdet\[gpu\]"):
        open_session(exported, "cuda")
    claimed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(nvidia, "driver", lambda: nvidia.Driver(1, (13, 0)))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: claimed)
    fallen_back = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: fallen_back)
    with pytest.raises(
        InputError, match="CUDAExecutionProvider could not be started and CPUExecutionProvider would run"
    ):
        open_session(exported, "cuda")


def test_files_that_are_not_ours_are_refused(tmp_path: Path, exported: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    foreign = onnx.load(exported)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    damaged = onnx.load(exported)
    damaged.metadata_props[0].value = '{"schema": 7}'
    onnx.save(damaged, tmp_path / "future.onnx")
    for name, message in (
        ("junk", "not an ONNX file"),
        ("foreign", "not a segdet model"),
        ("future", "schema"),
        ("none", "no such model file"),
    ):
        with pytest.raises(InputError, match=message):
            open_session(tmp_path / f"{name}.onnx")


def test_sources_are_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png", "sub/c.JPG", "sub/a.png", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [s.name for s in expand([str(tmp_path)])] == ["a", "b", "sub/a", "sub/c"]
    assert [s.name for s in expand([str(tmp_path / "*.jpg"), str(tmp_path / "a.jpg")])] == ["a"]
    assert [s.name for s in expand([str(tmp_path / "**/a.*")])] == ["a", "a.png"]
    (tmp_path / "empty").mkdir()
    for source, message in (
        ("empty", "no image in that folder"),
        ("none.jpg", "no such file"),
        ("*.webp", "nothing matches"),
    ):
        with pytest.raises(InputError, match=message):
            expand([str(tmp_path / source)])


def test_which_model_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("segdet.inference.locate_model._SHIPPED", ())
    with pytest.raises(InputError, match=r"no model: none in \./exports or \./runs"):
        find_model()

    def make(name: str, age: int) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        os.utime(path, (age, age))

    make("runs/one/weights/best.onnx", 300)
    assert find_model() == Path("runs/one/weights/best.onnx")
    make("exports/old.onnx", 100)
    make("exports/new.onnx", 200)
    make("exports/.unfinished.onnx", 900)
    assert find_model() == Path("exports/new.onnx")
    assert find_model("runs/one") == Path("runs/one/weights/best.onnx")
    make("exports/two.onnx", 50)
    (tmp_path / "runs/two").mkdir()
    assert find_model("runs/two") == Path("exports/two.onnx")


def test_the_model_that_ships_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where somebody works in segdet's own folder, whose exports/ holds it."""
    shipped = tmp_path / "exports" / "crack.onnx"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("segdet.inference.locate_model._SHIPPED", (shipped, tmp_path / "none" / "crack.onnx"))
    shipped.parent.mkdir()
    shipped.write_bytes(b"")
    assert find_model() == shipped
    own = tmp_path / "runs" / "mine" / "model.onnx"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"")
    os.utime(own, (1, 1))
    assert find_model() == Path("runs/mine/model.onnx")
    mine = tmp_path / "exports" / "mine.onnx"
    mine.write_bytes(b"")
    os.utime(mine, (2, 2))
    assert find_model() == Path("exports/mine.onnx")


@pytest.mark.parametrize("classes", [1, 2])
def test_imgsz_shows_the_network_another_size_and_answers_at_the_images_own(classes: int, tmp_path: Path) -> None:
    model = (dark_model if classes == 1 else channel_model)(tmp_path / "model.onnx")
    fine = np.full((90, 180, 3), (250, 200, 100), np.uint8)
    fine[20:60, 30:110] = (0, 0, 90) if classes == 1 else (0, 0, 250)  # large
    fine[::5, 150:] = (0, 0, 90) if classes == 1 else (0, 0, 250)  # lines that only its own size shows
    own = open_predictor(model, device="cpu").predict(fine)
    seen = open_predictor(model, device="cpu", imgsz=60).predict(fine)
    assert isinstance(own, SegmentationResult) and isinstance(seen, SegmentationResult)
    assert seen.mask.shape == seen.confidence.shape == (90, 180) and seen.image is fine
    kind = 1 if classes == 1 else 2
    assert (own.mask[:, 150:] == kind).any() and not (seen.mask[:, 150:] == kind).any()
    assert (seen.mask[24:56, 34:106] == kind).all() and not (seen.mask[:14] == kind).any()
    if classes == 1:
        assert (seen.mask == (seen.confidence >= 0.5)).all()
    same = open_predictor(model, device="cpu", imgsz=180).predict(fine)
    assert isinstance(same, SegmentationResult) and (same.mask == own.mask).all()
    tiled = open_predictor(model, device="cpu", imgsz=180, tile=128).predict(cv2.resize(fine, (720, 360)))
    assert isinstance(tiled, SegmentationResult) and tiled.mask.shape == (360, 720)


def test_imgsz_is_refused_where_it_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="imgsz=20: must be 32 to 13000"):
        open_predictor(dark_model(tmp_path / "m.onnx"), device="cpu", imgsz=20)
    with pytest.raises(InputError, match="has its size inside"):
        open_predictor(blob_model(tmp_path / "d.onnx"), device="cpu", imgsz=320)
