"""Records: which outlines and boxes are usable, which files are one photograph, and when a dataset has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segdet.data import formats
from segdet.data.records import (
    Dataset,
    Instance,
    Record,
    box_of,
    by_photograph,
    clean_box,
    clean_polygon,
    iterate,
    photograph_of,
)
from segdet.data.summary import describe
from tests.drawn import yolo_dataset

WIDTH, HEIGHT = 200, 100


def points(*pairs: tuple[float, float]) -> np.ndarray:
    return np.array(pairs, np.float64)


def test_a_good_outline_is_kept_as_it_is() -> None:
    outline = points((10, 10), (190.25, 12), (100, 99.5))
    polygon, fault = clean_polygon(outline, WIDTH, HEIGHT)
    assert fault is None
    assert polygon is not None and polygon.dtype == np.float32 and polygon.tolist() == outline.tolist()


def test_a_flat_list_of_coordinates_is_taken_too() -> None:
    polygon, fault = clean_polygon(np.array([1.0, 2, 30, 4, 5, 60]), WIDTH, HEIGHT)
    assert fault is None and polygon is not None and polygon.tolist() == [[1, 2], [30, 4], [5, 60]]


@pytest.mark.parametrize(
    ("outline", "reason"),
    [
        (points((0, 0), (50, float("nan")), (50, 50)), "finite"),
        (points((0, 0), (float("inf"), 0), (50, 50)), "finite"),
        (points((0, 0), (50, -float("inf")), (50, 50)), "finite"),
        (points((0, 0), (1e9, 0), (50, 50)), "outside"),
        (points((0, 0), (50, -1e9), (50, 50)), "outside"),
        (points((0, 0), (1e300, 0), (50, 50)), "outside"),
        (points((0, 0), (WIDTH + 4, 0), (50, 50)), "outside"),  # more than 1 % and a pixel
        (points((0, 0), (50, 50)), "at least 3"),
        (points(), "at least 3"),
        (points((5, 5), (5, 5), (5, 5)), "no area"),
        (points((5, 5), (60, 5), (90, 5)), "no area"),
        (points((5, 5), (5, 60), (5, 90)), "no area"),
        (points((-1, 10), (-1.5, 20), (-2, 30)), "no area"),  # nothing is left after clipping
    ],
)
def test_an_unusable_outline_is_refused_with_the_reason(outline: np.ndarray, reason: str) -> None:
    polygon, fault = clean_polygon(outline, WIDTH, HEIGHT)
    assert polygon is None
    assert fault is not None and reason in fault.what and "\n" not in fault.what


def test_points_on_one_slanted_line_have_no_area() -> None:
    polygon, fault = clean_polygon(points((5, 5), (20, 20), (60, 60)), WIDTH, HEIGHT)
    assert polygon is None and fault is not None and "no area" in fault.what


def test_a_figure_of_eight_covers_pixels_and_is_kept() -> None:
    eight = points((10, 10), (50, 50), (50, 10), (10, 50))  # its two halves have areas of opposite sign
    polygon, fault = clean_polygon(eight, WIDTH, HEIGHT)
    assert fault is None and polygon is not None and len(polygon) == 4


def test_a_slight_overshoot_is_clipped_to_the_image() -> None:
    polygon, fault = clean_polygon(points((-0.8, -0.3), (WIDTH + 2.5, 50), (100, HEIGHT + 1.5)), WIDTH, HEIGHT)
    assert fault is None
    assert polygon is not None and polygon.tolist() == [[0, 0], [WIDTH, 50], [100, HEIGHT]]


def test_the_message_names_the_point_that_is_farthest_out() -> None:
    _, fault = clean_polygon(points((0, 0), (250, 30), (9000, 40)), WIDTH, HEIGHT)
    assert fault is not None and "9000" in fault.what and "200x100" in fault.what


def test_a_good_box_is_kept_and_an_overshoot_clipped() -> None:
    assert clean_box((10, 20, 30, 40), WIDTH, HEIGHT) == ((10, 20, 30, 40), None)
    assert clean_box((-1, -1, WIDTH + 1, HEIGHT + 1), WIDTH, HEIGHT) == ((0, 0, WIDTH, HEIGHT), None)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((0, 0, float("nan"), 10), "finite"),
        ((0, 0, float("inf"), 10), "finite"),
        ((0, 0, 1e9, 10), "outside"),
        ((-1e9, 0, 10, 10), "outside"),
        ((0, 0, 10, HEIGHT + 3), "outside"),
        ((10, 10, 10, 20), "no area"),
        ((10, 20, 30, 20), "no area"),
        ((30, 10, 10, 20), "no area"),  # the corners are swapped
        ((-2, 10, -1, 20), "no area"),
    ],
)
def test_an_unusable_box_is_refused_with_the_reason(box: tuple[float, ...], reason: str) -> None:
    clean, fault = clean_box(box, WIDTH, HEIGHT)
    assert clean is None and fault is not None and reason in fault.what and "\n" not in fault.what


def test_the_box_of_several_parts_holds_them_all() -> None:
    assert box_of([points((5, 6), (7, 8), (5, 8)), points((1, 7), (2, 30), (3, 7))]) == (1, 6, 7, 30)


@pytest.mark.parametrize(
    ("name", "photograph"),
    [
        ("10.rf.1be181322657e5592be06e9ed277e0b3.jpg", "10"),
        ("IMG_20_jpg.rf.1be181322657e5592be06e9ed277e0b3.jpg", "IMG_20_jpg"),
        ("wall.v2.rf.1be181322657e5592be06e9ed277e0b3.jpg", "wall.v2"),
        ("folder/a.rf.0123456789abcdef0123456789abcdef.png", "a"),
        ("wall.jpg", "wall"),
        ("wall.v2.jpg", "wall.v2"),
        ("a.rf.1234567.jpg", "a.rf.1234567"),  # too short for a hash
        ("surf.scarf.jpg", "surf.scarf"),
    ],
)
def test_copies_of_one_photograph_share_its_name(name: str, photograph: str) -> None:
    assert photograph_of(Path(name)) == photograph


def test_records_are_grouped_by_photograph_in_order_of_appearance() -> None:
    records = [Record(Path(f"{name}.jpg"), 8, 8, (), name) for name in ("b", "a", "b", "c", "a")]
    assert list(by_photograph(records).items()) == [("b", [0, 2]), ("a", [1, 4]), ("c", [3])]


@pytest.fixture
def walls(tmp_path: Path) -> Dataset:
    return formats.read(yolo_dataset(tmp_path / "walls", train=3, val=2))


def with_first(dataset: Dataset, record: Record) -> Dataset:
    return replace(dataset, splits={**dataset.splits, "train": (record, *dataset.splits["train"][1:])})


def test_the_fingerprint_does_not_depend_on_the_place(walls: Dataset, tmp_path: Path) -> None:
    again = formats.read(yolo_dataset(tmp_path / "elsewhere", train=3, val=2))
    assert again.fingerprint() == walls.fingerprint()
    assert len(walls.fingerprint()) == 64


def test_the_fingerprint_changes_with_what_a_model_would_learn(walls: Dataset) -> None:
    first = walls.splits["train"][0]
    crack = first.instances[0]
    moved = replace(crack, polygons=(crack.polygons[0] + np.float32(0.5),))
    box = (0.0, 0.0, 9.0, 9.0)
    rle = Instance(0, (), box, {"size": [96, 96], "counts": b"a"})
    other_rle = replace(rle, rle={"size": [96, 96], "counts": b"b"})
    variants = {
        "as it is": walls,
        "moved": with_first(walls, replace(first, instances=(moved,))),
        "nothing": with_first(walls, replace(first, instances=())),
        "twice": with_first(walls, replace(first, instances=(crack, crack))),
        "other class": with_first(walls, replace(first, instances=(replace(crack, label=1),))),
        "crowd": with_first(walls, replace(first, instances=(replace(crack, crowd=True),))),
        "box": with_first(walls, replace(first, instances=(Instance(0, (), box),))),
        "rle": with_first(walls, replace(first, instances=(rle,))),
        "other rle": with_first(walls, replace(first, instances=(other_rle,))),
        "wider": with_first(walls, replace(first, width=97)),
        "class renamed": replace(walls, classes=("stain",)),
        "fewer": replace(walls, splits={**walls.splits, "train": walls.splits["train"][1:]}),
        "test instead of val": replace(
            walls, splits={"train": walls.splits["train"], "test": tuple(walls.splits["val"])}
        ),
    }
    prints = {name: dataset.fingerprint() for name, dataset in variants.items()}
    assert len(set(prints.values())) == len(variants), prints


def test_the_fingerprint_changes_with_the_image_file(walls: Dataset) -> None:
    before = walls.fingerprint()
    image = walls.splits["val"][0].image
    image.write_bytes(image.read_bytes() + b"\0")
    assert walls.fingerprint() != before


def test_all_records_are_visited_with_their_split(walls: Dataset) -> None:
    assert [split for split, _ in iterate(walls)] == ["train"] * 3 + ["val"] * 2
    assert len({record.image for _, record in iterate(walls)}) == 5


def test_a_summary_counts_images_photographs_and_objects(tmp_path: Path) -> None:
    root = yolo_dataset(tmp_path / "walls", "roboflow", train=3, val=2, siblings=2)
    label = sorted((root / "valid" / "labels").iterdir())[0]
    label.write_text("")
    summary = describe(formats.read(root))
    # Odd pictures have two cracks: training pictures 0, 1, 2 (each twice); of validation's 1000, 1001 the first is empty.
    assert summary["splits"]["train"] == {
        "images": 6, "photographs": 3, "objects": 8, "crowds": 0, "empty": 0, "sizes": "96x96 (6)", "lacking": [],
    }  # fmt: skip
    assert summary["splits"]["val"]["empty"] == 1 and summary["splits"]["val"]["objects"] == 2
    assert summary["objects"] == {"crack": 10}
    assert 0.02 < summary["foreground"] < 0.15 and summary["sampled"] == 7
    assert summary["licence"] == "Public Domain" and summary["problems"] == []
