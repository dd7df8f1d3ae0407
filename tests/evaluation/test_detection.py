"""Detection scores: equal to pycocotools, and right in cases small enough to count by hand."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segdet.data.catalog import cards
from segdet.data.geometry.boxes import area_of
from segdet.data.records import Instance, Problem, Record
from segdet.errors import SegdetError
from segdet.evaluation import coco, detection_errors
from segdet.evaluation.detection import DetectionEvaluation, Detections, evaluate_detections, judge
from tests.drawn import boxed_records, found_near

TWELVE = coco.TWELVE


def _evaluation(records: list[Record], found: list[Detections], classes: int) -> DetectionEvaluation:
    result = DetectionEvaluation([f"class {k}" for k in range(classes)], records)
    for index, one in enumerate(found):
        result.add(index, one)
    return result


def _full(result: DetectionEvaluation, split: str, threshold: float | None = None) -> dict[str, Any]:
    return judge(result, split, threshold=threshold).metrics


def _found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Detections from (x1, y1, x2, y2, score, label)."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def _record(*objects: tuple[float, float, float, float, int], crowd: tuple[int, ...] = (), name: str = "a") -> Record:
    instances = tuple(
        Instance(label, (), (x1, y1, x2, y2), crowd=k in crowd) for k, (x1, y1, x2, y2, label) in enumerate(objects)
    )
    return Record(Path(f"{name}.jpg"), 200, 100, instances, name)


def _pycocotools(records: list[Record], found: list[Detections], classes: int) -> list[float | None]:
    """The twelve numbers by the original evaluator, from annotations put together apart from segdet's."""
    images = [{"id": number + 1} for number in range(len(records))]
    categories = [{"id": label + 1} for label in range(classes)]
    truth, answers = [], []
    for number, (record, one) in enumerate(zip(records, found, strict=True)):
        for instance in record.instances:
            x1, y1, x2, y2 = np.float32(instance.box).astype(float).tolist()
            area = (x2 - x1) * (y2 - y1)
            if instance.polygons:
                area = 0.0
                for polygon in instance.polygons:
                    x, y = polygon.astype(float).T
                    area += abs(sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
            truth.append(
                {"id": len(truth) + 1, "image_id": number + 1, "category_id": instance.label + 1, "area": area,
                 "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": int(instance.crowd)}
            )  # fmt: skip
        for box, score, label in zip(one.boxes.astype(float).tolist(), one.scores, one.labels, strict=True):
            x1, y1, x2, y2 = box
            answers.append(
                {"id": len(answers) + 1, "image_id": number + 1, "category_id": int(label) + 1, "score": float(score),
                 "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            )  # fmt: skip

    def collection(rows: list[dict[str, object]]) -> COCO:
        made = COCO()
        made.dataset = {"images": images, "categories": categories, "annotations": rows}
        made.createIndex()
        return made

    with contextlib.redirect_stdout(io.StringIO()):
        counted = COCOeval(collection(truth), collection(answers), "bbox")
        counted.evaluate()
        counted.accumulate()
        counted.summarize()
    return [None if value < 0 else float(value) for value in counted.stats]


@pytest.mark.parametrize(("seed", "classes", "crowds"), [(0, 1, False), (1, 5, False), (2, 5, True), (3, 40, True)])
def test_the_twelve_numbers_are_pycocotools(seed: int, classes: int, crowds: bool) -> None:
    records = boxed_records(seed, 30, classes, crowds)
    found = found_near(records, classes, seed)
    metrics = _evaluation(records, found, classes).metrics()
    theirs = _pycocotools(records, found, classes)
    assert [metrics[name] for name in TWELVE] == pytest.approx(theirs, abs=1e-6)
    assert 0.05 < metrics["ap"] < 0.9


def test_more_than_a_hundred_detections_of_a_class_in_an_image() -> None:
    records = boxed_records(4, 4, 1, False)
    rng = np.random.default_rng(0)
    found = []
    for one in found_near(records, 1, 4):
        corner = rng.uniform(0, 80, (150, 2))
        boxes = np.concatenate([one.boxes, np.concatenate([corner, corner + 15], 1).astype(np.float32)])
        found.append(
            Detections(boxes, rng.permutation(len(boxes)).astype(np.float32) / 1000, np.zeros(len(boxes), int))
        )
    result = _evaluation(records, found, 1)
    in_order = [result.kept[index] for index in result.indices]
    metrics = result.metrics()
    assert [metrics[name] for name in TWELVE] == pytest.approx(_pycocotools(records, in_order, 1), abs=1e-6)
    every = result.counted()[1].average_precision(np.ones((1, 4), np.int64))
    assert every.mean() == pytest.approx(metrics["ap"], abs=1e-9)


def test_the_twelve_numbers_are_pycocotools_on_real_coco() -> None:
    if cards.folder_of("coco") is None:
        pytest.skip("needs the real COCO sample: set SEGDET_DATASETS")
    dataset = cards.load("coco")
    records = list(dataset.splits["val"])
    found = found_near(records, 80, 7)
    metrics = _evaluation(records, found, 80).metrics()
    assert [metrics[name] for name in TWELVE] == pytest.approx(_pycocotools(records, found, 80), abs=1e-6)


def test_an_objects_area_is_cocos_own() -> None:
    if (folder := cards.folder_of("coco")) is None:
        pytest.skip("needs the real COCO sample: set SEGDET_DATASETS")
    content = json.loads((folder / "annotations/instances_val2017.json").read_text())
    theirs = sorted(a["area"] for a in content["annotations"] if not a["iscrowd"])
    records = cards.load("coco").splits["val"]
    ours = sorted(area_of(i) for record in records for i in record.instances if not i.crowd)
    assert ours == pytest.approx(theirs, rel=1e-3)  # outlines are stored as float32 and clipped to the image


@pytest.mark.parametrize("seed", range(3))
def test_intervals_recount_what_pycocotools_would_count(seed: int) -> None:
    records = boxed_records(seed, 25, 6, crowds=True)
    found = found_near(records, 6, seed)
    matches = _evaluation(records, found, 6).counted()[1]
    times = np.random.default_rng(seed).multinomial(25, np.full(25, 1 / 25), size=4)
    ours = matches.average_precision(times)
    for k, row in enumerate(times):
        drawn = np.repeat(np.arange(25), row)
        theirs = _pycocotools([records[i] for i in drawn], [found[i] for i in drawn], 6)
        assert (ours[:, k].mean(), ours[0, k]) == pytest.approx(tuple(theirs[:2]), abs=1e-9)


def test_intervals_hold_the_score_and_draw_siblings_together() -> None:
    records = boxed_records(5, 40, 3, crowds=False)
    found = found_near(records, 3, 5)
    full = _full(_evaluation(records, found, 3), "val")
    for name in ("ap", "ap50"):
        low, high = full["ci95"][name]
        assert low < full[name] < high and high - low < 0.4
    one_photograph = [Record(r.image, r.width, r.height, r.instances, "same") for r in records]
    together = _full(_evaluation(one_photograph, found, 3), "val")
    assert together["ci95"]["ap"] == pytest.approx([full["ap"], full["ap"]])


def test_threshold_f1_precision_and_recall_by_hand() -> None:
    records = [_record((0, 0, 40, 40, 0), (100, 0, 140, 40, 0)), _record((0, 0, 20, 20, 1), name="b")]
    found = [
        _found((0, 0, 40, 40, 0.9, 0), (100, 0, 140, 38, 0.5, 0), (50, 50, 60, 60, 0.3, 0)),
        _found((0, 0, 20, 20, 0.7, 0), (0, 0, 20, 19, 0.4, 1)),
    ]
    metrics = _evaluation(records, found, 2).metrics()
    # from 0.4 down to above 0.3: three right, one wrong (0.7 has the wrong class), none missed
    assert metrics["threshold"] == pytest.approx(0.35, abs=0.001)
    assert (metrics["precision"], metrics["recall"], metrics["f1"]) == pytest.approx((0.75, 1.0, 6 / 7))
    at = _evaluation(records, found, 2).metrics(0.8)
    assert (at["threshold"], at["precision"], at["recall"]) == pytest.approx((0.8, 1.0, 1 / 3))
    assert _evaluation(records, found, 2).f1_of_each(0.6) == pytest.approx({0: 2 / 3, 1: 0.0})


def test_nothing_to_find_and_nothing_found() -> None:
    empty = _found()
    records = [_record(name="a"), _record(name="b")]
    nothing = _full(_evaluation(records, [empty, empty], 2), "val")
    assert (
        nothing["ap"] is None
        and nothing["ci95"]["ap"] is None
        and nothing["f1"] is None
        and nothing["ci95"]["f1"] is None
    )
    assert (nothing["threshold"], nothing["labelled_images"], nothing["operate"]) == (0.5, 0, None)
    assert nothing["classes"]["class 0"] == {"ap": None, "ap50": None, "objects": 0}
    wrong = _full(_evaluation(records, [empty, _found((0, 0, 9, 9, 0.6, 1))], 2), "val", 0.5)
    assert (wrong["f1"], wrong["errors"]["background"]) == (None, 1) and wrong["ap"] is None
    objects = [_record((0, 0, 40, 40, 1)), _record(name="b")]
    missed = _full(_evaluation(objects, [empty, empty], 2), "val")
    assert (missed["ap"], missed["recall"], missed["errors"]["missed"]) == (0.0, 0.0, 1)
    assert missed["classes"]["class 0"]["ap"] is None and missed["classes"]["class 1"]["ap"] == 0.0
    assert missed["ap_small"] is None and missed["ap_medium"] == 0.0
    json.dumps([nothing, wrong, missed], allow_nan=False)


def test_what_lies_in_a_crowd_is_neither_right_nor_wrong() -> None:
    records = [_record((0, 0, 100, 100, 0), (150, 0, 190, 40, 0), crowd=(0,))]
    found = [_found((150, 0, 190, 40, 0.9, 0), (10, 10, 30, 30, 0.8, 0), (50, 50, 90, 90, 0.7, 0))]
    full = _full(_evaluation(records, found, 1), "val", 0.5)
    assert (full["ap"], full["precision"], full["recall"]) == (1.0, 1.0, 1.0)
    assert full["errors"] == {"correct": 1, **dict.fromkeys(detection_errors.KINDS, 0)}
    assert full["classes"]["class 0"]["objects"] == 1


def test_every_kind_of_mistake_by_hand() -> None:
    record = _record(
        (0, 0, 40, 40, 0), (60, 0, 100, 40, 0), (120, 0, 160, 40, 1), (0, 60, 40, 100, 1), (60, 60, 99, 99, 0)
    )
    found = _found(
        (0, 0, 40, 40, 0.9, 0),  # right
        (1, 1, 41, 41, 0.8, 0),  # the same object again
        (60, 20, 100, 60, 0.8, 0),  # IoU 1/3 with its object: misplaced
        (120, 0, 160, 40, 0.8, 0),  # right place, wrong class
        (0, 80, 40, 120, 0.8, 0),  # IoU 1/3 and wrong class
        (170, 70, 190, 90, 0.8, 0),  # nothing there
        (60, 60, 99, 99, 0.4, 0),  # right, but below the threshold: its object is missed
    )
    assert detection_errors.count([record], [found], 0.5) == {
        "correct": 1, "classification": 1, "localisation": 1, "both": 1, "duplicate": 1, "background": 1, "missed": 2,
    }  # fmt: skip


def test_the_curve_is_what_ap_is_the_mean_of() -> None:
    records = boxed_records(6, 20, 3, crowds=False)
    result = _evaluation(records, found_near(records, 3, 6), 4)  # class 3 has no object
    curve, metrics = result.curve(), result.metrics()
    assert curve["ap50"].mean() == pytest.approx(metrics["ap50"]) and curve["ap"].mean() == pytest.approx(metrics["ap"])
    assert set(curve["classes"]) == {"class 0", "class 1", "class 2"}
    pooled, at = curve["pooled"], round(metrics["threshold"] * 1000)
    assert [pooled[name][at] for name in ("f1", "precision", "recall")] == pytest.approx(
        [metrics[name] for name in ("f1", "precision", "recall")]
    )
    assert pooled["f1"][10:991].max() == pytest.approx(metrics["f1"])


def test_merged_parts_equal_the_whole_and_unsorted_scores_are_sorted() -> None:
    records = boxed_records(8, 12, 4, crowds=True)
    found = found_near(records, 4, 8)
    whole = _full(_evaluation(records, found, 4), "val")
    parts = [DetectionEvaluation([f"class {k}" for k in range(4)], records) for _ in range(2)]
    for index, one in enumerate(found):
        turned = Detections(one.boxes[::-1], one.scores[::-1], one.labels[::-1])
        parts[index % 2].add(index, turned)
    parts[0].metrics()  # what was counted before the merge must not be kept
    merged = _full(parts[0].merge(parts[1:]), "val")
    assert [merged[name] for name in TWELVE] == pytest.approx([whole[name] for name in TWELVE], abs=1e-12)
    assert merged["errors"] == whole["errors"] and merged["threshold"] == whole["threshold"]


def test_batches_problems_and_numbers_that_are_none() -> None:
    records = boxed_records(9, 3, 2, crowds=False)
    found = found_near(records, 2, 9)

    two = SimpleNamespace(indices=[2, 0], problems=[Problem(records[1].image, "damaged")])

    seen: list[int] = []
    result = evaluate_detections(
        lambda batch: [found[i] for i in batch.indices], [two], records, ["a", "b"], seen.append
    )
    full = _full(result, "test", 0.3)
    assert seen == [3] and (full["images"], full["skipped"], full["split"]) == (2, 1, "test")
    theirs = _pycocotools([records[2], records[0]], [found[2], found[0]], 2)
    assert full["ap"] == pytest.approx(theirs[0], abs=1e-9)
    broken = Detections(np.full((1, 4), np.nan, np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    with pytest.raises(SegdetError, match=f"{records[0].image}.*not finite"):
        evaluate_detections(lambda batch: [broken, broken], [two], records[::-1], ["a", "b"])
    nothing = DetectionEvaluation(["a"], records, problems=two.problems)
    with pytest.raises(SegdetError, match="none of its 3 images could be read"):
        _full(nothing, "val")
