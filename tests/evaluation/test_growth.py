"""Memory of a measurement follows the size of the images, not the number of mistakes, objects or images."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from segdet.data.geometry import masks, rasterize
from segdet.data.geometry.boxes import parts
from segdet.data.records import Instance, Record
from segdet.drawing import grid
from segdet.evaluation import kept, mask_errors, segmentation, thin
from segdet.evaluation.kept import Kept
from segdet.evaluation.segmentation import Evaluation, judge
from tests.drawn import crack_mask

SIDE = 600


def _peak(work: Callable[[], object]) -> int:
    """Bytes that Python and numpy hold at most at once while it runs, beyond those before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _specks(count: int, size: int = 7, side: int = SIDE) -> np.ndarray:
    """`count` squares apart from one another."""
    mask = np.zeros((side, side), bool)
    across = side // 25
    assert count <= across**2
    for number in range(count):
        y, x = 25 * (number // across), 25 * (number % across)
        mask[y : y + size, x : x + size] = True
    return mask


def _record(instances: tuple[Instance, ...]) -> Record:
    return Record(Path("a.jpg"), SIDE, SIDE, instances, "a")


@pytest.mark.parametrize("turned", [False, True], ids=["false", "missed"])
def test_memory_does_not_grow_with_mistakes(turned: bool) -> None:
    peaks = []
    for count in (10, 500):
        pair = [_specks(count), np.zeros((SIDE, SIDE), bool)]
        pair[0][-7:, -7:] = True  # so that few of them need all of the image too
        marked, labelled = pair[::-1] if turned else pair
        lines = thin.centre_line(marked), thin.centre_line(labelled)
        found: list[mask_errors.MaskError] = []
        peaks.append(_peak(lambda m=marked, t=labelled, c=lines, f=found: f.extend(mask_errors.find(m, t, c))))
        assert [error.pixels for error in found] == [49] * (count + 1)
    assert peaks[1] < 1.3 * peaks[0] + 500_000  # two arrays of the image for each would be 350 MB


def test_many_pieces_are_measured_as_one_is() -> None:
    """The same mistake alone and among others that do not touch it: equal counts, lengths and boxes."""
    alone, among = _specks(1), _specks(576)
    nothing = np.zeros_like(alone)
    (one,) = mask_errors.find(alone, nothing, (thin.centre_line(alone), nothing))
    many = mask_errors.find(among, nothing, (thin.centre_line(among), nothing))
    assert one == many[0] and len(many) == 576
    assert {(error.pixels, error.length) for error in many} == {(one.pixels, one.length)}


def test_pieces_have_the_skeleton_and_rim_of_the_whole() -> None:
    """Taken apart or together: `_PIECES` decides only what is faster."""
    rng = np.random.default_rng(0)
    for seed in range(6):
        mask = np.zeros((300, 300), bool)
        mask[80:208, 80:208] = crack_mask(seed, 128)
        for y, x in rng.integers(0, 280, (12, 2)):
            mask[y : y + rng.integers(1, 20), x : x + rng.integers(1, 20)] = True
        assert len(list(thin.pieces(mask))) > 1
        apart = thin.centre_line(mask), thin.counts(mask, np.roll(mask, 3, axis=0))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(thin, "_PIECES", -1)
            assert len(list(thin.pieces(mask))) == 1
            together = thin.centre_line(mask), thin.counts(mask, np.roll(mask, 3, axis=0))
        assert all((a == b).all() for a, b in zip(apart, together, strict=True))


@pytest.mark.parametrize("draw", [rasterize.foreground, rasterize.class_index])
def test_memory_does_not_grow_with_objects(draw: Callable[[Record], np.ndarray]) -> None:
    every = masks.regions(np.cumsum(_specks(576).ravel()).reshape(SIDE, SIDE) * _specks(576) % 997 + 1)
    stamps = [Instance(number % 3, (), masks.box(rle), rle) for number, rle in every.items()]
    few, many = _record(tuple(stamps[:4])), _record(tuple(stamps[:500]))
    assert _peak(lambda: draw(many)) < _peak(lambda: draw(few)) + 2_000_000


def test_parts_of_a_mask_are_cut_out_in_one_pass() -> None:
    specks = _specks(500)
    whole = Instance(0, (), (0, 0, SIDE, SIDE), masks.encode(specks), merged=True)
    found = parts(whole)
    assert len(found) == 500 and (masks.decode(masks.union(p.rle for p in found if p.rle)) == specks).all()
    assert found[1].box == (25.0, 0.0, 32.0, 7.0) and masks.area(found[1].rle or {}) == 49


def test_pixels_of_run_lengths_are_those_of_the_mask() -> None:
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (7, 3), (60, 40), (500, 700)):
        for share in (0.0, 0.01, 0.5, 1.0):
            mask = rng.random((height, width)) < share
            drawn = np.zeros_like(mask)
            drawn[masks.pixels(masks.encode(mask))] = True
            assert (drawn == mask).all()


