"""Whatever stands in a label file, reading it ends in records that can be drawn, or in an InputError of one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segdet.data import formats
from segdet.data.rasterize import class_index, foreground
from segdet.errors import InputError
from tests.data.helpers import HEIGHT, WIDTH, annotation, coco, yolo

many = settings(max_examples=300, deadline=None, derandomize=True, database=None)

numbers = st.one_of(
    st.floats(0, 1),
    st.floats(),
    st.integers(-2, 3),
    st.sampled_from([10**9, -(10**9), 10**400, 1e308, 5e-324, 0.0, -0.0]),
)
words = st.one_of(
    numbers.map(str), st.sampled_from(["0", "0.5", "nan", "inf", "-inf", "1e999", "0x1", "1_0", "--1", "½"])
)
rows = st.lists(words, min_size=1, max_size=11).map(" ".join)
polygons = st.lists(st.floats(0, 1), min_size=3, max_size=6).map(lambda v: "0 " + " ".join(map(str, [*v, *v])))
label_files = st.one_of(
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=200),
    st.lists(st.one_of(rows, polygons), max_size=4).map(lambda lines: "\n".join(lines).encode()),
)

values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=8),
        st.dictionaries(st.sampled_from(["size", "counts", "id", "name"]), inner, max_size=3),
    ),
    max_leaves=12,
)
outlines = st.one_of(
    st.lists(st.lists(st.one_of(st.floats(-2, 66), numbers), max_size=10), max_size=3),
    st.fixed_dictionaries(
        {
            "size": st.just([HEIGHT, WIDTH]),
            "counts": st.one_of(
                st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=30),
                st.text(max_size=10),
                st.lists(st.integers(-5, HEIGHT * WIDTH), max_size=6),
                st.integers(0, HEIGHT * WIDTH).map(lambda n: [n, HEIGHT * WIDTH - n]),
            ),
        }
    ),
)


def read_and_draw(root: Path) -> None:
    """Fails on anything but records and InputError."""
    try:
        dataset = formats.read(root)
        dataset.fingerprint()
    except InputError as error:
        assert str(root) in str(error) and "\n" not in str(error)
        return
    for records in dataset.splits.values():
        for record in records:
            assert all(0 <= instance.label < len(dataset.classes) for instance in record.instances)
            assert foreground(record).shape == class_index(record).shape == record.size
            for x1, y1, x2, y2 in (instance.box for instance in record.instances):
                assert 0 <= x1 <= x2 <= record.width and 0 <= y1 <= y2 <= record.height
    assert all("\n" not in str(problem) for problem in dataset.problems)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YOLO folder with one image."""
    return yolo(tmp_path_factory.mktemp("yolo"))


@pytest.fixture(scope="module")
def instances(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO folder with one image."""
    return coco(tmp_path_factory.mktemp("coco"), annotation(), annotation(id=2))


def write_json(root: Path, part: str, changes: dict[str, Any]) -> None:
    """The sound COCO file with some values of the first entry of `part` replaced."""
    content: dict[str, list[dict[str, Any]]] = {
        "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "crack", "supercategory": "defect"}],
        "annotations": [annotation(), annotation(id=2)],
    }
    content[part][0].update(changes)
    (root / "_annotations.coco.json").write_text(json.dumps(content))


@many
@given(content=label_files)
def test_any_yolo_label_file(labels: Path, content: bytes) -> None:
    (labels / "labels" / "train" / "a.txt").write_bytes(content)
    read_and_draw(labels)


@many
@given(key=st.sampled_from(["id", "image_id", "category_id", "iscrowd", "bbox", "segmentation", "area"]), value=values)
def test_any_value_in_a_coco_annotation(instances: Path, key: str, value: Any) -> None:
    write_json(instances, "annotations", {key: value})
    read_and_draw(instances)


@many
@given(outline=outlines, box=st.lists(numbers, min_size=4, max_size=4))
def test_any_outline_in_a_coco_annotation(instances: Path, outline: Any, box: list[float]) -> None:
    write_json(instances, "annotations", {"segmentation": outline, "bbox": box})
    read_and_draw(instances)


@many
@given(
    key=st.sampled_from(["images.id", "images.file_name", "images.height", "categories.id", "categories.name"]),
    value=values,
)
def test_any_value_in_a_coco_image_or_category(instances: Path, key: str, value: Any) -> None:
    part, _, name = key.partition(".")
    write_json(instances, part, {name: value})
    read_and_draw(instances)
