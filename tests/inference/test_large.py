"""Pictures read in windows and predicted in bands: the same answers as whole, in bounded memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from segdet.data.images import ImageError, read_image
from segdet.data.tiff import TiffPicture
from segdet.inference.backends.select import open_session
from segdet.inference.batch import large
from segdet.inference.batch.job import run_job
from segdet.inference.io import raster
from segdet.inference.io.raster import ArrayPicture, open_windowed
from segdet.inference.io.sources import expand
from segdet.inference.predict import tiling
from segdet.inference.predict.predictor import open_predictor
from segdet.inference.predict.results import SegmentationResult
from tests.detectors import blob_model, blob_picture
from tests.segmenters import blots, channel_model, dark_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dark_model(tmp_path_factory.mktemp("models") / "dark.onnx")


LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles": {"tile": (64, 64)},
    "strips": {"rowsperstrip": 17},
    "deflate": {"tile": (48, 80), "compression": "zlib", "predictor": True},
    "lzw": {"rowsperstrip": 9, "compression": "lzw"},
    "jpeg": {"tile": (64, 64), "compression": "jpeg", "photometric": "ycbcr"},
    "planes": {"rowsperstrip": 20, "planarconfig": "separate"},
    "alpha": {"tile": (64, 64), "extrasamples": ["unassalpha"]},
    "grey": {"tile": (64, 64), "photometric": "minisblack"},
    "inverted": {"rowsperstrip": 33, "photometric": "miniswhite"},
    "deep": {"tile": (64, 64)},
    "deep grey": {"rowsperstrip": 7, "photometric": "minisblack"},
}


def written(path: Path, layout: str) -> Path:
    image = blots(1, 230, 190)
    if "grey" in layout or layout == "inverted":
        image = image[..., 0]
    if layout == "alpha":
        image = np.concatenate([image, np.full((230, 190, 1), 255, np.uint8)], axis=2)
    if "deep" in layout:
        image = image.astype(np.uint16) * 257
    options = {"photometric": "rgb", **LAYOUTS[layout]}
    data = image.transpose(2, 0, 1) if layout == "planes" else image
    tifffile.imwrite(path, data, **options)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_windows_show_what_the_whole_file_shows(tmp_path: Path, layout: str) -> None:
    file = written(tmp_path / "a.tif", layout)
    picture = TiffPicture(file)
    expected = read_image(file)
    assert picture.size == (230, 190)
    for top, bottom in ((0, 230), (0, 1), (13, 77), (60, 70), (229, 230), (5, 6)):
        rows = picture.read(top, bottom).astype(int)
        near = 3 if layout == "jpeg" else 0  # two decoders round differently
        assert rows.shape == (bottom - top, 190, 3) and np.abs(rows - expected[top:bottom]).max() <= near
    picture.close()


def test_twelve_bit_samples_are_scaled_alike(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.linspace(0, 4000, 600).reshape(20, 30).astype(np.uint16), rowsperstrip=4)
    assert (TiffPicture(tmp_path / "a.tif").read(0, 20) == read_image(tmp_path / "a.tif")).all()


def test_what_cannot_be_read_in_windows_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = blots(1, 100, 90)
    tifffile.imwrite(tmp_path / "float.tif", image.astype(np.float32), photometric="rgb")
    tifffile.imwrite(tmp_path / "whole.tif", image, photometric="rgb")
    tifffile.imwrite(tmp_path / "good.tif", image, photometric="rgb", rowsperstrip=5, compression="zlib")
    (tmp_path / "short.tif").write_bytes((tmp_path / "good.tif").read_bytes()[:-200])
    (tmp_path / "junk.tif").write_bytes(b"II*\0" + b"junk" * 9)
    monkeypatch.setattr(raster, "_PIECE", 20_000)
    monkeypatch.setattr(raster, "WINDOWED", 100)
    monkeypatch.setattr(raster, "MAX_PIXELS", 100)
    for name, message in (
        ("float", "3 bands of 32-bit floating-point"), ("whole", "stored in pieces of"), ("short", "damaged TIFF"),
    ):  # fmt: skip
        with pytest.raises(ImageError, match=message):
            open_windowed(tmp_path / f"{name}.tif")
    monkeypatch.setattr(raster, "_MAX_WINDOWED", 1000)
    with pytest.raises(ImageError, match="90x100 is more than segdet reads"):
        open_windowed(tmp_path / "good.tif")
    monkeypatch.undo()
    assert open_windowed(tmp_path / "good.tif") is None  # small: read whole
    assert open_windowed(tmp_path / "junk.tif") is None
    with pytest.raises(ImageError, match="damaged"):
        TiffPicture(tmp_path / "junk.tif")


def test_a_piece_that_is_damaged_shows_when_its_turn_comes(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", blots(1, 100, 90), photometric="rgb", rowsperstrip=10, compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset = file.pages[0].dataoffsets[7]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[offset : offset + 20] = bytes(20)
    (tmp_path / "a.tif").write_bytes(data)
    picture = TiffPicture(tmp_path / "a.tif")
    picture.read(0, 70)
    with pytest.raises(ImageError, match="damaged TIFF"):
        picture.read(60, 90)


@pytest.mark.parametrize("size", [(300, 500), (1000, 130), (129, 1000), (400, 400)])
def test_bands_cover_every_row_once_and_agree_with_the_whole(model: Path, size: tuple[int, int]) -> None:
    image = blots(2, *size)
    session = open_session(model, "cpu")
    whole_mask, whole = (output[0] for output in session.run(image[None], 0.5))
    below = 0
    for top, rows, mask, confidence in tiling.bands(session, ArrayPicture(image), 0.5, 128):
        assert top == below and (rows == image[top : top + len(rows)]).all()
        assert (mask == whole_mask[top : top + len(rows)]).all()
        assert np.allclose(confidence, whole[top : top + len(rows)], atol=1e-6)
        below += len(rows)
    assert below == size[0]


@pytest.mark.parametrize(("size", "asked"), [((4500, 20), 1024), ((20, 4500), 1024), ((2000, 1500), 2000)])
def test_a_long_strip_is_shown_to_the_network_in_tiles(
    model: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], asked: int
) -> None:
    """Its pixels are few, and a network that is shown 20,000 of them in a row needs two gigabytes all the same."""
    predictor = open_predictor(model, device="cpu")
    longest: list[int] = []
    before = predictor.session.run

    def watching(images: np.ndarray, *rest: float) -> tuple[np.ndarray, ...]:
        longest.append(max(images.shape[1:3]))
        return before(images, *rest)

    monkeypatch.setattr(predictor.session, "run", watching)
    image = blots(3, *size)
    found = predictor.predict(image)
    assert max(longest) == asked
    assert isinstance(found, SegmentationResult) and (found.mask == before(image[None], 0.5)[0][0]).all()


def test_several_classes_in_bands(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 333, 3), np.uint8)
    session = open_session(channel_model(tmp_path / "m.onnx"), "cpu")
    mask, confidence = tiling.run_tiled(session, image, 0.5, 128)
    expected = session.run(image[None])
    assert (mask == expected[0][0]).all() and (confidence == expected[1][0]).all()


@pytest.mark.parametrize("kind", ["jpg", "tif"])
def test_a_large_picture_gives_the_files_of_a_small_one(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    image = blots(3, 420, 700)
    file = tmp_path / f"big.{kind}"
    if kind == "jpg":
        Image.fromarray(image).save(file, quality=95)
    else:
        place = [(33550, 12, 3, (0.5, 0.5, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 7.0, 8.0, 0.0), True)]
        tifffile.imwrite(file, image, photometric="rgb", tile=(64, 64), compression="zlib", extratags=place)
    kinds = ("overlay", "mask", "confidence", "json", "csv", "coco", "geojson", "yolo")
    predictor = open_predictor(model, tile=128, device="cpu")
    run_job(predictor, expand([str(file)]), tmp_path / "whole", kinds)
    monkeypatch.setattr(large, "HELD", 1000)
    monkeypatch.setattr(raster, "WINDOWED", 1000)
    monkeypatch.setattr(large, "_OVERLAY", 350)
    run_job(predictor, expand([str(file)]), tmp_path / "bands", kinds)
    for name in ("predictions.csv", "predictions.coco.json", "big.geojson", "labels/big.txt"):
        assert (tmp_path / "bands" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert np.asarray(Image.open(tmp_path / "bands/big_overlay.png")).shape == (210, 350, 3)
    expected = np.asarray(Image.open(tmp_path / "whole/big_mask.png"))
    written = tmp_path / f"bands/big_mask.{'png' if kind == 'jpg' else 'tif'}"
    assert Image.open(written).mode == "P" and (np.asarray(Image.open(written)) == expected).all() and expected.any()
    assert not [file for file in (tmp_path / "bands").iterdir() if "pieces" in file.name]
    if kind == "tif":
        with tifffile.TiffFile(written) as mask:
            assert mask.pages[0].is_tiled and mask.pages[0].tags[33550].value == (0.5, 0.5, 0.0)
        again = open_predictor(model, tile=128, device="cpu").predict(file)
        assert isinstance(again, SegmentationResult) and (again.mask == expected).all()


def test_a_picture_read_in_windows_is_not_resized(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "WINDOWED", 1000)
    monkeypatch.setattr(large, "HELD", 1000)
    tifffile.imwrite(tmp_path / "a.tif", blots(1, 300, 200), photometric="rgb", rowsperstrip=10)
    Image.fromarray(blots(1, 300, 200)).save(tmp_path / "b.png")
    predictor = open_predictor(model, tile=128, device="cpu", imgsz=150)
    result = run_job(predictor, expand([str(tmp_path)]), tmp_path / "out", ("mask",))
    assert "leave imgsz out" in result.skipped[str(tmp_path / "a.tif")]
    seen = predictor.predict(blots(1, 300, 200))
    assert isinstance(seen, SegmentationResult)
    assert (np.asarray(Image.open(tmp_path / "out" / "b_mask.png")) == seen.mask).all() and seen.mask.any()


def test_a_damaged_large_tiff_is_skipped_and_leaves_no_files(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raster, "WINDOWED", 1000)
    tifffile.imwrite(tmp_path / "a.tif", blots(1, 300, 200), photometric="rgb", rowsperstrip=10, compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset = file.pages[0].dataoffsets[25]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[offset : offset + 20] = bytes(20)
    (tmp_path / "a.tif").write_bytes(data)
    Image.fromarray(blots(1, 50, 50)).save(tmp_path / "b.png")
    result = run_job(
        open_predictor(model, tile=128, device="cpu"), expand([str(tmp_path)]), tmp_path / "out", ("mask",)
    )
    assert [row["image"] for row in result.images] == [str(tmp_path / "b.png")]
    assert "damaged TIFF" in result.skipped[str(tmp_path / "a.tif")]
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == {"b_mask.png"}


def test_detection_in_a_large_tiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = blob_model(tmp_path / "blobs.onnx")
    image = blob_picture({"red": (300, 200, 320, 215), "blue": (10, 5, 30, 30)}, 400, 600)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", tile=(64, 64))
    monkeypatch.setattr(raster, "WINDOWED", 1000)
    result = run_job(
        open_predictor(detector, tile=128, device="cpu"),
        expand([str(tmp_path / "a.tif")]),
        tmp_path / "out",
        ("overlay", "json"),
    )
    assert result.images[0]["classes"] == {"red": 1, "green": 0, "blue": 1}
    assert Image.open(tmp_path / "out/a_overlay.png").size[0] >= 600
