"""Whatever stands in a label file, reading it ends in records that can be drawn, or in a SegdetError of one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segdet.data import formats
from segdet.data.geometry.boxes import boxes_of
from segdet.data.geometry.rasterize import class_index, foreground
from segdet.errors import InputError, SegdetError
from tests.data.helpers import HEIGHT, WIDTH, annotation, blank, coco, yolo
from tests.data.test_mask_formats import STAMP, roboflow
from tests.data.test_tool_formats import box, cvat, labelme, shape, voc
from tests.drawn import plain
from tests.layouts import save_mask

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
    """Fails on anything but records and SegdetError; what is refused is told by the doctor's reading, which refuses nothing."""
    try:
        dataset = formats.read(root, refuse=False)
        dataset.fingerprint()
    except InputError as error:  # no layout recognised
        assert str(root) in str(error) and "\n" not in str(error)
        return
    for records in dataset.splits.values():
        for record in records:
            assert all(0 <= instance.label < len(dataset.classes) for instance in record.instances)
            assert foreground(record).shape == class_index(record).shape == record.size
            assert all(len(column) == len(boxes_of(record)[0]) for column in boxes_of(record))
            for x1, y1, x2, y2 in (instance.box for instance in record.instances):
                assert 0 <= x1 <= x2 <= record.width and 0 <= y1 <= y2 <= record.height
    assert all("\n" not in str(problem) for problem in dataset.problems)
    first = next((problem for problem in dataset.problems if problem.kind == "malformed"), None)
    try:
        again = formats.read(root)
        assert first is None and plain(again) == plain(dataset)
    except SegdetError as error:
        assert first is not None or not any(dataset.splits.values())
        assert isinstance(error, InputError) == bool(dataset.problems)  # else there is just nothing in it
        assert first is None or str(error).startswith(str(first))


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


# Tools' XML: texts that numbers, names and lists could be, in every place where one stands.
texts = st.one_of(
    words,
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20),
    st.lists(words, max_size=8).map(",".join),
    st.lists(st.tuples(st.floats(-3, 70), st.floats(-3, 70)), max_size=6).map(
        lambda p: ";".join(f"{x},{y}" for x, y in p)
    ),
)
broken = st.one_of(st.binary(max_size=150), st.text("<>/annotation object=\"'&;[]!?", max_size=150).map(str.encode))


def attribute(text: str) -> str:
    return text.translate({ord(a): b for a, b in {"&": "&amp;", "<": "&lt;", '"': "&quot;", ">": "&gt;"}.items()})


@pytest.fixture(scope="module")
def drawn_voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return voc(tmp_path_factory.mktemp("voc"))


@pytest.fixture(scope="module")
def drawn_cvat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cvat(tmp_path_factory.mktemp("cvat"))


@pytest.fixture(scope="module")
def drawn_labelme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelme(tmp_path_factory.mktemp("labelme"))


@pytest.fixture(scope="module")
def drawn_masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return roboflow(tmp_path_factory.mktemp("masks"))


@many
@given(corners=st.lists(texts, min_size=4, max_size=4), name=texts, difficult=texts, width=texts)
def test_any_text_in_a_voc_file(drawn_voc: Path, corners: list[str], name: str, difficult: str, width: str) -> None:
    told = f"<size><width>{attribute(width)}</width><height>{HEIGHT}</height></size>"
    inner = box(attribute(name), tuple(map(attribute, corners)), f"<difficult>{attribute(difficult)}</difficult>")
    (drawn_voc / "Annotations" / "a.xml").write_text(f"<annotation>{told}{inner}{box()}</annotation>", encoding="utf-8")
    read_and_draw(drawn_voc)


@many
@given(content=broken)
def test_any_bytes_as_a_voc_file(drawn_voc: Path, content: bytes) -> None:
    (drawn_voc / "Annotations" / "a.xml").write_bytes(content)
    read_and_draw(drawn_voc)


