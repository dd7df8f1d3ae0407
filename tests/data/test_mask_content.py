"""What a mask image means is decided by its content: alpha, colours, smoothed edges, wide samples, JPEG."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segdet.data import formats
from segdet.data.doctor import examine
from segdet.data.geometry.rasterize import binary, class_index, foreground
from segdet.data.records import Dataset
from tests.data.helpers import HEIGHT, WIDTH, blank, only, refused
from tests.data.test_mask_formats import STAMP, roboflow

ON = STAMP > 0
TWO = STAMP.copy()
TWO[30:40, 20:50] = 2
RED, GREEN, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 0), (255, 255, 255)


def save(root: Path, mask: Image.Image | np.ndarray, name: str = "a.png", **options: object) -> Path:
    """images/<stem>.png with masks/<name>."""
    blank(root / "images" / f"{Path(name).stem}.png")
    (root / "masks").mkdir(exist_ok=True)
    picture = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    picture.save(root / "masks" / name, **options)
    return root


def painted(index: np.ndarray, *colours: tuple[int, ...]) -> np.ndarray:
    return np.array(colours, np.uint8)[index]


def drawn(dataset: Dataset) -> np.ndarray:
    return binary(foreground(only(dataset)))


def palette(index: np.ndarray, *colours: tuple[int, ...]) -> Image.Image:
    picture = Image.fromarray(index.astype(np.uint8))
    picture.putpalette([channel for colour in colours for channel in colour])
    return picture


def cut_out() -> np.ndarray:
    """A photograph whose surroundings are transparent."""
    photograph = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    return np.dstack([photograph, STAMP * 255])


def strokes(alpha: np.ndarray) -> np.ndarray:
    return np.dstack([np.zeros((HEIGHT, WIDTH, 3), np.uint8), alpha])


@pytest.mark.parametrize(
    "mask",
    [
        painted(STAMP, (*WHITE, 0), (*WHITE, 255)),
        painted(STAMP, (*RED, 0), (*RED, 127)),
        painted(STAMP, (*BLACK, 0), (*RED, 127)),
        painted(STAMP, (*WHITE, 0), (*GREEN, 200)),
        painted(STAMP, (*BLACK, 0), (*BLACK, 255)),
        painted(STAMP, (*BLACK, 255), (*RED, 255)),
        painted(STAMP, (*BLACK, 254), (*WHITE, 255)),
        painted(STAMP, BLACK, (9, 9, 200)),
        cut_out(),
        strokes(cv2.GaussianBlur(STAMP * 200, (1, 1), 0)),
        Image.merge("LA", [Image.fromarray(STAMP * 0 + 255), Image.fromarray(STAMP * 255)]),
        Image.fromarray(STAMP.astype(np.uint16) * 65535),
        palette(1 - STAMP, WHITE, BLACK),
    ],
    ids=[
        "white-in-alpha", "red-in-alpha", "red-overlay", "green-overlay", "black-strokes", "red-opaque", "nearly-opaque", "blue",
        "cut-out", "soft-alpha", "grey-alpha", "uint16", "palette-black-behind",
    ],
)  # fmt: skip
def test_one_object_on_a_background_is_one_class_however_it_is_stored(
    mask: np.ndarray | Image.Image, tmp_path: Path
) -> None:
    dataset = formats.read(save(tmp_path, mask))
    assert dataset.problems == () and len(dataset.classes) == 1
    assert (drawn(dataset) == ON).all()


def test_an_empty_mask_beside_others_is_background_in_every_mode(tmp_path: Path) -> None:
    save(tmp_path, painted(STAMP, (*BLACK, 0), (*RED, 127)))
    for name, empty in (
        ("b.png", painted(STAMP * 0, (*RED, 0))),
        ("c.png", STAMP * 0),
        ("d.png", painted(STAMP * 0, BLACK)),
        ("e.png", painted(STAMP * 0, (*BLACK, 255))),
    ):
        save(tmp_path, empty, name)
    dataset = formats.read(tmp_path)
    assert [len(record.instances) for record in dataset.splits["train"]] == [1, 0, 0, 0, 0]
    assert dataset.problems == () and len(dataset.classes) == 1


def test_wide_samples_hold_class_numbers_too(tmp_path: Path) -> None:
    wide = TWO.astype(np.uint16)
    wide[0, :20] = 65535
    dataset = formats.read(save(tmp_path / "a", wide))
    assert dataset.classes == ("class_1", "class_2")
    assert (class_index(only(dataset)) == np.where(wide == 65535, 255, TWO)).all()
    dataset = formats.read(save(tmp_path / "b", Image.fromarray(TWO.astype(np.float32)), "a.tif"))
    assert (class_index(only(dataset)) == TWO).all()
    dataset = formats.read(save(tmp_path / "c", Image.fromarray(STAMP.astype(np.float32) * 0.9), "a.tif"))
    assert (drawn(dataset) == ON).all()
    whole = Image.fromarray(STAMP.astype(np.int32) * 65535)
    assert (drawn(formats.read(save(tmp_path / "i", whole, "a.tif"))) == ON).all()
    for name, value in (("d", np.nan), ("e", 7.5), ("f", -3.0), ("g", 300)):
        bad = np.where(ON, value, 0).astype(np.float32)
        refused(save(tmp_path / name, Image.fromarray(bad), "a.tif"), "a.tif", "class numbers from 0 to 255")


def smoothed(channels: tuple[int, ...] | None = None, factor: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A thin line drawn large and shrunk, and the pixels from half on."""
    large = np.zeros((HEIGHT * factor, WIDTH * factor), np.uint8)
    line = (np.array([[5, 4], [30, 28], [50, 40], [60, 12]]) * factor).astype(np.int32)
    cv2.polylines(large, [line], False, 255, 3 * factor)
    small = np.asarray(Image.fromarray(large).resize((WIDTH, HEIGHT), Image.Resampling.BOX))
    if channels is None:
        return small, small >= 128
    return np.rint(small[..., None] / 255 * np.array(channels)).astype(np.uint8), small >= 128


