"""Labels drawn by several hands are told from labels that merely vary, and from what a model misses or invents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segdet.data.geometry import masks
from segdet.data.geometry.rasterize import target
from segdet.data.loading.datasets import Batch
from segdet.data.records import Dataset, Instance, Record
from segdet.evaluation import segmentation
from segdet.evaluation.label_width import follows_names
from segdet.evaluation.segmentation import Judged
from segdet.reporting import report
from segdet.reporting.page import Subject
from tests.conftest import Cli
from tests.detectors import blob_metadata
from tests.segmenters import dark_model

SIDE = 96


def _band(width: int, top: int = 40) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + width] = True
    return mask


def _judged(
    tmp_path: Path, labels: list[np.ndarray], marked: Callable[[int], np.ndarray], names: list[str] | None = None
) -> tuple[Judged, str]:
    """Metrics, and the words of the report, of a model that marks `marked(k)` where `labels[k]` is labelled."""
    records = []
    for k, mask in enumerate(labels):
        instance = Instance(0, (), (0, 0, SIDE, SIDE), rle=masks.encode(mask))
        name = names[k] if names else str(k)
        records.append(Record(tmp_path / f"{name}.jpg", SIDE, SIDE, (instance,), name))
    batches = [
        Batch(torch.zeros(1, 1, 1, 3, dtype=torch.uint8), torch.from_numpy(255 * target(record, 1))[None], [k])
        for k, record in enumerate(records)
    ]
    result = segmentation.evaluate(
        lambda batch: marked(batch.indices[0])[None].astype(np.float32), batches, records, ["crack"], keep=True
    )
    judged = segmentation.judge(result, "val", threshold=0.5)
    page = tmp_path / "page.html"
    for record, mask in zip(records, labels, strict=True):
        Image.fromarray(np.where(mask, 40, 200).astype(np.uint8)).convert("RGB").save(record.image)
    dataset = Dataset("hands", tmp_path, "drawn", ("crack",), {"val": tuple(records)})
    about = Subject("hands", None, dataset, "val", blob_metadata(), [], {}, ([], True))
    report.write(page, about, judged.metrics, result, judged.errors)
    return judged, page.read_text()


def test_two_hands_one_after_the_other(tmp_path: Path) -> None:
    judged, page = _judged(tmp_path, [_band(4)] * 20 + [_band(8)] * 20, lambda k: _band(6))
    found = judged.metrics["label_width"]
    assert found["photographs"] == 40 and follows_names(found)
    np.testing.assert_allclose(found["quartiles"], [4 / 6, (4 / 6 * 8 / 6) ** 0.5, 8 / 6], rtol=1e-6)
    assert found["neighbours"] > 0.9 and found["chance"] == 1 / 500
    # one width w for labels of 4 and 8: (4 + w) / (w + 8), the largest at w = 8
    assert abs(found["iou_width_alone"] - 0.75) < 0.01
    assert "drawn in several ways" in page and "how wide the labels are drawn" in page


def test_the_same_widths_in_no_order(tmp_path: Path) -> None:
    widths = np.random.default_rng(0).permutation([4] * 20 + [8] * 20)
    judged, page = _judged(tmp_path, [_band(int(w)) for w in widths], lambda k: _band(6))
    found = judged.metrics["label_width"]
    assert not follows_names(found) and found["chance"] > 0.01
    assert "does not go with the order" in page


def test_names_are_ordered_as_people_count(tmp_path: Path) -> None:
    """img9 before img10: as text, the two hands would be mixed up."""
    names = [f"img{number}" for number in [*range(80, 100), *range(100, 120)]]
    mixed = np.random.default_rng(1).permutation(40)
    labels = [_band(4)] * 20 + [_band(8)] * 20
    judged, _ = _judged(tmp_path, [labels[k] for k in mixed], lambda k: _band(6), [names[k] for k in mixed])
    assert follows_names(judged.metrics["label_width"])


def test_what_is_missed_or_invented_is_no_width(tmp_path: Path) -> None:
    """The first half has a second line that nobody marks, the second half one that nobody labelled."""
    labels = [_band(6) | _band(6, 80)] * 20 + [_band(6)] * 20
    judged, _ = _judged(tmp_path, labels, lambda k: labels[0] if k >= 20 else _band(6))
    found = judged.metrics["label_width"]
    assert judged.metrics["errors"]["missed"]["count"] == judged.metrics["errors"]["false"]["count"] == 20
    np.testing.assert_allclose(found["quartiles"], 1, atol=0.01)
    assert not follows_names(found) and found["iou_width_alone"] > 0.99 and judged.metrics["iou"] < 0.6


def test_too_few_photographs_say_nothing(tmp_path: Path) -> None:
    judged, page = _judged(tmp_path, [_band(4)] * 10 + [_band(8)] * 10, lambda k: _band(6))
    assert judged.metrics["label_width"] is None and "drawn alike" not in page


@pytest.mark.parametrize("mixed", [False, True])
def test_the_command_says_it(cli: Cli, tmp_path: Path, mixed: bool) -> None:
    """A model that marks what is dark, on photographs whose dark bands are labelled too thin, then too wide."""
    widths = [4] * 14 + [8] * 14
    if mixed:
        widths = np.random.default_rng(0).permutation(widths).tolist()
    for split, chosen in (("train", widths[:1]), ("val", widths)):
        for folder in ("images", "masks"):
            (tmp_path / "hands" / split / folder).mkdir(parents=True)
        for k, width in enumerate(chosen):
            photo = Image.fromarray(np.where(_band(6), 40, 200).astype(np.uint8)).convert("RGB")
            photo.save(tmp_path / "hands" / split / "images" / f"{k}.png")
            label = Image.fromarray(_band(width).astype(np.uint8) * 255)
            label.save(tmp_path / "hands" / split / "masks" / f"{k}.png")
    (tmp_path / "hands" / "classes.txt").write_text("crack\n")
    arguments = ("val", dark_model(tmp_path / "dark.onnx"), "--data", tmp_path / "hands")
    told = cli(*arguments)
    assert told.returncode == 0, told.stderr
    assert ("drawn in several ways" in told.stdout) is not mixed
    found = json.loads(cli("--json", *arguments).stdout)["label_width"]
    assert found["photographs"] == 28 and (found["neighbours"] > 0.8) is not mixed
