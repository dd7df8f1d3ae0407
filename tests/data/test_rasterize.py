"""The one rasteriser: exact on whole pixels, close to the true area, whole on thin cracks, the same in every band."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from skimage.measure import label as connected

from segdet.data.geometry import rasterize
from segdet.data.geometry.rasterize import IGNORE, binary, class_index, coverage, foreground
from segdet.data.records import Instance, Record, box_of


def square(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)


def blob(rng: np.random.Generator, centre: float = 80, low: float = 25, high: float = 60) -> np.ndarray:
    """A fat star-shaped polygon around (centre, centre)."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(8, 20)))
    radius = rng.uniform(low, high, len(angles))
    return np.stack([centre + radius * np.cos(angles), centre + radius * np.sin(angles)], axis=1).astype(np.float32)


def line(x: float, y: float, slope: float, length: float, width: float) -> np.ndarray:
    """A straight band `width` wide from (x, y) on."""
    along = np.array([1, slope]) / np.hypot(1, slope)
    aside = np.array([-along[1], along[0]]) * width / 2
    start = np.array([x, y])
    end = start + along * length
    return np.array([start + aside, end + aside, end - aside, start - aside], np.float32)


def moved(polygon: np.ndarray, x: float, y: float) -> np.ndarray:
    return np.asarray(polygon, np.float64) + np.array([x, y])


def shoelace(polygon: np.ndarray) -> float:
    x, y = polygon.astype(np.float64).T
    return 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))


def by_pycocotools(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    runs = coco_mask.frPyObjects([polygon.astype(float).ravel().tolist()], height, width)
    return np.asarray(coco_mask.decode(coco_mask.merge(runs)), bool)


def of(*instances: Instance, height: int = 20, width: int = 30) -> Record:
    return Record(Path("wall.png"), width, height, instances, "wall")


def outlined(label: int, *polygons: np.ndarray, crowd: bool = False) -> Instance:
    return Instance(label, polygons, box_of(polygons), None, crowd)


def run_lengths(mask: np.ndarray) -> dict[str, object]:
    return dict(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))))


@pytest.mark.parametrize("corners", [(2, 3, 7, 9), (0, 0, 30, 20), (29, 19, 30, 20), (0, 5, 30, 6), (4, 0, 5, 20)])
def test_a_square_on_whole_pixels_is_exact(corners: tuple[int, int, int, int]) -> None:
    x1, y1, x2, y2 = corners
    expected = np.zeros((20, 30), bool)
    expected[y1:y2, x1:x2] = True
    cover = coverage([square(*corners)], 20, 30)
    assert (binary(cover) == expected).all()
    assert (cover[expected] == 255).all()


def test_nothing_outlined_is_nothing_covered() -> None:
    cover = coverage([], 5, 7)
    assert cover.shape == (5, 7) and cover.dtype == np.uint8 and not cover.any()


def test_a_pixel_belongs_from_one_half_on() -> None:
    sixteenths = np.array([[0, 7, 8, 16]]) * 255 / 16
    assert binary(sixteenths.round().astype(np.uint8)).tolist() == [[False, False, True, True]]
    cover = coverage([square(2, 2, 10.75, 12)], 20, 20)
    assert binary(cover)[5, 10]
    cover = coverage([square(2, 2, 10.125, 12)], 20, 20)
    assert 0 < cover[5, 10] < 128 and not binary(cover)[5, 10]


def test_overlapping_outlines_join_and_do_not_cancel() -> None:
    whole = binary(coverage([square(2, 2, 12, 12), square(7, 7, 18, 18)], 20, 20))
    apart = [binary(coverage([part], 20, 20)) for part in (square(2, 2, 12, 12), square(7, 7, 18, 18))]
    assert (whole == (apart[0] | apart[1])).all()
    assert whole[9, 9]
    assert (coverage([square(2, 2, 12, 12)] * 2, 20, 20) == coverage([square(2, 2, 12, 12)], 20, 20)).all()


