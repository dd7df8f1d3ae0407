"""A small part of `scripts/fuzz_data.py`: whatever a file holds, segdet answers with records or with one clear error."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzzing.sets import FORMATS
from tests.fuzzing.trials import KINDS, Change, Kind, Sound

_TRIALS = 40


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_read_or_refused(name: str, kind: Kind, tmp_path: Path) -> None:
    sound = Sound(name, tmp_path)
    assert not sound.try_change(Change("nothing", {}))
    failures = []
    for number in range(_TRIALS):
        change = sound.change(kind, 0, number)
        why = sound.try_change(change)
        if why:
            failures.append(f"trial {number} ({change.text}): {why}")
    assert not failures, "\n".join(failures)


def test_a_trial_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    sound = Sound("yolo", tmp_path)
    assert sound.change("labels", 1, 7) == sound.change("labels", 1, 7) != sound.change("labels", 2, 7)
