"""Datasets by name: where they are looked for, what is drawn on first use, and what the messages say."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from segdet.cli.data import info
from segdet.data.catalog import cards as catalog
from segdet.data.synthetic import cracks
from segdet.errors import InputError
from tests.drawn import plain, yolo_dataset


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own, without any dataset."""
    desk = tmp_path / "desk"
    desk.mkdir()
    monkeypatch.chdir(desk)
    monkeypatch.delenv("SEGDET_DATASETS", raising=False)
    return desk


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """`crack-demo` with few small pictures; all else about it is real."""
    monkeypatch.setattr(cracks, "write", functools.partial(cracks.write, train=2, val=1, test=1, size=64))


def message(name: str) -> str:
    with pytest.raises(InputError) as caught:
        catalog.load(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_cards_that_come_with_segdet() -> None:
    cards = catalog.cards()
    assert {"crack", "coco", "crack-demo"} <= set(cards)
    assert cards["crack"].task == "segmentation" and cards["crack"].classes == ("crack",)
    assert cards["crack"].source and not cards["crack"].generated
    assert cards["crack-demo"].generated and cards["crack-demo"].licence
    assert cards["coco"].task == "detection"


def test_a_path_is_read_as_it_is(tmp_path: Path) -> None:
    root = yolo_dataset(tmp_path / "walls", train=2, val=1, size=(24, 24))
    dataset = catalog.load(str(root))
    assert dataset.name == "walls" and len(dataset.splits["train"]) == 2
    assert plain(catalog.load(str(root / "data.yaml"))) == plain(dataset)


def test_a_relative_path_and_a_home_folder_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yolo_dataset(Path("walls"), train=2, val=1, size=(24, 24))
    assert catalog.load("walls").name == "walls"
    assert catalog.load("./walls").name == "walls"
    assert catalog.load("walls/").name == "walls"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert catalog.load("~/desk/walls").name == "walls"


def test_a_named_dataset_is_found_in_the_datasets_folder() -> None:
    yolo_dataset(Path("datasets/crack"), train=2, val=1, size=(24, 24))
    dataset = catalog.load("crack")
    assert dataset.name == "crack" and dataset.root == Path("datasets/crack")
    assert dataset.licence == catalog.cards()["crack"].licence  # the export names none


def test_the_licence_of_an_export_goes_before_the_cards() -> None:
    yolo_dataset(Path("datasets/coco"), "roboflow", 2, 1, (24, 24))
    yolo_dataset(Path("datasets/crack-demo"), "roboflow", 2, 1, (24, 24))
    assert catalog.load("crack-demo").licence == "Public Domain"
    assert catalog.load("coco").licence == catalog.cards()["coco"].licence  # a file's list of Flickr licences says less


def test_the_environment_names_another_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yolo_dataset(Path("datasets/crack"), train=2, val=1, size=(24, 24))
    monkeypatch.setenv("SEGDET_DATASETS", str(tmp_path / "large disk"))
    assert len(catalog.load("crack").splits["train"]) == 2  # nothing there: ./datasets is tried next
    yolo_dataset(tmp_path / "large disk" / "crack", train=3, val=1, size=(24, 24))
    assert len(catalog.load("crack").splits["train"]) == 3
    assert catalog.homes() == [tmp_path / "large disk", Path("datasets")]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SEGDET_DATASETS", "~/large disk")
    assert catalog.folder_of("crack") == tmp_path / "large disk" / "crack"


def test_any_folder_among_the_datasets_has_a_name() -> None:
    yolo_dataset(Path("datasets/bridges"), train=2, val=1, size=(24, 24))
    assert catalog.load("bridges").name == "bridges"


def test_a_dataset_that_is_not_there_names_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGDET_DATASETS", str(tmp_path / "disk"))
    (tmp_path / "disk" / "crack").mkdir(parents=True)  # an empty folder is no dataset
    said = message("crack")
    source = catalog.cards()["crack"].source
    assert source is not None
    for way in (str(tmp_path / "disk" / "crack"), "datasets/crack", source, "SEGDET_DATASETS", "path", "crack-demo"):
        assert way in said, way


@pytest.mark.parametrize(("typo", "meant"), [("crak", "crack"), ("crack-dmeo", "crack-demo"), ("Coco", "coco")])
def test_a_typo_is_answered_with_the_name_that_was_meant(typo: str, meant: str) -> None:
    said = message(typo)
    assert f'did you mean "{meant}"' in said and typo in said


def test_an_unknown_name_or_path_lists_what_is_known() -> None:
    for name in ("zzzzzz", "no/such/folder"):
        said = message(name)
        assert name in said and "did you mean" not in said
        assert "coco, crack, crack-demo" in said


def test_the_demo_is_drawn_on_first_use_and_then_kept(small_demo: None) -> None:
    seen: list[tuple[int, int]] = []
    dataset = catalog.load("crack-demo", lambda done, total: seen.append((done, total)))
    assert {split: len(records) for split, records in dataset.splits.items()} == {"train": 2, "val": 1, "test": 1}
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert dataset.root == Path("datasets/crack-demo") and dataset.classes == ("crack",) and dataset.problems == ()
    assert dataset.licence and "CC0" in dataset.licence
    seen.clear()
    assert (
        catalog.load("crack-demo", lambda done, total: seen.append((done, total))).fingerprint()
        == dataset.fingerprint()
    )
    assert seen == []


def test_the_demo_is_drawn_where_the_environment_says(
    small_demo: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGDET_DATASETS", str(tmp_path / "disk"))
    assert catalog.load("crack-demo").root == tmp_path / "disk" / "crack-demo"
    assert not Path("datasets").exists()


def test_an_empty_folder_in_its_place_does_not_stop_the_demo(small_demo: None) -> None:
    Path("datasets/crack-demo").mkdir(parents=True)
    assert catalog.load("crack-demo").splits["train"]


def test_a_home_that_cannot_be_written_falls_back(
    small_demo: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SEGDET_DATASETS", str(tmp_path / "file" / "datasets"))
    assert catalog.load("crack-demo").root == Path("datasets/crack-demo")


def test_root_leaves_a_home_that_is_read_only_alone(
    small_demo: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o555)
    monkeypatch.setenv("SEGDET_DATASETS", str(shared))
    assert catalog.load("crack-demo").root == Path("datasets/crack-demo")
    assert not any(shared.iterdir())


def test_without_any_home_to_write_the_message_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    Path("datasets").write_text("in the way as well")
    monkeypatch.setenv("SEGDET_DATASETS", str(tmp_path / "file"))
    assert "SEGDET_DATASETS" in message("crack-demo")


@pytest.mark.parametrize(
    "content", [b"", b"- a\n- list\n", b"name: x\n", b"{unclosed", b"\xff\xfe\x00", b"classes: 7\n"]
)
def test_a_broken_card_is_refused_by_name(content: bytes) -> None:
    Path("datasets").mkdir()
    Path("datasets/mine.yaml").write_bytes(content)
    assert "datasets/mine.yaml" in message("mine")


@pytest.mark.parametrize(
    "content",
    [b"{unclosed", b"\xff\xfe\x00", b"on: 2026-13-45\n", b"name: x\ntitle: x\ntask: x\nlicence: x\nclasses: 7\n"],
)
def test_a_broken_card_is_no_matter_of_the_other_datasets(content: bytes, small_demo: None) -> None:
    yolo_dataset(Path("datasets/mine"), train=2, val=1, size=(24, 24))
    yolo_dataset(Path("walls"), train=2, val=1, size=(24, 24))
    Path("datasets/mine.yaml").write_bytes(content)
    for name in ("walls", "datasets/mine", "crack-demo"):
        assert catalog.load(name).splits["val"]
    assert "no such folder" in message("nothing-of-the-kind")
    assert "datasets/mine.yaml: not a dataset card (" in message("mine")


def test_the_bar_is_as_long_as_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(folder: Path, progress: object, **_: object) -> Path:
        return yolo_dataset(folder, train=2, val=1, size=(24, 24))

    @contextmanager
    def noted(title: str, total: int) -> Iterator[Callable[..., None]]:
        totals.append(total)
        yield lambda count=1, note="": None

    totals: list[int] = []
    monkeypatch.setattr(cracks, "write", drawn)
    monkeypatch.setattr("segdet.console.progress", noted)
    for name in ("crack-drawn", "crack-demo", "datasets/crack-demo"):
        info(name)
    assert totals == [1560, 220, 0]


def test_a_card_of_ones_own_is_used() -> None:
    yolo_dataset(Path("datasets/bridges"), train=2, val=1, size=(24, 24))
    Path("datasets/bridges.yaml").write_text("name: bridges\ntitle: Bridges\ntask: segmentation\nlicence: ours\n")
    assert catalog.load("bridges").licence == "ours"