CVAT_KEYS = [
    "points",
    "xtl",
    "ytl",
    "xbr",
    "ybr",
    "rotation",
    "rle",
    "left",
    "top",
    "width",
    "height",
    "cx",
    "cy",
    "rx",
    "ry",
    "label",
]


@many
@given(
    kind=st.sampled_from(["polygon", "box", "mask", "ellipse", "points", "x"]),
    given_=st.dictionaries(st.sampled_from(CVAT_KEYS), texts, max_size=6),
    name=texts,
)
def test_any_text_in_a_cvat_file(drawn_cvat: Path, kind: str, given_: dict[str, str], name: str) -> None:
    sound = {
        "points": "1,1;9,1;9,9",
        "xtl": "1",
        "ytl": "1",
        "xbr": "9",
        "ybr": "9",
        "rle": "1,3,4,2",
        "left": "5",
        "top": "6",
    }
    sound |= {"width": "5", "height": "2", "cx": "32", "cy": "20", "rx": "9", "ry": "5", "label": "crack"}
    attributes = " ".join(f'{key}="{attribute(value)}"' for key, value in (sound | given_).items())
    image = f'<image id="1" name="{attribute(name)}"/><image id="0" name="a.png"><{kind} {attributes}/></image>'
    (drawn_cvat / "annotations.xml").write_text(f"<annotations>{image}</annotations>", encoding="utf-8")
    read_and_draw(drawn_cvat)


@many
@given(
    key=st.sampled_from(["points", "label", "shape_type", "group_id", "mask"]),
    value=st.one_of(values, st.lists(st.lists(st.floats(-3, 70), min_size=2, max_size=2), max_size=6)),
    kind=st.sampled_from(["polygon", "rectangle", "circle", "mask"]),
)
def test_any_value_in_a_labelme_shape(drawn_labelme: Path, key: str, value: Any, kind: str) -> None:
    good = shape([[10, 10], [30, 10], [30, 30]])
    labelme(drawn_labelme, good, {**shape([[10, 10], [30, 30]], kind), key: value})
    read_and_draw(drawn_labelme)


@many
@given(key=st.sampled_from(["shapes", "imagePath", "imageHeight", "imageWidth"]), value=values)
def test_any_value_in_a_labelme_file(drawn_labelme: Path, key: str, value: Any) -> None:
    labelme(drawn_labelme, shape([[10, 10], [30, 10], [30, 30]]), **{key: value})
    read_and_draw(drawn_labelme)


@many
@given(
    rows=st.one_of(st.text(max_size=60), st.lists(st.tuples(words, texts).map(", ".join), max_size=4).map("\n".join))
)
def test_any_class_list_beside_masks(drawn_masks: Path, rows: str) -> None:
    content = f"Pixel Value, Class\n{rows}".encode("utf-8", "surrogatepass")
    (drawn_masks / "train" / "_classes.csv").write_bytes(content)
    read_and_draw(drawn_masks)


@many
@given(seed=st.integers(0, 10**6), cut=st.one_of(st.none(), st.integers(0, 200)), top=st.integers(1, 255))
def test_any_mask_image(tmp_path_factory: pytest.TempPathFactory, seed: int, cut: int | None, top: int) -> None:
    root = tmp_path_factory.getbasetemp() / "any-mask"
    if not root.exists():
        blank(root / "images" / "a.png")
        save_mask(root / "masks" / "a.png", STAMP)
    rng = np.random.default_rng(seed)
    save_mask(root / "masks" / "a.png", rng.integers(0, top + 1, STAMP.shape) * (rng.random(STAMP.shape) < 0.1))
    if cut is not None:
        data = bytearray((root / "masks" / "a.png").read_bytes())
        data[cut % len(data)] ^= 1 << seed % 8
        (root / "masks" / "a.png").write_bytes(bytes(data))
    read_and_draw(root)


# Cards and lists: what names the classes, the splits and the images.
lines = st.lists(
    st.one_of(texts, st.sampled_from(["a", "a.png", "images/train/a.png", "../a", "/a", "a 1"])), max_size=5
)


