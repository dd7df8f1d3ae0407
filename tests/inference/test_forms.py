"""Regions, run lengths and the forms of a result, against OpenCV, pycocotools and Pillow."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from segdet.data import formats
from segdet.data.geometry import rle
from segdet.data.geometry.rasterize import binary, coverage, foreground
from segdet.data.geometry.regions import Region, RegionBuilder, regions_of
from segdet.inference.io import png, serialize
from segdet.inference.predict.results import DetectionResult, SegmentationResult
from tests.drawn import crack_picture

CLASSES = ("crack", "stain")


def noise(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A mask of two classes with every way in which pixels can touch, and confidences."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 24, 2)
    mask = (rng.random((height, width)) < rng.choice([0.2, 0.5, 0.8])) * rng.integers(1, 3, (height, width))
    return mask.astype(np.uint8), rng.random((height, width)).astype(np.float32)


def plain(regions: list[Region]) -> list[object]:
    return sorted(
        (r.index, r.box, r.area, round(r.confidence, 5), sorted(p.tolist() for p in r.polygons)) for r in regions
    )


@pytest.mark.parametrize("seed", range(30))
def test_regions_are_opencvs_components_with_exact_outlines(seed: int) -> None:
    mask, confidence = noise(seed)
    regions = regions_of(mask, confidence, CLASSES)
    for value in (1, 2):
        inside = (mask == value).astype(np.uint8)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
        expected = sorted((x, y, x + w, y + h, area) for x, y, w, h, area in stats[1:].tolist())
        ours = [region for region in regions if region.index == value - 1]
        assert sorted((*region.box, region.area) for region in ours) == expected
        for region in ours:
            encoded = region.rle(*mask.shape)
            pixels = coco_mask.decode(encoded)  # by code nobody here wrote
            (label,) = np.unique(labels[pixels > 0])
            assert (pixels == (labels == label)).all()
            assert coco_mask.encode(np.asfortranarray(pixels))["counts"].decode() == encoded["counts"]
            assert region.confidence == pytest.approx(confidence[pixels > 0].mean(), abs=1e-5)
            assert sum(_area(ring) for part in region.parts for ring in part) == region.area


@pytest.mark.parametrize("seed", range(12))
def test_bands_give_the_same_regions_as_the_whole(seed: int) -> None:
    mask, confidence = noise(seed)
    rng = np.random.default_rng(seed)
    builder, top = RegionBuilder(CLASSES, mask.shape[1]), 0
    while top < len(mask):
        rows = slice(top, top + int(rng.integers(1, 6)))
        builder.add(mask[rows], confidence[rows])
        top = rows.stop
    assert plain(builder.finish()) == plain(regions_of(mask, confidence, CLASSES))


@pytest.mark.parametrize("seed", range(12))
def test_rings_are_simple_and_apart_so_that_every_polygon_is_valid(seed: int) -> None:
    """No two edges of a class meet, except neighbours in their common corner."""
    mask, confidence = noise(seed)
    for region in regions_of(mask, confidence, CLASSES):
        rings = region.polygons
        assert [_area(ring) > 0 for ring in rings] == [True] * len(region.parts) + [False] * (
            len(rings) - len(region.parts)
        )
        for ring in rings:
            assert len({tuple(point) for point in ring.tolist()}) == len(ring)
        edges = np.concatenate([np.concatenate([ring, np.roll(ring, -1, axis=0)], axis=1) for ring in rings])
        flat = edges[edges[:, 1] == edges[:, 3]]
        tall = edges[edges[:, 0] == edges[:, 2]]
        assert len(flat) + len(tall) == len(edges)
        low, high = np.minimum(flat[:, 0], flat[:, 2])[:, None], np.maximum(flat[:, 0], flat[:, 2])[:, None]
        start, end = np.minimum(tall[:, 1], tall[:, 3])[None], np.maximum(tall[:, 1], tall[:, 3])[None]
        x, y = tall[None, :, 0], flat[:, None, 1]
        meets = (low <= x) & (x <= high) & (start <= y) & (y <= end)
        corners = ((x == low) | (x == high)) & ((y == start) | (y == end))
        assert (meets == (meets & corners)).all() and meets.sum() == len(edges)


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_equal_pycocotools(seed: int) -> None:
    mask = noise(seed)[0] > 0
    expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert rle.from_mask(mask) == {"size": list(mask.shape), "counts": expected["counts"].decode()}


def crack() -> SegmentationResult:
    image, polygons = crack_picture(5, 96, 120)
    mask = binary(coverage(polygons, 96, 120)).astype(np.uint8)
    mask[70:90, 10:30], mask[75:80, 15:20] = 1, 0  # a part with a hole
    return SegmentationResult(image, mask, np.full(mask.shape, 0.75, np.float32), ("crack",), 0.5)


def test_coco_results_load_and_draw_back(tmp_path: Path) -> None:
    prediction = crack()
    dataset = COCO()
    dataset.dataset = {
        "images": [{"id": 7, "width": 120, "height": 96}], "categories": [{"id": 1, "name": "crack"}], "annotations": [],
    }  # fmt: skip
    dataset.createIndex()
    (tmp_path / "results.json").write_text(json.dumps(prediction.to_coco(7)))
    loaded = dataset.loadRes(str(tmp_path / "results.json"))
    again = np.zeros((96, 120), np.uint8)
    for annotation in loaded.loadAnns(loaded.getAnnIds()):
        again |= loaded.annToMask(annotation)
    assert (again == prediction.mask).all()
    assert [a["area"] for a in prediction.to_coco()] == [region.area for region in prediction.regions]
    assert prediction.rle["crack"]["counts"] == rle.from_mask(prediction.mask > 0)["counts"]


def test_geojson_draws_back_with_pillow() -> None:
    prediction = crack()
    collection = json.loads(json.dumps(prediction.to_geojson()))
    assert collection["type"] == "FeatureCollection"
    fine = 20
    canvas = Image.new("L", (120 * fine, 96 * fine))
    from PIL import ImageDraw

    for feature in collection["features"]:
        assert feature["geometry"]["type"] == "MultiPolygon" and feature["properties"]["class"] == "crack"
        for polygon in feature["geometry"]["coordinates"]:
            for number, ring in enumerate(polygon):
                assert ring[0] == ring[-1] and len(ring) >= 5
                points = [(x * fine - 0.5, y * fine - 0.5) for x, y in ring]
                ImageDraw.Draw(canvas).polygon(points, fill=0 if number else 255)
    shares = np.asarray(canvas.resize((120, 96), Image.Resampling.BOX))
    assert ((shares >= 128) == (prediction.mask > 0)).all()


def test_yolo_rows_are_read_back_as_the_same_mask(tmp_path: Path) -> None:
    prediction = crack()
    for folder in ("images", "labels"):
        (tmp_path / folder / "train").mkdir(parents=True)
    Image.fromarray(prediction.image).save(tmp_path / "images/train/a.png")
    (tmp_path / "labels/train/a.txt").write_text(prediction.to_yolo())
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [crack]\n")
    record = formats.read(tmp_path).splits["train"][0]
    drawn = binary(foreground(record))
    assert (drawn != (prediction.mask > 0)).mean() < 0.002  # a cut of no width to the hole touches some pixels


def test_boxes_scores_and_polygons_stand_beside_each_other() -> None:
    prediction = crack()
    assert len(prediction.boxes) == len(prediction.scores) == len(prediction.labels) == len(prediction.polygons) > 1
    assert prediction.scores == pytest.approx(0.75) and prediction.labels.tolist() == [0] * len(prediction.labels)
    assert prediction.boxes.tolist() == [list(region.box) for region in prediction.regions]


def test_a_detection_in_every_form() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    boxes = np.array([[10, 20, 50, 60], [30, 40, 50, 60], [0, 0, 200, 100]], np.float32)
    result = DetectionResult(image, boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 0, 1]), CLASSES, 0.5)
    assert result.areas == {"crack": 1600, "stain": 20_000}
    assert result.to_coco("x")[1] == {"image_id": "x", "category_id": 1, "bbox": [30.0, 40.0, 20.0, 20.0], "score": 0.8}
    first = result.to_geojson()["features"][0]
    assert first["geometry"] == {"type": "Polygon", "coordinates": [[[10, 20], [50, 20], [50, 60], [10, 60], [10, 20]]]}
    assert result.to_yolo().splitlines()[2] == "1 0.500000 0.500000 1.000000 1.000000"
    assert [polygon.shape for polygon in result.polygons] == [(4, 2)] * 3
    rows = list(serialize.csv_rows({"image": "a.jpg", **result.to_dict()}))
    assert rows[0] == ["a.jpg", "crack", 0.9, 10.0, 20.0, 50.0, 60.0, 1600.0]


def test_csv_rows_of_regions() -> None:
    prediction = crack()
    rows = list(serialize.csv_rows({"image": "a, b.jpg", **prediction.to_dict()}))
    buffer = io.StringIO()
    csv.writer(buffer).writerows([serialize.COLUMNS, *rows])
    read = list(csv.DictReader(io.StringIO(buffer.getvalue())))
    assert [int(row["area"]) for row in read] == [region.area for region in prediction.regions]
    assert read[0]["image"] == "a, b.jpg"


@pytest.mark.parametrize(("classes", "bands"), [(1, 1), (1, 3), (2, 1), (90, 2), (None, 1), (None, 4)])
def test_png_files_read_back_the_same(classes: int | None, bands: int) -> None:
    rng = np.random.default_rng(bands)
    image = rng.integers(0, (classes or 255) + 1, (61, 45), dtype=np.uint8)
    file = io.BytesIO()
    writer = png.Writer(file, 61, 45, classes)
    for rows in np.array_split(image, bands):
        writer.write(rows)
    writer.close()
    picture = Image.open(io.BytesIO(file.getvalue()))
    assert picture.mode == ("L" if classes is None else "P") and (np.asarray(picture) == image).all()
    assert (cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR).shape) == (61, 45, 3)


def _area(ring: np.ndarray) -> float:
    x, y = ring.astype(float).T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
