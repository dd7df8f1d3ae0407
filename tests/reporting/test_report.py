"""The report of a segmentation run: complete, self-contained, and right about leaks and several classes."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segdet import provenance
from segdet.data.catalog import cards
from segdet.data.doctor import leaks
from segdet.data.doctor.copies import Pair
from segdet.data.doctor.findings import Case
from segdet.data.geometry.rasterize import class_index
from segdet.data.loading.datasets import Batch
from segdet.data.records import Dataset
from segdet.evaluation import segmentation
from segdet.evaluation.segmentation import Evaluation, Judged
from segdet.reporting import publish, report
from segdet.reporting.page import Subject
from tests.detectors import blob_metadata
from tests.drawn import yolo_dataset


class _Page(HTMLParser):
    """What a page refers to, its ids, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "data", "poster", "srcset"):
                self.addresses.append(value or "")
            elif name == "id":
                self.ids.append(value or "")
            elif value and "url(" in value:
                self.addresses += re.findall(r"url\(([^)]*)\)", value)

    def handle_data(self, data: str) -> None:
        self.words += data


def _opened(path: Path) -> _Page:
    page = _Page(path.read_text())
    assert all(address.startswith(("data:", "#")) for address in page.addresses), "something would be fetched"
    assert not {"script", "iframe", "object", "embed", "form"} & page.tags
    assert "default-src 'none'" in path.read_text()
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids)), "two elements of one id: curves would borrow each other's parts"
    return page


def test_the_report_of_a_run_tells_everything(trained: Path) -> None:
    page = _opened(trained / "report.html")
    metrics = json.loads((trained / "metrics.json").read_text())
    for name in ("iou", "f1_2px", "cldice", "boundary_iou", "average_precision"):
        assert f"{metrics[name]:.4f}" in page.words, name
    for heading in (
        "Scores", "Kinds of mistakes", "Worst and best images", "Threshold", "Can its probabilities be believed?", "Pixels right and wrong",
        "Training", "Speed", "How to get this again",
    ):  # fmt: skip
        assert heading in page.words, heading
    origin = json.loads((trained / provenance.FILE).read_text())
    assert origin["command"] in page.words and f"torch {origin['versions']['torch']}" in page.words
    assert f"segdet train --config {trained / 'config.yaml'}" in page.words
    assert (trained / "report.html").read_text().count("<svg class=plot") == 5
    assert "photographs of the same object were not" in page.words and "Only 6 photographs" in page.words
    with (trained / "errors.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(row["count"] for row in metrics["errors"].values())
    assert [int(row["pixels"]) for row in rows] == sorted((int(row["pixels"]) for row in rows), reverse=True)
    assert Image.open(trained / "results.png").size == (1100, 700)


def _judged(dataset: Dataset, wrong: bool) -> tuple[Evaluation, Judged]:
    """What a model of several classes would get that is perfect, or confuses them and invents a line."""
    records = dataset.splits["val"]
    truth = [class_index(record) for record in records]
    answers = [mask.copy() for mask in truth]
    if wrong:
        for mask in answers:
            mask[mask == 2] = 1
            mask[:30, 40:46] = 2
    batches = [Batch(torch.zeros(1, 1, 1, 3), torch.from_numpy(mask)[None], [k]) for k, mask in enumerate(truth)]
    result = segmentation.evaluate(
        lambda batch: (answers[batch.indices[0]][None], np.full((1, 96, 96), 0.8, np.float32)),
        batches, records, dataset.classes, keep=True,
    )  # fmt: skip
    return result, segmentation.judge(result, "val")


@pytest.mark.parametrize("wrong", [False, True])
def test_several_classes(tmp_path: Path, wrong: bool) -> None:
    dataset = cards.load(str(yolo_dataset(tmp_path / "walls", train=2, val=4, classes=("<b>crack</b>", "joint"))))
    result, judged = _judged(dataset, wrong)
    subject = Subject("several", None, dataset, "val", blob_metadata(), [], {}, ([], True))
    report.write(tmp_path / "page.html", subject, judged.metrics, result, judged.errors)
    page, text = _opened(tmp_path / "page.html"), (tmp_path / "page.html").read_text()
    assert "<b>crack</b>" not in text and "Confusion of classes" in page.words
    assert "Threshold" not in page.words and "Training" not in page.words.split("Speed")[0].split("Scores")[1]
    assert ("Too large" in page.words) and ("No error of 30 pixels" in page.words) is not wrong
    if wrong:
        assert "False alarm" in page.words and judged.metrics["errors"]["false"]["count"] >= 4
        assert judged.metrics["confusion"]["matrix"][2][1] > 0


def test_leaks_are_told_in_the_report(walls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGDET_CACHE", str(tmp_path / "cache"))
    root = shutil.copytree(walls, tmp_path / "walls")
    dataset = cards.load(str(root))
    assert leaks.known(dataset) == ([], False)
    train, val = dataset.splits["train"], dataset.splits["val"]
    shutil.copy(train[3].image, val[1].image)
    dataset = cards.load(str(root))
    (leak,), searched = leaks.known(dataset)
    assert (leak.seen, leak.scored, leak.why, searched) == (train[3].image, val[1].image, "the same file", False)

    pairs = [(train[0], val[0]), (train[1], train[2])]
    leaks.remember(dataset, [Pair(a, b, ("train", "val"), Case((a.image, b.image), "")) for a, b in pairs])
    found, searched = leaks.known(dataset)
    assert searched and {one.scored for one in found} == {val[0].image, val[1].image}
    # another division of the same images knows the same pairs
    moved = replace(dataset, splits={"train": (*train[2:], *val), "val": train[:2]})
    assert [one.scored for one in leaks.known(moved)[0]] == [train[0].image, train[1].image]

    result, judged = _judged(replace(dataset, classes=("crack", "joint")), wrong=False)
    told = publish.subject("leaky", None, dataset, "val", blob_metadata())
    report.write(tmp_path / "page.html", told, judged.metrics, result, judged.errors)
    words = _opened(tmp_path / "page.html").words
    assert "2 of 6 images measured here were seen in training" in words and val[0].image.name in words
    assert "photographs of the same object were not" not in words