def test_kept_predictions_move_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "IN_MEMORY", 100_000)
    rng = np.random.default_rng(0)
    store, arrays = Kept(), [rng.integers(0, 1000, (300, 300)).astype(np.uint16) for _ in range(40)]

    def fill() -> None:
        for number, array in enumerate(arrays):
            store.put(number, array)

    assert _peak(fill) < 1_500_000  # all of them take 5 MB, compressed
    assert all((store.get(number) == array).all() for number, array in enumerate(arrays))
    assert 39 in store and 40 not in store


def test_a_grid_takes_its_pictures_one_by_one() -> None:
    def pictures(count: int) -> Iterator[np.ndarray]:
        return (np.full((SIDE, SIDE, 3), number, np.uint8) for number in range(count))

    assert _peak(lambda: grid(pictures(32), 4, 40)) < _peak(lambda: grid(pictures(2), 4, 40)) + 500_000
    assert (grid(pictures(5), 2, 40) == grid(list(pictures(5)), 2, 40)).all()


def test_a_whole_measurement_does_not_grow_with_its_mistakes() -> None:
    crack = np.array([[50, 500], [550, 500], [550, 506], [50, 506]], np.float32)
    record = _record((Instance(0, (crack,), (50, 500, 550, 506)),))
    target = rasterize.target(record, 1)
    peaks = []
    for count in (10, 400):
        marked = (target > 0) | _specks(count)

        def measured(marked: np.ndarray = marked, count: int = count) -> None:
            result = Evaluation(["crack"], [record])
            result.add(0, np.where(marked, np.float32(0.9), np.float32(0.1)), target * 255, None, keep=True)
            assert judge(result, "val").metrics["errors"]["false"]["count"] == count

        peaks.append(_peak(measured))
    assert peaks[1] < 1.3 * peaks[0] + 1_000_000


def test_what_is_far_from_every_label_needs_no_distance_to_it() -> None:
    """Distances to a label's centre line are taken where a wrong pixel is nearest to it, not over the whole image."""
    asked: list[tuple[int, int]] = []
    before = cv2.distanceTransformWithLabels

    def watching(image: np.ndarray, *rest: int, **more: int) -> object:
        asked.append(image.shape)
        return before(image, *rest, **more)

    labelled = np.zeros((SIDE, SIDE), bool)
    labelled[550:556, 50:550] = True
    marked = _specks(400)
    marked[540:560, 50:300] = True
    lines = thin.centre_line(marked), thin.centre_line(labelled)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cv2, "distanceTransformWithLabels", watching)
        found = mask_errors.find(marked, labelled, lines)
    assert mask_errors.summary(found)["false"]["count"] == 400
    assert mask_errors.summary(found)["too_wide"]["count"] == mask_errors.summary(found)["missed"]["count"] == 1
    assert sorted(asked)[0][0] <= 20 and len(asked) == 2


@pytest.mark.parametrize("count", [1, 7])
def test_images_are_examined_side_by_side_with_one_result(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """As many at a time as the machine allows, two at most, and the order of the images stays."""
    record = _record(())
    at_once, most = [0], [0]
    before = mask_errors.find

    def watching(*given: Any) -> list[mask_errors.MaskError]:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        found = before(*given)
        at_once[0] -= 1
        return found

    monkeypatch.setattr(mask_errors, "find", watching)
    results = []
    for threads in (1, 2):
        monkeypatch.setattr(segmentation, "cores", lambda threads=threads: threads)
        result = Evaluation(["crack"], [record] * count)
        for index in range(count):
            answer = np.where(_specks(10 + index), np.float32(0.9), np.float32(0.1))
            result.add(index, answer, np.zeros((SIDE, SIDE), np.uint8), None, keep=True)
        results.append(judge(result, "test", threshold=0.5))
        assert most[0] <= threads
    one, two = results
    assert [error.image for error in one.errors] == [k for k in range(count) for _ in range(10 + k)]
    assert one.errors == two.errors and one.metrics == two.metrics