@pytest.mark.parametrize("channels", [None, RED, (10, 200, 60)], ids=["grey", "red", "green"])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_greys_on_smoothed_edges_are_no_classes(channels: tuple[int, ...] | None, factor: int, tmp_path: Path) -> None:
    mask, expected = smoothed(channels, factor)
    dataset = formats.read(save(tmp_path, mask))
    assert dataset.classes == ("foreground",) and dataset.problems == ()
    assert (drawn(dataset) == expected).all()
    (tmp_path / "labelmap.txt").unlink(missing_ok=True)
    (tmp_path / "classes.txt").write_text("crack\n")
    named = formats.read(tmp_path)
    assert named.classes == ("crack",) and (drawn(named) == expected).all()


def test_noise_that_jpeg_left_is_no_class(tmp_path: Path) -> None:
    expected = smoothed()[1]
    for quality in (50, 75, 95):
        buffer = io.BytesIO()
        Image.fromarray(np.where(expected, 255, 0).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
        for name in ("a.png", "a.jpg"):
            root = tmp_path / f"{quality}{name[1:]}"
            save(root, Image.open(buffer), name, **({"quality": quality} if name == "a.jpg" else {}))
            dataset = formats.read(root)
            assert dataset.classes == ("foreground",) and dataset.problems == ()
            assert (drawn(dataset) == expected).mean() > 0.98


@pytest.mark.parametrize("width", [1, 2, 5])
def test_thin_class_numbers_stay_classes(width: int, tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.line(mask, (2, 2), (50, 40), 1, width)
    cv2.line(mask, (2, 40), (50, 2), 2, width)
    cv2.line(mask, (60, 2), (60, 40), 255, width)
    dataset = formats.read(save(tmp_path, mask))
    assert dataset.classes == ("class_1", "class_2") and (class_index(only(dataset)) == mask).all()


def trimap() -> np.ndarray:
    mask = TWO * 0
    mask[5:30, 5:40], mask[12:20, 12:30] = 128, 255
    return mask


def resized_classes() -> np.ndarray:
    """Classes written as 85, 170 and 255, and resized with smoothing."""
    large = np.kron(np.where(TWO == 2, 170, TWO * 85).astype(np.uint8), np.ones((3, 3), np.uint8))
    large[:60, 150:] = 255
    return np.asarray(Image.fromarray(large).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(
    ("mask", "rows"),
    [
        (painted(TWO, BLACK, RED, GREEN), ("background:0,0,0::", ":255,0,0::", ":0,255,0::")),
        (painted(TWO, BLACK, RED, (128, 0, 0)), ("background:0,0,0::", ":255,0,0::", ":128,0,0::")),
        (painted(STAMP, WHITE, RED), ("background:255,255,255::", ":255,0,0::")),
        (painted(TWO, (0, 0, 0, 0), (*RED, 127), (*GREEN, 127)), ("background:0,0,0::", ":255,0,0::", ":0,255,0::")),
        (trimap(), ("background:0,0,0::", ":128,128,128::", ":255,255,255::")),
        (resized_classes(), (":85,85,85::", ":170,170,170::")),
    ],
    ids=["two", "shades", "white", "overlay", "trimap", "resized"],
)
def test_several_colours_without_a_list_are_refused_with_the_lines_to_write(
    mask: np.ndarray, rows: tuple[str, ...], tmp_path: Path
) -> None:
    save(tmp_path, mask[:1, :1].repeat(HEIGHT, 0).repeat(WIDTH, 1), "empty.png")
    message = refused(save(tmp_path, mask), str(tmp_path / "labelmap.txt"), *rows)
    lines = message.split("in them: ")[1].split()
    (tmp_path / "labelmap.txt").write_text("\n".join(lines))
    dataset = formats.read(tmp_path)
    assert dataset.classes == tuple(line.split(":")[0] for line in lines[1:])
    (marked,) = [record for record in dataset.splits["train"] if record.image.stem == "a"]
    assert {instance.label for instance in marked.instances} == set(range(len(dataset.classes)))


def test_a_list_of_names_does_not_say_what_colours_mean(tmp_path: Path) -> None:
    save(tmp_path, painted(TWO, BLACK, RED, GREEN))
    (tmp_path / "classes.txt").write_text("crack\nstain\n")
    refused(tmp_path, "classes.txt has no colours", "labelmap.txt", ":255,0,0::")
    root = roboflow(tmp_path / "r", rows="0, background\n1, crack\n2, stain\n")
    Image.fromarray(painted(TWO, BLACK, RED, GREEN)).save(root / "train" / "a_mask.png")
    refused(root, "_classes.csv", "export them again")


def test_a_colour_that_the_label_map_lacks_is_never_its_class(tmp_path: Path) -> None:
    save(tmp_path, painted(STAMP, BLACK, RED))
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\ncrack:0,255,0::\n")
    refused(tmp_path, "no mask marks an object", "(255, 0, 0)")
    save(tmp_path, painted(STAMP, BLACK, GREEN), "b.png")
    dataset = formats.read(tmp_path)
    assert [len(record.instances) for record in dataset.splits["train"]] == [0, 1]
    assert any("(255, 0, 0)" in str(problem) for problem in dataset.problems)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_label_map_may_turn_black_and_white_around(mode: str, tmp_path: Path) -> None:
    save(tmp_path, Image.fromarray((1 - STAMP) * 255).convert(mode))
    (tmp_path / "labelmap.txt").write_text("crack:0,0,0::\nbackground:255,255,255::\n")
    dataset = formats.read(tmp_path)
    assert dataset.classes == ("crack",) and dataset.problems == () and (drawn(dataset) == ON).all()


def test_palettes_that_are_sorted_for_each_file_are_read_as_colours(tmp_path: Path) -> None:
    save(tmp_path, palette(TWO, BLACK, RED, GREEN))
    save(tmp_path, palette(STAMP, BLACK, GREEN), "b.png")
    refused(tmp_path, "labelmap.txt", ":0,255,0::")
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\ncrack:255,0,0::\nstain:0,255,0::\n")
    dataset = formats.read(tmp_path)
    assert [sorted(i.label for i in record.instances) for record in dataset.splits["train"]] == [[0, 1], [1]]


def test_a_palette_with_a_transparent_background_keeps_its_values(tmp_path: Path) -> None:
    save(tmp_path, palette(TWO, (7, 7, 7), RED, GREEN), transparency=0)
    dataset = formats.read(tmp_path)
    assert dataset.classes == ("class_1", "class_2") and (class_index(only(dataset)) == TWO).all()


def jpeg_steps(index: np.ndarray) -> np.ndarray:
    return index * np.uint8(100)


@pytest.mark.parametrize("paint", [lambda index: index, jpeg_steps, lambda index: painted(index, BLACK, RED, GREEN)])
def test_class_numbers_in_jpeg_are_refused(paint: Callable[[np.ndarray], np.ndarray], tmp_path: Path) -> None:
    save(tmp_path, STAMP * 0, "empty.jpg")
    message = refused(save(tmp_path, paint(TWO), "a.jpg"), "a.jpg", "JPEG", "PNG")
    assert "no mask marks an object" in message


def test_masks_of_which_no_value_counts_are_refused(tmp_path: Path) -> None:
    save(tmp_path, STAMP * 255)
    (tmp_path / "classes.txt").write_text("crack\nstain\n")
    refused(tmp_path, "classes.txt", "0/255", "1 crack")


def test_a_photograph_in_place_of_a_mask_is_left_out(tmp_path: Path) -> None:
    save(tmp_path, STAMP * 255)
    save(tmp_path, cut_out()[..., :3], "b.png")
    dataset = formats.read(tmp_path)
    assert only(dataset).image.stem == "a" and "colours" in str(dataset.problems[0])


@pytest.mark.parametrize(
    ("mask", "code"),
    [((1 - STAMP) * 255, "foreground-large"), (STAMP * 255, None), (np.pad([[255]], ((0, 383), (0, 511))), "foreground-small")],
    ids=["inverted", "usual", "specks"],
)  # fmt: skip
def test_the_doctor_warns_of_masks_that_mark_nearly_everything_or_nothing(
    mask: np.ndarray, code: str | None, tmp_path: Path
) -> None:
    save(tmp_path, mask.astype(np.uint8))
    blank(tmp_path / "images" / "a.png", *mask.shape)
    findings = examine(formats.read(tmp_path), look_alike=False).checkup.findings
    shares = [finding for finding in findings if finding.code.startswith("foreground-")]
    assert [(finding.code, finding.severity) for finding in shares] == ([(code, "warning")] if code else [])
