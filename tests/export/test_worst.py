"""The picture of the images that differ most: the right ones, also where files of several folders share a name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from segdet.data.images import read_image
from segdet.data.records import Record
from segdet.errors import SegdetError
from segdet.evaluation.detection import Detections
from segdet.exporting import worst
from segdet.exporting.detection_parity import DetectionLimits, compare_detections
from segdet.exporting.parity import LIMITS, compare, session_reference
from segdet.inference.backends.select import open_session
from tests.detectors import blob_model, blob_picture
from tests.segmenters import dark_model

RED, BLUE = (200, 60, 60), (60, 60, 200)


class Nothing(nn.Module):
    """A network that finds nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(-9.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logit.expand(len(images), 1, *images.shape[2:])


def walls(folder: Path) -> list[Record]:
    """A red street and a blue bridge, both called 001.png."""
    records = []
    for name, colour in (("street", RED), ("bridge", BLUE)):
        file = folder / name / "001.png"
        file.parent.mkdir()
        Image.fromarray(np.full((40, 60, 3), colour, np.uint8)).save(file)
        records.append(Record(file, 60, 40, (), name))
    return records


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    session, records = open_session(dark_model(tmp_path / "dark.onnx"), "cpu"), walls(tmp_path)
    same = session_reference(session)

    def reference(image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        mask, confidence = same(image)
        return (1 - mask if image[0, 0, 0] == RED[0] else mask), confidence  # they disagree on the street only

    compared = compare(reference, session, records, LIMITS["fp32"], lambda _: None)
    assert [row["image"] for row in compared["worst"]] == ["001.png", "001.png"]
    assert [records[row["index"]].photograph for row in compared["worst"]] == ["street", "bridge"]
    json.dumps(compared, allow_nan=False)
    (tmp_path / "shown.jpg").write_bytes(worst.picture(Nothing(), session, session.metadata, records, compared))
    shown = read_image(tmp_path / "shown.jpg")
    rows = [shown[top, 184].astype(int) for top in (124, 368)]  # the middle of the first picture of each row
    assert all(np.abs(row - colour).max() < 20 for row, colour in zip(rows, (RED, BLUE), strict=True)), rows


def test_boxes_of_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    session = open_session(blob_model(tmp_path / "blobs.onnx"), "cpu")
    records = []
    for name, where in (("street", {"red": (10, 20, 60, 70)}), ("bridge", {"blue": (100, 30, 150, 90)})):
        (tmp_path / name).mkdir()
        picture = blob_picture(where)
        Image.fromarray(picture).save(tmp_path / name / "001.png")
        records.append(Record(tmp_path / name / "001.png", picture.shape[1], picture.shape[0], (), name))

    def moved(image: np.ndarray) -> Detections:
        boxes, scores, labels = (output[0] for output in session.run(image[None]))
        return Detections(boxes + 0.4 * (image == read_image(records[1].image)).all(), scores, labels)

    compared = compare_detections(moved, session, records, DetectionLimits(), lambda _: None)
    assert [records[row["index"]].photograph for row in compared["worst"]] == ["bridge", "street"]


def test_pictures_that_are_gone_are_one_line(tmp_path: Path) -> None:
    session, records = open_session(dark_model(tmp_path / "dark.onnx"), "cpu"), walls(tmp_path)
    compared = compare(session_reference(session), session, records, LIMITS["fp32"], lambda _: None)
    records[0].image.unlink()
    assert worst.picture(Nothing(), session, session.metadata, records, compared)
    records[1].image.unlink()
    with pytest.raises(SegdetError, match="cannot be read any more"):
        worst.picture(Nothing(), session, session.metadata, records, compared)
