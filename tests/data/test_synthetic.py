"""`crack-demo`: exact labels, plausible statistics, reproducible folders."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from segdet.data.geometry.rasterize import binary, coverage
from segdet.data.synthetic import cracks as synthetic
from segdet.errors import InputError

SIZE = 160


def grey(picture: np.ndarray) -> np.ndarray:
    return picture.astype(np.float32).mean(axis=2)


def mask_of(cracks: list[list[np.ndarray]], size: int = SIZE) -> np.ndarray:
    return binary(coverage([polygon for crack in cracks for polygon in crack], size, size))


def ring(mask: np.ndarray, inner: int, outer: int) -> np.ndarray:
    """Pixels farther than `inner` and nearer than `outer` pixels from the mask."""
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray((distance > inner) & (distance < outer))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def pictures() -> list[tuple[np.ndarray, list[list[np.ndarray]]]]:
    return [synthetic.draw(np.random.default_rng([11, index]), SIZE, SIZE) for index in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "crack-demo"
    return synthetic.write(root, train=24, val=4, test=2, size=SIZE, seed=5)


def test_same_seed_same_picture() -> None:
    one, cracks = synthetic.draw(np.random.default_rng(3), 96, 128)
    two, again = synthetic.draw(np.random.default_rng(3), 96, 128)
    assert one.shape == (96, 128, 3) and one.dtype == np.uint8
    np.testing.assert_array_equal(one, two)
    assert [[p.tolist() for p in crack] for crack in cracks] == [[p.tolist() for p in crack] for crack in again]
    assert (one != synthetic.draw(np.random.default_rng(4), 96, 128)[0]).any()


def test_polygons_are_clean(pictures: list[tuple[np.ndarray, list[list[np.ndarray]]]]) -> None:
    for _, cracks in pictures:
        assert 1 <= len(cracks) <= 2
        for polygon in (polygon for crack in cracks for polygon in crack):
            assert polygon.dtype == np.float32 and polygon.ndim == 2 and polygon.shape[1] == 2 and len(polygon) >= 3
            assert polygon.min() >= 0 and polygon.max() <= SIZE
            np.testing.assert_allclose(polygon, np.round(polygon, 2), atol=1e-5)


def test_separate_cracks_do_not_touch(pictures: list[tuple[np.ndarray, list[list[np.ndarray]]]]) -> None:
    pairs = [cracks for _, cracks in pictures if len(cracks) == 2]
    assert pairs
    for one, other in pairs:
        assert not (mask_of([one]) & mask_of([other])).any()


def test_statistics_are_like_the_real_set(pictures: list[tuple[np.ndarray, list[list[np.ndarray]]]]) -> None:
    share = np.array([mask_of(cracks).mean() for _, cracks in pictures])
    assert 0.008 < share.mean() < 0.035 and share.max() < 0.12 and share.min() > 0
    means = np.array([grey(picture).mean() for picture, _ in pictures])
    assert 130 < means.mean() < 200 and means.std() > 8
    assert 12 < np.mean([grey(picture).std() for picture, _ in pictures]) < 45
    touching = [min(p.min() for p in c) < 1 or max(p.max() for p in c) > SIZE - 1 for _, cs in pictures for c in cs]
    assert 0.5 < np.mean(touching) < 0.98


def test_label_is_what_is_painted(pictures: list[tuple[np.ndarray, list[list[np.ndarray]]]]) -> None:
    """Darker inside than beside, and shifting the label by a few pixels loses most of the contrast."""
    contrast, shifted = [], []
    for picture, cracks in pictures:
        mask, values = mask_of(cracks), grey(picture)
        beside = np.median(values[ring(mask, 2, 8)])
        contrast.append(beside - values[mask].mean())
        moved = [
            beside - values[np.roll(mask, (dy, dx), (0, 1))].mean() for dy, dx in ((6, 6), (-6, -6), (6, -6), (-6, 6))
        ]
        shifted.append(np.mean(moved))
    assert np.median(contrast) > 35
    assert np.mean(np.array(contrast) > 5) > 0.8  # a few are hairlines, or filled with something light
    assert np.mean(shifted) < 0.35 * np.mean(contrast)


def test_only_the_cracks_differ_from_a_sound_wall() -> None:
    picture, cracks = synthetic.draw(np.random.default_rng(8), SIZE, SIZE, cracked=False)
    assert cracks == [] and picture.shape == (SIZE, SIZE, 3)
    assert grey(picture).std() > 1


def test_sizes_other_than_square() -> None:
    for height, width in ((64, 64), (70, 300), (301, 97)):
        picture, cracks = synthetic.draw(np.random.default_rng(1), height, width)
        assert picture.shape == (height, width, 3)
        points = np.concatenate([polygon for crack in cracks for polygon in crack])
        assert (points >= 0).all() and (points <= [width, height]).all()


def test_coco_files_are_valid(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overlaps, empty = [], 0
    for split, count in (("train", 24), ("valid", 4), ("test", 2)):
        coco = COCO(str(folder / split / "_annotations.coco.json"))
        assert len(coco.imgs) == count and coco.cats[1]["name"] == "crack"
        for number, image in coco.imgs.items():
            assert cv2.imread(str(folder / split / image["file_name"])).shape == (SIZE, SIZE, 3)
            labels = coco.imgToAnns[number]
            empty += not labels
            for label in labels:
                polygons = [np.array(flat, np.float32).reshape(-1, 2) for flat in label["segmentation"]]
                ours, theirs = binary(coverage(polygons, SIZE, SIZE)), coco.annToMask(label).astype(bool)
                assert label["area"] == ours.sum() and label["iscrowd"] == 0
                overlaps.append((ours & theirs).sum() / (ours | theirs).sum())
                x, y, w, h = label["bbox"]
                points = np.concatenate(polygons)
                np.testing.assert_allclose([x, y, x + w, y + h], [*points.min(0), *points.max(0)], atol=0.011)
    capsys.readouterr()
    assert np.mean(overlaps) > 0.7
    assert 0 < empty < 14


def test_labels_in_the_file_are_those_painted(folder: Path) -> None:
    rng = np.random.default_rng([5, 0, 2])
    _, cracks = synthetic.draw(rng, SIZE, SIZE, cracked=bool(rng.random() >= 0.15))
    content = json.loads((folder / "train" / "_annotations.coco.json").read_text())
    stored = [label["segmentation"] for label in content["annotations"] if label["image_id"] == 3]
    assert len(stored) == len(cracks) > 0
    for flat, crack in zip(stored, cracks, strict=True):
        for numbers, polygon in zip(flat, crack, strict=True):
            np.testing.assert_array_equal(np.array(numbers, np.float32).reshape(-1, 2), polygon)


def test_same_seed_same_bytes_whatever_the_counts(folder: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    twin = synthetic.write(
        tmp_path / "twin", train=5, val=4, test=2, size=SIZE, seed=5, progress=lambda *call: calls.append(call)
    )
    assert calls == [(done, 11) for done in range(1, 12)]
    ours, theirs = digests(folder), digests(twin)
    pictures = [name for name in theirs if name.endswith(".jpg")]
    assert len(pictures) == 11 and all(ours[name] == theirs[name] for name in pictures)
    for split in ("valid", "test"):
        assert ours[f"{split}/_annotations.coco.json"] == theirs[f"{split}/_annotations.coco.json"]
    assert "CC0" in (twin / "README.dataset.txt").read_text()
    other = synthetic.write(tmp_path / "other", train=1, val=0, test=0, size=SIZE, seed=6)
    assert digests(other)["train/crack-demo-00000.jpg"] != ours["train/crack-demo-00000.jpg"]


def test_refuses_to_overwrite_and_bad_sizes(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="exists already"):
        synthetic.write(tmp_path / "there", train=1, val=0, test=0)
    with pytest.raises(InputError, match="64 pixels"):
        synthetic.write(tmp_path / "tiny", train=1, val=0, test=0, size=16)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there" / "mine.txt").read_text() == "kept"


def test_nothing_is_left_after_a_failure(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.write(tmp_path / "demo", train=2, val=0, test=0, size=64, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_needs_no_torch() -> None:
    code = "import sys, segdet.data.synthetic.cracks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
