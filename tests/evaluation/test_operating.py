"""Rules that choose a threshold."""

from __future__ import annotations

import numpy as np
import pytest

from segdet.errors import InputError, SegdetError
from segdet.evaluation.operating import Rule, parse

CURVE = {
    "threshold": np.arange(11) / 10,
    "recall": np.array([1.0, 0.99, 0.96, 0.96, 0.96, 0.9, 0.8, 0.6, 0.3, 0.1, 0.0]),
    "precision": np.array([0.1, 0.3, 0.5, 0.5, 0.5, 0.7, 0.65, 0.9, 0.92, 0.85, 1.0]),
}


def _choose(text: str) -> float:
    return parse(text).choose(CURVE, best=0.42)


def test_rules_are_read_and_written() -> None:
    assert [str(parse(text)) for text in ("max-f1", "recall=0.95", "precision=.9", "recall=1")] == [
        "max-f1", "recall=0.95", "precision=0.9", "recall=1",
    ]  # fmt: skip
    assert parse("max-f1") == Rule()
    for wrong in (
        "recall",
        "recall=0",
        "recall=1.5",
        "precision=95",
        "f1",
        "",
        "precision=-0.5",
        "recall=0.9,precision=0.9",
    ):
        with pytest.raises(InputError, match=r"^threshold_rule="):
            parse(wrong)


def test_the_best_threshold_that_keeps_the_promise() -> None:
    assert _choose("max-f1") == 0.42
    assert _choose("recall=0.9") == 0.5  # highest precision among 0.1 .. 0.5
    assert _choose("recall=0.95") == pytest.approx(0.3)  # 0.2, 0.3 and 0.4 do the same: the middle
    assert _choose("precision=0.9") == pytest.approx(0.7)  # highest recall among 0.7 and 0.8
    assert _choose("precision=0.6") == 0.5
    assert _choose("recall=0.05") == pytest.approx(0.8)


def test_what_cannot_be_reached_says_how_far_it_goes() -> None:
    with pytest.raises(SegdetError, match=r"precision=0.95: no threshold reaches it on these images \(at most 0.920\)"):
        _choose("precision=0.95")  # precision 1 of nothing found is no answer
    with pytest.raises(SegdetError, match=r"at most 0\.990"):
        _choose("recall=1")
    blind = {**CURVE, "recall": np.zeros(11)}
    with pytest.raises(SegdetError, match="nothing is found at all"):
        parse("recall=0.5").choose(blind, 0.5)