@many
@given(
    content=st.one_of(
        st.binary(max_size=100),
        st.dictionaries(
            st.sampled_from(["train", "val", "test", "path", "nc", "names", "license", "roboflow"]),
            st.one_of(values, st.sampled_from(["images/train", "../images/train", "list.txt", "/", "."])),
        ).map(lambda card: json.dumps({"train": "images/train", "names": ["crack"], **card}).encode()),
        st.text("names:train[]{}&*a- \n!|>#\"'0", max_size=60).map(
            lambda t: f"train: images/train\nnames: {t}".encode()
        ),
    ),
    listed=lines,
)
def test_any_data_yaml_and_list(cards: Path, content: bytes, listed: list[str]) -> None:
    (cards / "data.yaml").write_bytes(content)
    (cards / "list.txt").write_bytes("\n".join(listed).encode("utf-8", "surrogatepass"))
    read_and_draw(cards)


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return yolo(tmp_path_factory.mktemp("cards"))


@many
@given(
    listed=st.one_of(lines.map("\n".join).map(str.encode), st.binary(max_size=60)), kind=st.booleans(), colours=lines
)
def test_any_voc_list_and_label_map(
    tmp_path_factory: pytest.TempPathFactory, listed: bytes, kind: bool, colours: list[str]
) -> None:
    root = tmp_path_factory.getbasetemp() / "any-list"
    if not root.exists():
        save_mask(voc(root, box()) / "SegmentationClass" / "a.png", STAMP)
        blank(root / "JPEGImages" / "b.png")
        for folder in ("Main", "Segmentation"):
            (root / "ImageSets" / folder).mkdir(parents=True)
    (root / "ImageSets" / ("Main" if kind else "Segmentation") / "train.txt").write_bytes(listed)
    (root / "labelmap.txt").write_text("\n".join(["background:0,0,0::", *colours, "crack:9,9,9::"]), encoding="utf-8")
    read_and_draw(root)


COCO_BYTES = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "crack"}],
        "annotations": [annotation(), annotation(id=2)],
    }
).encode()


@many
@given(
    content=st.one_of(
        st.binary(max_size=100),
        st.dictionaries(st.sampled_from(["images", "annotations", "categories", "licenses", "info"]), values).map(
            lambda told: json.dumps(told).encode()
        ),
        st.tuples(st.integers(0, 400), st.binary(max_size=3)).map(lambda cut: COCO_BYTES[: cut[0]] + cut[1]),
    )
)
def test_any_bytes_as_a_coco_file(instances: Path, content: bytes) -> None:
    (instances / "_annotations.coco.json").write_bytes(content)
    read_and_draw(instances)


@many
@given(
    content=st.one_of(st.binary(max_size=200), st.lists(lines, max_size=4).map(str).map(str.encode)),
    header=st.booleans(),
)
def test_any_csv_of_boxes(tmp_path_factory: pytest.TempPathFactory, content: bytes, header: bool) -> None:
    root = tmp_path_factory.getbasetemp() / "any-csv"
    blank(root / "a.png")
    first = b"filename,width,height,class,xmin,ymin,xmax,ymax\na.png,64,48,crack,1,2,30,40\na.png,64,48,"
    (root / "_annotations.csv").write_bytes((first if header else b"") + content)
    read_and_draw(root)


@many
@given(
    notes=st.one_of(st.binary(max_size=60), values.map(lambda v: json.dumps({"categories": v}).encode())),
    card=st.one_of(st.binary(max_size=60), lines.map("\n".join).map(str.encode)),
)
def test_any_darknet_card_and_notes(tmp_path_factory: pytest.TempPathFactory, notes: bytes, card: bytes) -> None:
    root = tmp_path_factory.getbasetemp() / "any-notes"
    blank(root / "images" / "a.png")
    (root / "labels").mkdir(exist_ok=True)
    (root / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2")
    (root / "notes.json").write_bytes(notes)
    read_and_draw(root)
    (root / "obj.data").write_bytes(b"train = images\nnames = obj.names\n" + card)
    (root / "obj.names").write_bytes(card)
    read_and_draw(root)
    (root / "obj.data").unlink()
