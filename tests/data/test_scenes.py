"""Drawn scenes: never a crack, always a picture, the same ones for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segdet.data import formats
from segdet.data.catalog import cards
from segdet.data.images import read_image
from segdet.data.synthetic import cracks
from segdet.data.synthetic.negatives import draw_scene


@pytest.mark.parametrize("size", [(64, 64), (70, 130), (200, 90)])
def test_scenes_are_varied_and_repeatable(size: tuple[int, int]) -> None:
    pictures = [draw_scene(np.random.default_rng([3, index]), *size) for index in range(25)]
    for index, picture in enumerate(pictures):
        assert picture.shape == (*size, 3) and picture.dtype == np.uint8
        assert picture.std() > 2, "not one flat colour"
        assert np.array_equal(picture, draw_scene(np.random.default_rng([3, index]), *size))
    means = np.array([picture.mean(axis=(0, 1)) for picture in pictures])
    assert means.std(axis=0).min() > 12, "light and dark, of different colours"


def test_a_drawn_set_has_its_share_of_walls_without_cracks_and_of_scenes(tmp_path: Path) -> None:
    root = cracks.write(tmp_path / "set", train=60, val=0, test=0, size=64, empty=0.3, other=0.3)
    dataset = formats.read(root)
    records = dataset.splits["train"]
    empty = [record for record in records if not record.instances]
    assert len(records) == 60 and 24 <= len(empty) <= 48
    told = (root / "README.dataset.txt").read_text()
    assert "30 % of them show a wall without a crack, 30 % no wall at all" in told
    assert all(read_image(record.image).shape == (64, 64, 3) for record in records[:3])


def test_the_set_for_mixing_is_drawn_from_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def write(root: Path, **options: object) -> Path:
        asked.update(options)
        return small(root, train=2, val=0, test=0, size=64)

    small = cracks.write
    monkeypatch.setattr(cracks, "write", write)
    monkeypatch.setenv("SEGDET_DATASETS", str(tmp_path))
    card = cards.cards()["crack-drawn"]
    assert len(cards.load("crack-drawn").splits["train"]) == 2
    assert card.drawing is not None and card.drawing.items() <= asked.items()
    assert card.pictures == card.drawing["train"] + card.drawing["val"] + card.drawing["test"]
