"""The model that comes with segdet: small, described, and what every command takes when there is no other."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import yaml

import segdet
from segdet.data.geometry.rasterize import binary, coverage
from segdet.data.images import read_image
from segdet.data.synthetic import cracks as synthetic
from segdet.inference.backends.select import open_session
from segdet.inference.predict.results import SegmentationResult
from segdet.training.config import TrainConfig
from tests.conftest import Cli

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "exports" / "crack.onnx"


def test_it_is_small_and_says_what_it_is() -> None:
    assert MODEL.stat().st_size <= 12e6
    metadata = open_session(MODEL, "cpu").metadata
    assert (metadata.task, metadata.classes, metadata.arch) == ("segmentation", ["crack"], "unet")
    assert metadata.data.licence and "mixed" in metadata.data.model_dump()
    card = (ROOT / "exports" / "crack.md").read_text()
    for said in ("Public Domain", "CC0-1.0", "crack-drawn: 0.2", "segdet train --config crack.yaml", "IoU", "seed: 0"):
        assert said in card, said
    assert json.loads((ROOT / "exports" / "crack.parity.json").read_text())["images"]


def test_its_recipe_is_the_committed_one() -> None:
    config = TrainConfig.from_file(ROOT / "configs" / "crack.yaml")
    metadata = open_session(MODEL, "cpu").metadata
    assert metadata.backbone == config.backbone and metadata.options == config.arch_options
    assert metadata.data.model_dump()["seed"] == config.seed
    assert {name: part["share"] for name, part in metadata.data.model_dump()["mixed"].items()} == config.mix
    assert yaml.safe_load((ROOT / "datasets" / "crack-drawn.yaml").read_text())["generated"]


def test_it_finds_cracks_that_it_has_not_seen() -> None:
    """Drawn with another seed than what it was trained with: most of the crack is found, walls without one stay quiet."""
    model = segdet.load(MODEL)
    both = either = quiet = 0
    for index in range(12):
        cracked = index < 8
        picture, cracks = synthetic.draw(np.random.default_rng([99, index]), 320, 320, cracked)
        found = model.predict(picture)
        assert isinstance(found, SegmentationResult)
        if not cracked:
            quiet += found.areas["crack"] < 0.01 * picture.shape[0] * picture.shape[1]
            continue
        truth = binary(np.max([coverage(crack, 320, 320) for crack in cracks], axis=0)) > 0
        both, either = both + int((truth & (found.mask > 0)).sum()), either + int((truth | (found.mask > 0)).sum())
    assert both / either > 0.4 and quiet >= 3


def test_a_crack_that_fills_a_large_photograph_is_found() -> None:
    """Its own size alone shows next to nothing of a crack sixty pixels wide."""
    picture, cracks = synthetic.draw(np.random.default_rng([99, 5]), 320, 320)
    truth = binary(np.max([coverage(crack, 320, 320) for crack in cracks], axis=0)) > 0
    large, wanted = (
        cv2.resize(a, (2560, 2560), interpolation=cv2.INTER_CUBIC) for a in (picture, truth.astype(np.float32))
    )
    scores = []
    for model in (segdet.load(MODEL), segdet.load(MODEL, multiscale_to=0)):
        found = model.predict(large)
        assert isinstance(found, SegmentationResult)
        scores.append(float(((found.mask > 0) & (wanted > 0.5)).sum() / ((found.mask > 0) | (wanted > 0.5)).sum()))
    assert scores[0] > 0.4 and scores[0] > scores[1] + 0.2, scores


def test_predict_takes_it_where_there_is_no_other(cli: Cli, tmp_path: Path) -> None:
    picture, _ = synthetic.draw(np.random.default_rng([99, 0]), 240, 320)
    cv2.imwrite(str(tmp_path / "photo.jpg"), picture[..., ::-1])
    done = cli("--json", "predict", "photo.jpg", "--save", "mask", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "crack.onnx" in done.stdout + done.stderr
    masks = list(tmp_path.rglob("photo_mask.png"))
    assert len(masks) == 1 and read_image(masks[0]).shape == (240, 320, 3)
