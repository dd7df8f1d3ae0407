"""Run-length masks, outlines that draw back as the same mask, and objects out of semantic masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segdet.data.geometry import masks, polygons
from segdet.data.geometry.boxes import boxes_of, objects, parts
from segdet.data.geometry.rasterize import IGNORE, binary, class_index, coverage, foreground
from segdet.data.records import Instance, Record, clean_polygon


def noise(seed: int, smooth: bool) -> np.ndarray:
    """bool `[h, w]`: scattered pixels, or blobs with holes, that touch each other and the edges in every way."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 33, 2)
    field = rng.random((height, width)).astype(np.float32)
    if smooth:
        blurred = cv2.GaussianBlur(field, (0, 0), 1.5)
        return np.asarray(blurred > np.median(blurred))
    return np.asarray(field < rng.choice([0.02, 0.2, 0.5, 0.8, 0.97]))


def record(*instances: Instance, size: tuple[int, int] = (20, 30), ignore: np.ndarray | None = None) -> Record:
    return Record(Path("a.png"), size[1], size[0], instances, "a", None if ignore is None else masks.encode(ignore))


def merged(label: int, mask: np.ndarray) -> Instance:
    rle = masks.encode(mask)
    return Instance(label, (), masks.box(rle), rle, merged=True)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 10**6), smooth=st.booleans())
def test_outlines_draw_back_as_the_same_mask(seed: int, smooth: bool) -> None:
    mask = noise(seed, smooth)
    height, width = mask.shape
    found = [clean_polygon(polygon, width, height) for polygon in polygons.polygons(mask)]
    assert all(why is None for _, why in found)
    drawn = binary(coverage([polygon for polygon, _ in found if polygon is not None], height, width))
    assert (drawn == mask).all()
    assert len(found) == cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1


def test_a_hole_is_a_ring_of_its_own_or_a_cut() -> None:
    mask = np.ones((9, 9), bool)
    mask[3:6, 3:6] = False
    assert len(polygons.rings(mask)) == 2 and len(polygons.polygons(mask)) == 1
    assert polygons.rings(np.zeros((3, 3), bool)) == () == polygons.polygons(np.zeros((3, 3), bool))


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 10**6), values=st.integers(1, 256))
def test_regions_are_the_masks_of_all_values(seed: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    index = rng.integers(0, values, rng.integers(1, 20, 2)).astype(np.uint8)
    found = masks.regions(index)
    assert set(found) == set(np.unique(index).tolist())
    for value, rle in found.items():
        assert (masks.decode(rle) == (index == value)).all() and masks.area(rle) == (index == value).sum()
        rows, columns = np.nonzero(index == value)
        assert masks.box(rle) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_ignored_pixels_are_ignored_with_several_classes_and_background_with_one() -> None:
    ignore = np.zeros((20, 30), bool)
    ignore[5:10, 5:10] = True
    mask = np.zeros((20, 30), bool)
    mask[8:12, 8:12] = True
    index = class_index(record(merged(1, mask), ignore=ignore))
    assert (index[mask] == 2).all() and (index[ignore & ~mask] == IGNORE).all() and not index[~ignore & ~mask].any()
    assert (binary(foreground(record(merged(0, mask), ignore=ignore))) == mask).all()


def test_polygons_and_run_lengths_give_their_own_boxes() -> None:
    triangle = np.array([[1, 2], [9, 2], [5, 8]], np.float32)
    stamp = np.zeros((20, 30), bool)
    stamp[10:15, 20:25] = True
    crowd = Instance(1, (), masks.box(masks.encode(stamp)), masks.encode(stamp), crowd=True)
    xyxy, labels, crowds = boxes_of(
        record(Instance(0, (triangle,), (1, 2, 9, 8)), crowd, Instance(2, (), (0.5, 0, 3, 4)))
    )
    assert xyxy.tolist() == [[1, 2, 9, 8], [20, 10, 25, 15], [0.5, 0, 3, 4]] and xyxy.dtype == np.float32
    assert labels.tolist() == [0, 1, 2] and labels.dtype == np.int64
    assert crowds.tolist() == [False, True, False] and crowds.dtype == bool


def test_a_semantic_mask_gives_a_box_for_each_connected_part_above_a_size() -> None:
    mask = np.zeros((20, 30), bool)
    mask[2:5, 2:6] = True
    mask[5, 6] = True  # touches by a corner
    mask[12:16, 20:24] = True
    mask[18, 1:4] = True  # three pixels are a slip of the brush
    found, labels, crowds = boxes_of(record(merged(3, mask)))
    assert found.tolist() == [[2, 2, 7, 6], [20, 12, 24, 16]] and labels.tolist() == [3, 3] and not crowds.any()
    assert len(boxes_of(record(merged(3, mask)), smallest=3)[0]) == 3
    together = sum(masks.decode(part.rle) for part in parts(merged(3, mask)) if part.rle is not None)
    assert (together == mask).all()


def test_objects_labelled_one_by_one_stand_before_class_regions() -> None:
    mask = np.ones((20, 30), bool)
    alone = Instance(0, (), (1, 1, 5, 5))
    assert list(objects(record(merged(0, mask), alone))) == [alone]


@pytest.mark.parametrize("empty", [(), None])
def test_no_object_is_no_box(empty: tuple[()] | None) -> None:
    instances = () if empty == () else (merged(0, np.zeros((20, 30), bool)),)
    xyxy, labels, crowds = boxes_of(record(*instances))
    assert xyxy.shape == (0, 4) and labels.shape == (0,) and crowds.shape == (0,)
