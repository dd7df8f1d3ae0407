"""Pictures and the report of a detection run, from boxes that are known."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdet.data.catalog import cards
from segdet.data.records import Dataset
from segdet.drawing import grid
from segdet.evaluation.detection import DetectionEvaluation, Detections, judge
from segdet.reporting import detection, pictures, plots
from segdet.reporting.page import Subject
from tests.detectors import blob_dataset, blob_metadata
from tests.drawn import found_near, yolo_dataset

HISTORY = [
    {"epoch": 1.0, "time": 60.0, "lr": 1e-4, "images_per_second": 3.0, "train/loss": 9.0, "metrics/ap": None},
    {"epoch": 2.0, "time": 120.0, "lr": 5e-5, "images_per_second": 3.0, "train/loss": 7.0, "metrics/ap": 0.2},
]  # fmt: skip


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return cards.load(str(blob_dataset(tmp_path_factory.mktemp("data") / "blobs", count=8)))


def _evaluation(dataset: Dataset, found: list[Detections]) -> DetectionEvaluation:
    result = DetectionEvaluation(dataset.classes, dataset.splits["val"])
    for index, one in enumerate(found):
        result.add(index, one)
    return result


def _subject(dataset: Dataset) -> Subject:
    return Subject("detr-blobs", None, dataset, "val", blob_metadata(), HISTORY, {}, ([], True))


def _count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(axis=2).sum())


def test_the_difference_shows_found_wrong_and_missed(blobs: Dataset) -> None:
    records = blobs.splits["val"]
    index = next(i for i, record in enumerate(records) if len(record.instances) == 3)
    boxes = np.array([instance.box for instance in records[index].instances], np.float32)
    labels = np.array([instance.label for instance in records[index].instances])
    far = np.array([[0, 60, 12, 75]], np.float32)
    found = Detections(np.concatenate([boxes[:1], far]), np.array([0.9, 0.8], np.float32), labels[[0, 0]])
    for threshold, wrong in ((0.5, True), (0.85, False)):
        result = DetectionEvaluation(blobs.classes, records)
        result.add(index, found)
        labelled, predicted, difference = detection.comparison(records[index], result, index, threshold)
        assert labelled.shape == predicted.shape == difference.shape
        assert _count(difference, detection._FOUND) > 50 and _count(difference, detection._MISSED) > 50
        assert (_count(difference, detection._WRONG) > 50) is wrong
        assert _count(labelled, detection._MISSED) == _count(predicted, detection._FOUND) == 0


def test_pictures_of_the_worst_and_the_best(blobs: Dataset, tmp_path: Path) -> None:
    records = blobs.splits["val"]
    found = [Detections(np.array([i.box for i in r.instances], np.float32).reshape(-1, 4), np.full(len(r.instances), 0.9, np.float32),
                        np.array([i.label for i in r.instances], int)) for r in records]  # fmt: skip
    most = max(range(len(records)), key=lambda i: len(records[i].instances))
    found[most] = Detections(found[most].boxes[:1], found[most].scores[:1], (found[most].labels[:1] + 1) % 3)
    result = _evaluation(blobs, found)
    ordered = detection._ordered(result, 0.5)
    assert ordered["worst"] == [most] and most not in ordered["best"]
    assert all(records[i].instances for i in ordered["best"])  # an empty image is no achievement
    detection.validation(records, result, 0.5, tmp_path)
    worst, best = (Image.open(tmp_path / f"val_{name}.jpg") for name in ("worst", "best"))
    assert worst.width == best.width == 3 * 484 + 4 and best.height > 2 * worst.height
    assert Image.open(tmp_path / "val_curves.png").width == 1200


def test_the_report_tells_everything_and_needs_no_network(blobs: Dataset, tmp_path: Path) -> None:
    dataset = replace(blobs, classes=("<b>red</b>", *blobs.classes[1:]))
    result = _evaluation(dataset, found_near(blobs.splits["val"], 3, 0))
    metrics = judge(result, "val").metrics
    detection.write_report(tmp_path / "report.html", _subject(dataset), metrics, result)
    page = (tmp_path / "report.html").read_text()
    text = re.sub(r"data:image/[^']*", "", page)
    assert (
        "http:" not in text and "https:" not in text and "<b>red</b>" not in text and "&lt;b&gt;red&lt;/b&gt;" in text
    )
    for value in (metrics["ap"], metrics["ap50"], metrics["ar_100"], *metrics["ci95"]["ap"], metrics["recall"]):
        assert f"{value:.4f}" in text
    assert f"threshold {metrics['threshold']:.3f}" in text and "<td class=n>none" in text  # no large object is there
    for title, number in (("Found", metrics["errors"]["correct"]), ("Invented", metrics["errors"]["background"])):
        assert f"<th>{title}<td class=n>{number}<" in text
    assert page.count("data:image/jpeg") >= 4 and page.count("<svg") == 2 and "2 epochs, 2.0 minutes" in text


def test_a_report_of_nothing_found_and_one_of_nothing_to_find(blobs: Dataset, tmp_path: Path) -> None:
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int))
    empty = replace(blobs, splits={**blobs.splits, "val": tuple(replace(r, instances=()) for r in blobs.splits["val"])})
    for name, dataset in (("missed", blobs), ("empty", empty)):
        result = _evaluation(dataset, [nothing] * 8)
        metrics = judge(result, "val").metrics
        (tmp_path / name).mkdir()
        detection.validation(dataset.splits["val"], result, metrics["threshold"], tmp_path / name)
        detection.write_report(tmp_path / name / "report.html", _subject(dataset), metrics, result)
        assert not (tmp_path / name / "val_best.jpg").exists()
        assert (tmp_path / name / "val_worst.jpg").exists() is (name == "missed")


def test_label_pictures_of_boxes_and_of_outlines(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[list[str]] = []
    save = pictures._save
    monkeypatch.setattr(pictures, "_save", lambda f, p: (titles.append([a.get_title() for a in f.axes]), save(f, p)))
    pictures.labels(blobs, tmp_path / "boxes.png")
    pictures.labels(cards.load(str(yolo_dataset(tmp_path / "walls", train=2, val=2))), tmp_path / "outlines.png")
    assert titles[0][0] == "24 objects in 16 images" and titles[0][3] == "objects per image: 1.5 on average"
    assert titles[0][4].startswith("area of a box") and titles[1][4].startswith("foreground")
    assert all(np.asarray(Image.open(tmp_path / f"{name}.png")).std() > 20 for name in ("boxes", "outlines"))


def test_samples_show_classes_as_they_are_and_nothing_where_it_is_unknown(tmp_path: Path) -> None:
    grey = np.full((60, 60, 3), 128, np.uint8)
    classes = np.zeros((60, 60), np.uint8)
    classes[:20], classes[20:40] = 3, 255
    covered = np.full((60, 60), 255, np.uint8)
    pictures.samples([grey], [classes], False, tmp_path / "classes.jpg")
    pictures.samples([grey], [covered], True, tmp_path / "covered.jpg")
    several, one = (np.asarray(Image.open(tmp_path / f"{name}.jpg")).astype(int) for name in ("classes", "covered"))
    shown = several[:, several.shape[1] // 8 :][:, 5 : several.shape[1] // 8 - 5]  # the second tile
    high = shown.shape[0] // 3
    colour = np.abs(shown - 128).max(axis=2)
    assert colour[5 : high - 5].mean() > 30 and colour[high + 8 : -8].max() < 12
    assert np.abs(one[:, one.shape[1] // 8 :] - 128).max(axis=2).mean() > 10


def test_how_many_boxes_cover_a_place() -> None:
    cover = pictures._coverage(np.array([[0, 0, 1, 1], [0, 0, 0.5, 1], [0.25, 0.5, 0.5, 0.75]]))
    assert cover.shape == (64, 64)
    assert (cover[:, 32:] == 1).all() and (cover[:32, :32] == 2).all() and (cover[32:48, 16:32] == 3).all()
    assert cover.sum() == 64 * 64 + 64 * 32 + 16 * 16


@pytest.mark.parametrize("scores", [("iou", "f1"), ("ap", "ap50", "f1")])
def test_curves_follow_what_was_measured(scores: tuple[str, ...]) -> None:
    names = [f"metrics/{name}" for name in scores]
    history = [{"epoch": float(e), "train/loss": 1.0, **dict.fromkeys(names, None if e % 2 else 0.5)} for e in range(6)]
    figure = plots.results(history)
    assert [line.get_label() for line in figure.axes[1].lines] == [*scores, "kept"]
    assert figure.axes[1].lines[0].get_xdata().tolist() == [0, 2, 4]


def test_rows_of_a_grid_are_as_high_as_their_pictures() -> None:
    flat, tall = np.zeros((50, 100, 3), np.uint8), np.zeros((100, 50, 3), np.uint8)
    sheet = grid([flat, flat, flat, tall], 2, 100)
    assert sheet.shape == (50 + 100 + 3 * 4, 2 * 104 + 4, 3)
    assert (sheet[4:54, 4:104] == 0).all() and (sheet[58:158, 108:158] == 0).all() and (sheet[58:, 160:] == 255).all()