@pytest.mark.parametrize("shift", [60, 256, 270])
def test_a_picture_moved_down_within_a_band_is_the_same(shift: int) -> None:
    rng = np.random.default_rng(7)
    for _ in range(10):
        polygon = blob(rng)
        low = coverage([moved(polygon, 0, shift)], 512, 160)
        assert (low[shift : shift + 160] == coverage([polygon], 160, 160)).all()


@pytest.mark.parametrize("shift", [150, 170, 200, 400])
def test_a_band_boundary_across_a_crack_is_invisible(shift: int) -> None:
    """A tall image is rasterised 256 rows at a time; a crack across rows 256 or 512 must look as it does elsewhere."""
    rng = np.random.default_rng(7)
    for _ in range(10):
        crack = line(rng.uniform(20, 60), 5, float(rng.uniform(2, 6)), 140, float(rng.uniform(1, 4)))
        alone = coverage([crack], 160, 160)
        inside = coverage([moved(crack, 0, shift)], 600, 160)[shift : shift + 160]
        assert (binary(inside) == binary(alone)).all()


@pytest.mark.parametrize(
    ("left", "top", "right", "bottom"), [(20, 0, 0, 0), (0, 20, 0, 0), (0, 0, 20, 0), (0, 0, 0, 20)]
)
def test_the_image_edge_does_not_bend_a_crack_that_ends_there(left: int, top: int, right: int, bottom: int) -> None:
    """The same outline across the picture, once between its edges, once with room beyond one of them."""
    rng = np.random.default_rng(7)
    for _ in range(20):
        start, width, lean = rng.uniform(30, 80), rng.uniform(1, 4), rng.uniform(-30, 30)
        sideways = np.array([[0, start], [120, start + lean], [120, start + lean + width], [0, start + width]])
        for crack in (sideways, sideways[:, ::-1]):
            tight = binary(coverage([crack], 120, 120))
            roomy = binary(coverage([moved(crack, left, top)], 120 + top + bottom, 120 + left + right))
            assert (tight == roomy[top : top + 120, left : left + 120]).all()


def test_areas_of_fat_polygons_are_within_a_few_percent_of_the_truth() -> None:
    rng = np.random.default_rng(1)
    ratios = []
    for _ in range(60):
        polygon = blob(rng)
        ratios.append(binary(coverage([polygon], 160, 160)).sum() / shoelace(polygon))
    assert min(ratios) > 0.98 and max(ratios) < 1.05
    assert np.mean(ratios) == pytest.approx(1.01, abs=0.015)


def test_fat_polygons_agree_with_pycocotools() -> None:
    rng = np.random.default_rng(2)
    for _ in range(60):
        polygon = blob(rng)
        ours, theirs = binary(coverage([polygon], 160, 160)), by_pycocotools(polygon, 160, 160)
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.95


@pytest.mark.parametrize("slope", [0.1, 0.2, 0.3])
@pytest.mark.parametrize("width", [1.0, 1.25])
def test_a_thin_slanted_line_stays_in_one_piece(slope: float, width: float) -> None:
    polygon = line(5.3, 5.2, slope, 80, width)
    ours, theirs = binary(coverage([polygon], 100, 100)), by_pycocotools(polygon, 100, 100)
    assert connected(ours, connectivity=2).max() == 1
    if width == 1.0:  # what run-length rasterisers make of it
        assert connected(theirs, connectivity=2).max() > 1


@pytest.mark.parametrize("slope", [0.05, 0.15, 0.33, 0.5, 0.8, 1.0, 1.3])
def test_a_line_of_one_and_a_half_pixels_is_whole_and_not_much_too_wide(slope: float) -> None:
    polygon = line(5.3, 5.2, slope, 80, 1.5)
    mask = binary(coverage([polygon], 120, 100))
    assert connected(mask, connectivity=2).max() == 1
    assert mask.sum() / shoelace(polygon) < 1.4


