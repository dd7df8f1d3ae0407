"""The gate of detection exports: equal sets pass, whatever their order; anything that matters and differs does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segdet.data.catalog import cards
from segdet.data.records import Record
from segdet.errors import SegdetError
from segdet.evaluation.detection import Detections
from segdet.exporting.detection_parity import DetectionLimits, _difference, compare_detections, sentence
from segdet.inference.backends.select import open_session
from segdet.inference.backends.session import Session
from tests.detectors import blob_dataset, blob_model

Change = Callable[[Detections], Detections]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return open_session(blob_model(tmp_path_factory.mktemp("exports") / "blobs.onnx"), "cpu")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, ...]:
    return cards.load(str(blob_dataset(tmp_path_factory.mktemp("data") / "blobs", count=6))).splits["val"]


def _compare(session: Session, records: tuple[Record, ...], change: Change) -> dict[str, object]:
    def predict(image: np.ndarray) -> Detections:
        return change(Detections(*(output[0] for output in session.run(image[None]))))

    compared = compare_detections(predict, session, records, DetectionLimits(), lambda _: None)
    json.dumps(compared, allow_nan=False)
    return compared


def test_the_same_answers_pass(session: Session, records: tuple[Record, ...]) -> None:
    compared = _compare(session, records, lambda found: found)
    assert compared["passed"] and (compared["compared"], compared["detections"]) == (6, 7)
    assert (
        compared["ap"] == {"torch": 1.0, "onnx": 1.0, "delta": 0.0, "ci95": [0.0, 0.0]}
        and compared["ap50"]["onnx"] == 1.0
    )
    assert len(compared["images"]) == 6 and "0 of 7 detections have no partner" in sentence(compared)


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        (lambda f: Detections(f.boxes + 0.4, f.scores, f.labels), True),
        (lambda f: Detections(f.boxes + 0.6, f.scores, f.labels), False),
        (lambda f: Detections(f.boxes, f.scores - 9e-4, f.labels), True),
        (lambda f: Detections(f.boxes, f.scores - 2e-3, f.labels), False),
        (lambda f: Detections(f.boxes, f.scores, (f.labels + 1) % 3), False),
        (lambda f: Detections(f.boxes[1:], f.scores[1:], f.labels[1:]), False),
        (lambda f: Detections(f.boxes + 50 * (f.scores < 0.01)[:, None], f.scores, f.labels), True),  # nobody sees those
        (lambda f: Detections(f.boxes[[0, 0, 1, 2]], f.scores[[0, 0, 1, 2]], f.labels[[0, 0, 1, 2]]), False),
    ],
    ids=["near", "moved", "a little less sure", "less sure", "other class", "one lost", "below the floor", "one doubled"],
)  # fmt: skip
def test_what_differs_is_judged_by_the_limits(
    session: Session, records: tuple[Record, ...], change: Change, passes: bool
) -> None:
    compared = _compare(session, records, change)
    assert compared["passed"] is passes
    assert (
        passes
        or compared["worst"][0]["unmatched"]
        or compared["max_box_difference"]
        or compared["max_score_difference"]
    )


def test_order_does_not_matter_and_twins_find_their_own_partners() -> None:
    rng = np.random.default_rng(0)
    boxes = np.repeat(rng.uniform(0, 100, (20, 4)), 2, axis=0).astype(np.float32)
    boxes[1::2] += 0.3  # twins within the limit of each other, with scores that tell them apart
    scores = np.linspace(0.9, 0.2, 40).astype(np.float32)
    found = Detections(boxes, scores, np.repeat(np.arange(20), 2))
    order = rng.permutation(40)
    mixed = Detections(boxes[order], scores[order], found.labels[order])
    row = _difference(found, mixed, 0.05, DetectionLimits())
    assert row == {"detections": 40, "unmatched": 0, "box": 0.0, "score": 0.0}


def test_a_score_on_the_floor_needs_no_partner_above_it() -> None:
    box = np.array([[0, 0, 9, 9]], np.float32)
    above, below = (Detections(box, np.array([score], np.float32), np.zeros(1, int)) for score in (0.0504, 0.0496))
    assert _difference(above, below, 0.05, DetectionLimits())["unmatched"] == 0
    nothing = Detections(box[:0], np.zeros(0, np.float32), np.zeros(0, int))
    assert _difference(above, nothing, 0.05, DetectionLimits())["unmatched"] == 1
    assert _difference(below, nothing, 0.05, DetectionLimits())["unmatched"] == 0


def test_images_that_cannot_be_read_are_named(session: Session, records: tuple[Record, ...], tmp_path: Path) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"torn")
    bad = Record(torn, 10, 10, (), "torn")
    counted: list[int] = []

    def predict(image: np.ndarray) -> Detections:
        return Detections(*(output[0] for output in session.run(image[None])))

    compared = compare_detections(predict, session, (bad, *records), DetectionLimits(), counted.append)
    assert (
        compared["passed"] and compared["compared"] == 6 and "torn.png" in compared["skipped"][0] and sum(counted) == 7
    )
    with pytest.raises(SegdetError, match=r"none of the 1 images.*torn\.png"):
        compare_detections(predict, session, (bad,), DetectionLimits(), counted.append)
