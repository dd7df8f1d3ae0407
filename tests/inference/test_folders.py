"""What `segdet predict` takes from folders and may write into them: its own results, the user's files, earlier runs."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from segdet.inference.io.manifest import NAME
from tests.conftest import Cli
from tests.inference.test_job import video
from tests.segmenters import blots, dark_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dark_model(tmp_path_factory.mktemp("models") / "dark.onnx")


def draw(*files: Path) -> None:
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(blots(number, 40, 50)).save(file)


def lines(done: subprocess.CompletedProcess[str], code: int = 0) -> list[str]:
    """What was said on standard error."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stderr.strip().splitlines()


def names(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The images of a run with --json."""
    assert done.returncode == 0, done.stderr
    return [Path(row["image"]).name for row in json.loads(done.stdout)["images"]]


def test_an_empty_name_is_not_the_working_folder(cli: Cli, model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    for source in ("", "  "):
        (line,) = lines(cli("predict", source, "--model", model, cwd=tmp_path), 2)
        assert line.startswith('segdet: "": no name')
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("source", ["photos", "photos/**/*.*", "."])
def test_results_among_the_sources_are_not_predicted(cli: Cli, model: Path, tmp_path: Path, source: str) -> None:
    draw(tmp_path / "photos/a.png", tmp_path / "photos/b.png")
    run = ("predict", source, "--model", model, "--out", tmp_path / "photos/found", "--json")
    assert names(cli(*run, cwd=tmp_path)) == ["a.png", "b.png"]
    again = cli(*run, cwd=tmp_path)
    assert names(again) == ["a.png", "b.png"]
    (line,) = lines(again)
    assert line.startswith("left out 4 files in ") and line.endswith("photos/found, where the results go")
    (tmp_path / "photos/a.png").unlink()
    (tmp_path / "photos/b.png").unlink()
    (line,) = lines(cli(*run, cwd=tmp_path), 2)
    assert "no image" in line or "no such file" in line


def test_the_usual_folder_is_not_predicted_either(cli: Cli, model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    for said in ([], ["left out 2 files in runs, where the results go"]):
        done = cli("predict", ".", "--model", model, "--json", cwd=tmp_path)
        assert names(done) == ["a.png"] and lines(done) == said


def test_every_file_of_a_folder_is_accounted_for(cli: Cli, model: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    draw(photos / "a.png", photos / "site/b.png")
    (photos / "c.jpg").write_text("no picture")
    (photos / "d.HEIC").write_bytes(b"x")
    (photos / "notes.txt").write_text("x")
    (photos / "dead.jpg").symlink_to(tmp_path / "nowhere.jpg")
    draw(tmp_path / "elsewhere/e.png")
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    before: list[Path] = []
    for _ in range(2):
        done = cli("predict", photos, "--model", model, "--out", photos / "found", "--json")
        assert sorted(names(done)) == ["a.png", "b.png", "e.png"]
        told = json.loads(done.stdout)
        reasons = {one["reason"]: one["count"] for one in told["left_out"]}
        assert reasons.pop("result", 0) == len(before)
        assert reasons == {"image-format": 1, "unknown": 1, "dead-end": 1} and len(told["skipped"]) == 1
        for part in ("does not decode: 1", "d.HEIC", "notes.txt", "dead.jpg"):
            assert any(line.startswith("left out") and part in line for line in lines(done))
        before = [path for path in (photos / "found").rglob("*") if path.is_file() and path.name[0] != "."]


def test_a_folder_without_a_picture_says_what_it_holds(cli: Cli, model: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.heic").write_bytes(b"x")
    (line,) = lines(cli("predict", "photos", "--model", model, cwd=tmp_path), 2)
    assert "does not decode: 1 (photos/a.heic)" in line


def test_results_beside_the_sources_are_not_predicted(cli: Cli, model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a.png", tmp_path / "b.png")
    video(tmp_path / "walk.mp4", 2)
    run = ("predict", ".", "--model", model, "--out", ".", "--save", "overlay,mask", "--json")
    for arguments, expected in ((run, ["a.png", "b.png", "walk.mp4"]), (run, ["a.png", "b.png", "walk.mp4"])):
        assert names(cli(*arguments, cwd=tmp_path)) == expected
    told = cli(*run, "--skip-done", cwd=tmp_path)
    assert names(told) == [] and json.loads(told.stdout)["done_before"] == 3
    # from another folder too, and a result that is named is meant
    assert names(cli("predict", tmp_path, *run[2:5], tmp_path, *run[6:], cwd=tmp_path.parent)) == names(
        cli(*run, cwd=tmp_path)
    )
    named = cli("predict", "a_mask.png", "--model", model, "--out", "new", "--json", cwd=tmp_path)
    assert names(named) == ["a_mask.png"]
    assert names(cli("predict", "new/a_mask_mask.png", "--model", model, "--out", "new", "--json", cwd=tmp_path)) == [
        "a_mask_mask.png"
    ]


@pytest.mark.parametrize(
    ("save", "truth"),
    [("mask", "x_mask.png"), ("yolo", "labels/x.txt"), ("json,geojson", "x.geojson"), ("csv", "predictions.csv")],
)
@pytest.mark.parametrize("resume", [(), ("--skip-done",)])
def test_files_of_the_user_are_not_replaced(
    cli: Cli, model: Path, tmp_path: Path, save: str, truth: str, resume: tuple[str, ...]
) -> None:
    draw(tmp_path / "x.jpg")
    (tmp_path / truth).parent.mkdir(exist_ok=True)
    (tmp_path / truth).write_text("drawn by hand")
    before = sorted(tmp_path.rglob("*"))
    run = ("predict", "x.jpg", "--model", model, "--save", save, *resume)
    for _ in range(2):  # a refusal makes nothing one's own
        (line,) = lines(cli(*run, "--out", ".", cwd=tmp_path), 2)
        assert line.startswith(f"segdet: {truth}: exists and is not from segdet; choose another --out")
        assert (tmp_path / truth).read_text() == "drawn by hand" and sorted(tmp_path.rglob("*")) == before
    assert not lines(cli(*run, "--out", "new", cwd=tmp_path))


def test_a_run_may_replace_what_runs_before_it_wrote(cli: Cli, model: Path, tmp_path: Path) -> None:
    """Not only the last one, wherever it is started from, and when it was killed before it noted anything down."""
    draw(tmp_path / "a.jpg", tmp_path / "b.jpg")
    rest = ("--model", model, "--save", "overlay,mask,confidence,json,csv,coco,geojson,yolo")
    assert not lines(cli("predict", "a.jpg", *rest, "--out", "o", cwd=tmp_path))
    assert len(lines(cli("predict", "b.jpg", *rest, "--out", "o", cwd=tmp_path))) == 1
    ledger = tmp_path / "o" / NAME
    ledger.write_text("".join(line for line in ledger.open() if '"row"' not in line))
    for arguments in (("a.jpg",), ("a.jpg", "--skip-done"), ("a.jpg", "b.jpg"), ("a.jpg", "b.jpg", "--skip-done")):
        lines(cli("predict", *arguments, *rest, "--out", "o", cwd=tmp_path))
    lines(cli("predict", "../a.jpg", "../b.jpg", *rest, "--out", ".", cwd=tmp_path / "o"))
    video(tmp_path / "v.mp4", 2)
    for _ in range(2):
        lines(cli("predict", "v.mp4", *rest, "--out", "frames", cwd=tmp_path))


def test_an_earlier_job_that_is_replaced_is_told(cli: Cli, model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg", tmp_path / "b.jpg")
    rest = ("--model", model, "--out", "o")
    assert not lines(cli("predict", "a.jpg", *rest, cwd=tmp_path))
    assert not lines(cli("predict", "a.jpg", *rest, cwd=tmp_path))
    (line,) = lines(cli("predict", "b.jpg", *rest, cwd=tmp_path))
    assert (
        line
        == "o: predictions.json: 1 image of an earlier run no longer there; the setting skip_done would have kept it"
    )
    assert len(json.loads((tmp_path / "o/predictions.json").read_text())["images"]) == 1
    assert not lines(cli("predict", "a.jpg", *rest, "--skip-done", cwd=tmp_path))
    assert len(json.loads((tmp_path / "o/predictions.json").read_text())["images"]) == 2


def test_every_image_and_frame_has_its_own_coco_id(cli: Cli, model: Path, tmp_path: Path) -> None:
    for name in ("real0.jpg", "sub/real0.jpg", "001.jpg", "1.jpg", "17.jpg", "pier.jpg", "12345678901234567.jpg"):
        draw(tmp_path / "photos" / name)
    video(tmp_path / "photos/v.mp4", 2)
    lines(cli("predict", "photos", "--model", model, "--out", "o", "--save", "coco,csv", cwd=tmp_path))
    ids = {row["image_id"] for row in json.loads((tmp_path / "o/predictions.coco.json").read_text())}
    assert ids == {
        "real0", "sub/real0", "001", "1", 17, "pier", "12345678901234567", "v.mp4#000001", "v.mp4#000002"
    }  # fmt: skip
    assert len(ids) == len({row["image"] for row in csv.DictReader((tmp_path / "o/predictions.csv").open())})


def test_bands_that_are_left_out_are_named(cli: Cli, model: Path, tmp_path: Path) -> None:
    planes = np.stack([blots(1, 40, 50)[..., 0].astype(np.uint16) * 257] * 5)
    tifffile.imwrite(tmp_path / "map.tif", planes, photometric="minisblack", planarconfig="separate")
    done = cli("predict", "map.tif", "--model", model, "--out", "o", "--json", cwd=tmp_path)
    assert lines(done) == ["map.tif: bands 1, 2, 3 of 5; the setting bands chooses others"]
    row = json.loads(done.stdout)["images"][0]
    assert (row["bands"], row["bands_stored"]) == ([1, 2, 3], 5)
    chosen = cli("predict", "map.tif", "--model", model, "--out", "o", "--bands", "5,4,2", "--json", cwd=tmp_path)
    assert lines(chosen) == [] and json.loads(chosen.stdout)["images"][0]["bands"] == [5, 4, 2]
    (line,) = lines(cli("predict", "map.tif", "--model", model, "--bands", "5,4", cwd=tmp_path), 2)
    assert line.startswith("segdet: --bands 5,4: not one or three numbers of bands")
    (line,) = lines(cli("predict", "map.tif", "--model", model, "--bands", "9", cwd=tmp_path), 2)
    assert "the file has 5 bands" in line


def test_pages_that_are_left_out_are_told(cli: Cli, model: Path, tmp_path: Path) -> None:
    pages = [Image.fromarray(blots(number, 40, 50)) for number in range(3)]
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    done = cli("predict", "scan.tif", "--model", model, "--out", "o", "--json", cwd=tmp_path)
    assert lines(done) == ["scan.tif: the first of 3 pages; 2 are left out"]
    assert json.loads(done.stdout)["images"][0]["pages"] == 3
    assert json.loads((tmp_path / "o/predictions.json").read_text())["images"][0]["pages"] == 3


def test_the_smaller_copies_in_a_tiff_are_no_pages(cli: Cli, model: Path, tmp_path: Path) -> None:
    """Maps hold overviews of themselves."""
    import tifffile

    with tifffile.TiffWriter(tmp_path / "map.tif") as writer:
        writer.write(blots(1, 64, 64), photometric="rgb")
        writer.write(blots(1, 32, 32), photometric="rgb", subfiletype=1)
    done = cli("predict", "map.tif", "--model", model, "--out", "o", "--json", cwd=tmp_path)
    assert not lines(done) and "pages" not in json.loads(done.stdout)["images"][0]


def test_a_damaged_video_is_one_line(cli: Cli, model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(np.random.default_rng(0).bytes(3000))
    (tmp_path / "torn.mp4").write_bytes(video(tmp_path / "walk.mp4").read_bytes()[:300])
    for name in ("bad.mp4", "torn.mp4"):
        (line,) = lines(cli("predict", name, "--model", model, cwd=tmp_path), 2)
        assert line.startswith(f"segdet: {name}: not a video that OpenCV reads")
    assert cv2.VideoCapture(str(tmp_path / "walk.mp4")).isOpened()


def test_threads_are_a_number_from_one(cli: Cli, model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    for threads in ("0", "-3"):
        (line,) = lines(cli("predict", "a.jpg", "--model", model, "--threads", threads, cwd=tmp_path), 2)
        assert "--threads" in line


def test_the_job_says_where_it_ran(cli: Cli, model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    done = cli("predict", "a.jpg", "--model", model, "--device", "cpu", "--out", "o", "--json", cwd=tmp_path)
    about = json.loads((tmp_path / "o/predictions.json").read_text())
    assert about["device"] == json.loads(done.stdout)["device"] == "CPUExecutionProvider"


def test_results_of_a_segdet_that_noted_less_may_be_replaced(cli: Cli, model: Path, tmp_path: Path) -> None:
    """Its ledger holds rows only."""
    draw(tmp_path / "a.jpg")
    run = ("predict", "a.jpg", "--model", model, "--out", "o")
    lines(cli(*run, cwd=tmp_path))
    ledger = tmp_path / "o" / NAME
    ledger.write_text("".join(line for line in ledger.open() if '"written"' not in line))
    assert not lines(cli(*run, cwd=tmp_path))
    assert not lines(cli(*run, "--skip-done", cwd=tmp_path))