def test_a_very_wide_image_keeps_its_columns() -> None:
    mask = binary(coverage([square(15000, 2, 15010, 7)], 16, 20000))
    assert mask.sum() == 50 and mask[2:7, 15000:15010].all()


def test_foreground_is_every_class_and_every_run_length_mask() -> None:
    stamp = np.zeros((20, 30), np.uint8)
    stamp[10:15, 20:25] = 1
    record = of(
        outlined(0, square(2, 2, 6, 6), square(8, 2, 10, 6)),
        outlined(1, square(2, 10, 6, 14)),
        Instance(0, (), (20, 10, 25, 15), run_lengths(stamp)),
    )
    expected = stamp.astype(bool)
    for x1, y1, x2, y2 in ((2, 2, 6, 6), (8, 2, 10, 6), (2, 10, 6, 14)):
        expected[y1:y2, x1:x2] = True
    assert (binary(foreground(record)) == expected).all()


def test_boxes_add_nothing_to_masks() -> None:
    record = of(Instance(0, (), (2, 2, 15, 15)), outlined(0, square(20, 2, 24, 6)))
    assert binary(foreground(record)).sum() == 16
    assert (class_index(record) > 0).sum() == 16
    assert not foreground(of(Instance(0, (), (2, 2, 15, 15)))).any()


@pytest.mark.parametrize("reverse", [False, True])
def test_the_smaller_of_two_overlapping_objects_wins(reverse: bool) -> None:
    whole, part = outlined(0, square(2, 2, 18, 18)), outlined(2, square(5, 5, 9, 9))
    instances = (part, whole) if reverse else (whole, part)
    index = class_index(of(*instances))
    assert index.dtype == np.uint8
    assert (index[5:9, 5:9] == 3).all()
    index[5:9, 5:9] = 1
    expected = np.zeros((20, 30), np.uint8)
    expected[2:18, 2:18] = 1
    assert (index == expected).all()


def test_a_crowd_is_ignored_except_where_an_object_lies_on_it() -> None:
    stamp = np.zeros((20, 30), np.uint8)
    stamp[0:4, 0:4] = 1
    crowd = Instance(0, (), (0, 0, 4, 4), run_lengths(stamp), crowd=True)
    whole = outlined(1, square(2, 2, 18, 18))
    index = class_index(of(whole, crowd))
    assert (index[:2, :4] == IGNORE).all() and (index[:4, :2] == IGNORE).all()
    assert (index[2:18, 2:18] == 2).all()
    assert set(np.unique(index)) == {0, 2, IGNORE}


@pytest.mark.parametrize("seed", range(4))
def test_a_large_outline_drawn_in_bands_is_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    outlines = [blob(rng), blob(rng), line(5, 20, 0.9, 170, 2.0), line(140, 10, -8.0, 1.0, 1.5)]
    outlines = [np.clip(outline, 0, 160) for outline in outlines]
    whole = coverage(outlines, 160, 160)
    monkeypatch.setattr(rasterize, "_CANVAS", 162 * 16 * 46)  # forty rows at once
    banded = coverage(outlines, 160, 160)
    difference = np.abs(whole.astype(int) - banded)
    assert difference.max() <= 64  # a sub-pixel along an edge that crosses two bands
    assert (difference > 0).mean() < 0.01 and (binary(whole) != binary(banded)).mean() < 0.001


def test_an_outline_of_many_megapixels_is_drawn_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    drawn = rasterize._shares
    monkeypatch.setattr(rasterize, "_shares", lambda polygons, box: sizes.append(box) or drawn(polygons, box))
    cover = coverage([square(1, 1, 8999, 3999)], 4000, 9000)
    assert cover[1:3999, 1:8999].min() == 255 and binary(cover).sum() == 3998 * 8998
    assert len(sizes) > 1 and all((x2 - x1 + 2) * (y2 - y1 + 6) * 16 <= 1 << 28 for x1, y1, x2, y2 in sizes)
