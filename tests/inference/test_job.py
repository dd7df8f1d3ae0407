"""Jobs over many images: sources, resuming, videos, standard input, odd and hostile images."""

from __future__ import annotations

import csv
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segdet.errors import InputError
from segdet.inference.batch import large
from segdet.inference.batch.job import run_job
from segdet.inference.batch.video import Clip, open_clip
from segdet.inference.io.manifest import NAME
from segdet.inference.io.sources import expand
from segdet.inference.predict.predictor import Predictor, open_predictor
from tests.conftest import ROOT, Cli
from tests.segmenters import blots, channel_model, dark_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dark_model(tmp_path_factory.mktemp("models") / "dark.onnx")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        Image.fromarray(blots(number, 40, 50 + number % 2)).save(folder / f"{number}.png")
    return folder


def mask_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def dark(image: np.ndarray) -> np.ndarray:
    """What the model marks."""
    return 1 - image.astype(np.float32).mean(axis=2) / np.float32(255) >= 0.5


def test_images_of_different_sizes_keep_their_order_and_names(model: Path, photos: Path, tmp_path: Path) -> None:
    result = run_job(open_predictor(model, device="cpu"), expand([str(photos)]), tmp_path / "out", ("mask", "json"))
    assert [Path(row["image"]).name for row in result.images] == [f"{n}.png" for n in range(5)]
    for number in range(5):
        assert (mask_of(tmp_path / f"out/{number}_mask.png") == dark(blots(number, 40, 50 + number % 2))).all()
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [Path(row["image"]).name for row in content["images"]] == [f"{n}.png" for n in range(5)]


def test_batches_give_the_same_answers(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU does, on the processor: images of one size go through the network together."""
    for number in range(5, 12):
        Image.fromarray(blots(number, 40, 50)).save(photos / f"{number}.png")
    seen: list[int] = []
    predictor = open_predictor(model, device="cpu")
    run = predictor.session.run
    monkeypatch.setattr(Predictor, "batch", property(lambda self: 4))
    monkeypatch.setattr(predictor.session, "run", lambda images, t=None: (seen.append(len(images)), run(images, t))[1])
    run_job(predictor, expand([str(photos)]), tmp_path / "out", ("mask",))
    assert max(seen) == 4 and sum(seen) == 12
    for number in (4, 5, 11):
        assert (mask_of(tmp_path / f"out/{number}_mask.png") == dark(blots(number, 40, 50))).all()


def test_no_large_picture_is_lost_in_a_batch(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "batch", property(lambda self: 4))
    monkeypatch.setattr(large, "HELD", 1000)
    for tile, imgsz in ((128, None), ("off", None), ("auto", 64)):
        for number in range(5):
            Image.fromarray(blots(number, 140, 150)).save(photos / f"{number}.png")
        predictor = open_predictor(model, device="cpu", tile=tile, imgsz=imgsz)  # type: ignore[arg-type]
        result = run_job(predictor, expand([str(photos)]), tmp_path / f"out-{tile}", ("mask",))
        assert [Path(row["image"]).name for row in result.images] == [f"{n}.png" for n in range(5)]


def test_a_job_is_taken_up_where_it_stopped(model: Path, photos: Path, tmp_path: Path) -> None:
    predictor, out = open_predictor(model, device="cpu"), tmp_path / "out"
    kinds = ("mask", "json", "csv", "coco")
    run_job(predictor, expand([str(photos)])[:3], out, kinds)
    ledger = out / NAME
    ledger.write_text(ledger.read_text() + '{"source": "torn li')  # killed in the middle of a line
    os.utime(out / "0_mask.png", (1, 1))
    (out / "1_mask.png").unlink()  # somebody removed a result
    Image.fromarray(blots(77, 40, 50)).save(photos / "2.png")  # and changed a photograph
    result = run_job(predictor, expand([str(photos)]), out, kinds, skip_done=True)
    assert result.before == 1 and [Path(row["image"]).stem for row in result.images] == ["1", "2", "3", "4"]
    assert (out / "0_mask.png").stat().st_mtime == 1
    assert (mask_of(out / "2_mask.png") == dark(blots(77, 40, 50))).all()
    at_once = run_job(predictor, expand([str(photos)]), tmp_path / "again", kinds)
    assert at_once.before == 0

    def rows(folder: Path) -> list[object]:
        images = json.loads((folder / "predictions.json").read_text())["images"]
        return sorted(({**row, "files": None} for row in images), key=lambda row: row["image"])

    assert rows(out) == rows(tmp_path / "again")
    tables = [sorted(csv.reader((f / "predictions.csv").open())) for f in (out, tmp_path / "again")]
    assert tables[0] == tables[1]
    nothing = run_job(predictor, expand([str(photos)]), out, kinds, skip_done=True)
    assert nothing.before == 5 and not nothing.images and "5 done before" in nothing.sentence()
    assert rows(out) == rows(tmp_path / "again")


def test_results_of_other_options_are_not_mixed(model: Path, photos: Path, tmp_path: Path) -> None:
    sources = expand([str(photos)])
    run_job(open_predictor(model, device="cpu"), sources, tmp_path / "out", ("mask",))
    with pytest.raises(InputError, match="made with another threshold"):
        run_job(open_predictor(model, 0.3, device="cpu"), sources, tmp_path / "out", ("mask",), skip_done=True)
    with pytest.raises(InputError, match="made with another imgsz"):
        run_job(open_predictor(model, device="cpu", imgsz=64), sources, tmp_path / "out", ("mask",), skip_done=True)
    run_job(open_predictor(model, device="cpu", imgsz=64), sources, tmp_path / "small", ("mask", "json"))
    assert json.loads((tmp_path / "small" / "predictions.json").read_text())["imgsz"] == 64
    with pytest.raises(InputError, match="made with another imgsz"):
        run_job(open_predictor(model, device="cpu"), sources, tmp_path / "small", ("mask", "json"), skip_done=True)
    with pytest.raises(InputError, match="skip_done: needs the folder of the earlier run; name it with out"):
        run_job(open_predictor(model, device="cpu"), sources, None, ("mask",), skip_done=True)


def test_lists_and_folders_and_files_together(model: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\ufeff# chosen\nphotos/1.png\n\n" + str(photos / "3.png") + "\r\n")
    assert [source.name for source in expand([str(tmp_path / "list.txt")])] == ["photos/1", "3"]
    again = expand([str(photos / "3.png"), str(tmp_path / "list.txt"), str(tmp_path / "list.txt")])
    assert [source.name for source in again] == ["3", "photos/1"]  # a list may name what was named before
    (tmp_path / "bad.txt").write_text("photos/1.png\nphotos/9.png\n")
    with pytest.raises(InputError, match=r"bad.txt, line 2: photos/9.png: no such file"):
        expand([str(tmp_path / "bad.txt")])
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(InputError, match="names no image"):
        expand([str(tmp_path / "none.txt")])


def test_standard_input_is_an_image_or_a_list(model: Path, photos: Path, tmp_path: Path) -> None:
    def piped(data: bytes, out: str) -> subprocess.CompletedProcess[bytes]:
        command = [
            sys.executable,
            "-m",
            "segdet",
            "predict",
            "-",
            "--model",
            str(model),
            "--out",
            out,
            "--save",
            "mask",
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, input=data, capture_output=True, cwd=tmp_path, env=environment, timeout=120)

    assert piped((photos / "2.png").read_bytes(), "one").returncode == 0
    assert (mask_of(tmp_path / "one/stdin_mask.png") == dark(blots(2, 40, 50))).all()
    assert piped(f"{photos / '1.png'}\n{photos / '2.png'}\n".encode(), "two").returncode == 0
    assert {path.name for path in (tmp_path / "two").glob("[!.]*")} == {"1_mask.png", "2_mask.png"}
    refused = piped(b"\x89PNG\r\n\x1a\nrubbish", "none")
    assert refused.returncode == 2 and b"stdin: " in refused.stderr and refused.stderr.count(b"\n") == 1


def video(path: Path, frames: int = 8) -> Path:
    """A dark disc that moves to the right over light grey; an AVI holds single pictures and can be read while it lasts."""
    code = cv2.VideoWriter_fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), code, 10.0, (96, 64))
    for number in range(frames):
        frame = np.full((64, 96, 3), 220, np.uint8)
        cv2.circle(frame, (20 + 6 * number, 32), 10, (20, 20, 20), -1)
        writer.write(frame)
    writer.release()
    return path


def test_a_video_frame_by_frame(model: Path, tmp_path: Path) -> None:
    source = video(tmp_path / "walk.mp4")
    kinds = ("overlay", "mask", "json", "csv")
    result = run_job(open_predictor(model, device="cpu"), expand([str(source)]), tmp_path / "out", kinds)
    (row,) = result.images
    assert (
        row["frames"] == 8 and row["rate"] == pytest.approx(10) and "the most in one of 8 frames" in result.sentence()
    )
    centres = [np.argwhere(mask_of(tmp_path / f"out/walk/{n:06d}_mask.png")).mean(axis=0)[1] for n in range(1, 9)]
    assert np.diff(centres) == pytest.approx(6, abs=1)
    annotated = cv2.VideoCapture(str(tmp_path / "out/walk_overlay.mp4"))
    assert annotated.get(cv2.CAP_PROP_FRAME_COUNT) == 8 and annotated.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    good, first = annotated.read()
    assert good and first.shape == (64, 96, 3) and int(first[32, 20, 2]) - int(first[32, 20, 0]) > 50  # red on the disc
    images = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert [entry["image"] for entry in images[:2]] == [f"{source}#000001", f"{source}#000002"]
    assert images[1]["time"] == 0.1 and images[-1]["frames"] == 8 and len(images) == 9
    again = run_job(open_predictor(model, device="cpu"), expand([str(source)]), tmp_path / "out", kinds, skip_done=True)
    assert again.before == 1 and not again.images


@pytest.mark.parametrize("ending", ["3gp", "flv", "m2ts", "mkv", "mov", "mts", "mxf", "ogv", "ts", "vob", "WMV"])
def test_endings_of_videos(model: Path, tmp_path: Path, ending: str) -> None:
    codec = {"flv": "FLV1", "mxf": "mpg2", "ogv": "VP80", "mts": "mpg2", "ts": "mpg2"}.get(ending, "mp4v")
    path = tmp_path / f"clip.{ending}"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), 25.0, (176, 144))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV writes no {codec}")
    for level in range(20, 240, 20):
        writer.write(np.full((144, 176, 3), level, np.uint8))
    writer.release()
    result = run_job(open_predictor(model, device="cpu"), expand([str(tmp_path)]), tmp_path / "out", ("json",))
    rows = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert [row["frames"] for row in result.images] == [11]
    assert [row["time"] for row in rows[:3]] == pytest.approx([0, 0.04, 0.08], abs=0.001)


def uneven(path: Path, milliseconds: list[int]) -> Path:
    """The frames of `video`, each shown for so many milliseconds: its MP4 with another table of durations (`stts`)."""
    whole = video(path, len(milliseconds)).read_bytes()

    def rebuilt(data: bytes, ticks: int = 0) -> bytes:
        done, at = [], 0
        while at < len(data):
            size, kind = struct.unpack(">I4s", data[at : at + 8])
            body = data[at + 8 : at + size]
            if kind == b"mdhd":
                ticks = struct.unpack(">I", body[12:16])[0]  # a second has so many
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
                body = rebuilt(body, ticks)
            if kind == b"stts":
                rows = [struct.pack(">II", 1, each * ticks // 1000) for each in milliseconds]
                body = struct.pack(">II", 0, len(rows)) + b"".join(rows)
            if kind != b"edts":  # the edit list holds the old length
                done.append(struct.pack(">I4s", len(body) + 8, kind) + body)
            at += size
        return b"".join(done)

    path.write_bytes(rebuilt(whole))
    return path


def test_frames_have_the_times_that_the_video_stores(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = uneven(tmp_path / "dusk.mp4", [50, 50, 1000, 1000, 50, 50])
    run_job(open_predictor(model, device="cpu"), expand([str(source)]), tmp_path / "out", ("json", "overlay"))
    rows = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert [row["time"] for row in rows[:-1]] == pytest.approx([0, 0.05, 0.1, 1.1, 2.1, 2.15], abs=0.002)
    assert f"{source}: its frame rate varies" in capsys.readouterr().err


def test_times_advance_where_a_video_stores_none(model: Path, tmp_path: Path) -> None:
    class Silent:
        def __init__(self) -> None:
            self.left = 3

        def read(self) -> tuple[bool, np.ndarray | None]:
            self.left -= 1
            return self.left >= 0, np.zeros((8, 8, 3), np.uint8)

        def get(self, _: int) -> float:
            return 0.0

    assert [time for time, _ in Clip(tmp_path, Silent(), 3, 10.0)] == pytest.approx([0, 0.1, 0.2])


def test_smoothing_keeps_what_was_seen(model: Path, tmp_path: Path) -> None:
    source = video(tmp_path / "walk.mp4")
    for smooth in (0.0, 0.7):
        run_job(
            open_predictor(model, device="cpu"), expand([str(source)]), tmp_path / str(smooth), ("mask",), smooth=smooth
        )
    sudden, steady = (mask_of(tmp_path / f"{smooth}/walk/000008_mask.png") > 0 for smooth in (0.0, 0.7))
    last = np.argwhere(sudden)[:, 1].mean()
    assert np.argwhere(steady)[:, 1].mean() < last - 3  # lags behind
    with pytest.raises(InputError, match=r"smooth=1\.5"):
        run_job(open_predictor(model, device="cpu"), expand([str(source)]), tmp_path / "x", ("mask",), smooth=1.5)
    several = open_predictor(channel_model(tmp_path / "several.onnx"), device="cpu")
    with pytest.raises(InputError, match="one class"):
        run_job(several, expand([str(source)]), tmp_path / "x", ("mask",), smooth=0.5)


def test_a_threshold_of_zero_holds_for_smoothed_videos(model: Path, tmp_path: Path) -> None:
    source, everything = video(tmp_path / "walk.mp4", 2), open_predictor(model, 0.0, device="cpu")
    run_job(everything, expand([str(source)]), tmp_path / "out", ("mask",), smooth=0.5)
    assert mask_of(tmp_path / "out/walk/000002_mask.png").all()


def test_a_video_that_ends_early_is_told(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = video(tmp_path / "whole.avi", 10)
    torn = tmp_path / "torn.avi"
    torn.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    result = run_job(open_predictor(model, device="cpu"), expand([str(torn)]), tmp_path / "out", ("mask", "json"))
    (row,) = result.images
    assert 0 < row["frames"] < 9 and row["frames_missing"] == 10 - row["frames"]
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"{torn}: ends after {row['frames']} of about 10 frames")
    assert f"one of {row['frames']} frames; {row['frames_missing']} are missing" in result.sentence()
    assert json.loads((tmp_path / "out/predictions.json").read_text())["images"][-1]["frames_missing"] > 0
    # a count that is a little too high is an estimate, not a fault
    monkeypatch.setattr("segdet.inference.batch.video.open_clip", lambda path: replace(open_clip(path), frames=11))
    (row,) = run_job(open_predictor(model, device="cpu"), expand([str(whole)]), tmp_path / "all", ("mask",)).images
    assert row["frames"] == 10 and "frames_missing" not in row and not capsys.readouterr().err


def test_damaged_videos_are_told(model: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.mp4").write_bytes(video(tmp_path / "walk.mp4").read_bytes()[:300])
    result = run_job(
        open_predictor(model, device="cpu"),
        expand([str(tmp_path / "torn.mp4"), str(photos)]),
        tmp_path / "out",
        ("mask",),
    )
    assert len(result.images) == 5 and "not a video that OpenCV reads" in result.skipped[str(tmp_path / "torn.mp4")]


def test_odd_images_get_the_right_answer(model: Path, tmp_path: Path) -> None:
    """16 bits, CMYK, palette, alpha, 1 bit, turned by EXIF, 1x1, very wide: all against the plain picture."""
    folder = tmp_path / "odd"
    folder.mkdir()
    image = blots(4, 60, 90)
    picture = Image.fromarray(image)
    Image.fromarray(image[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    picture.convert("CMYK").save(folder / "cmyk.tif")
    picture.quantize(64).save(folder / "palette.png")
    alpha = picture.copy()
    alpha.putalpha(Image.new("L", alpha.size, 7))
    alpha.save(folder / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
    picture.convert("L").point(lambda v: 255 * (v > 127)).convert("1").save(folder / "bits.png")
    Image.fromarray(image[:1, :1]).save(folder / "dot.png")
    wide = blots(5, 12, 20_000)
    Image.fromarray(wide).save(folder / "wide.png")
    result = run_job(
        open_predictor(model, device="cpu"), expand([str(folder)]), tmp_path / "out", ("mask", "overlay", "json")
    )
    assert not result.skipped and len(result.images) == 8
    expected = dark(image)
    for name in ("deep", "cmyk", "palette", "alpha", "turned", "bits"):
        found = mask_of(tmp_path / f"out/{name}_mask.png")
        assert found.shape == (60, 90) and (found != expected).mean() < 0.02, name
    assert mask_of(tmp_path / "out/dot_mask.png").shape == (1, 1)
    assert (mask_of(tmp_path / "out/wide_mask.png") == dark(wide)).all()


def bomb(path: Path, side: int = 30_000) -> Path:
    """A PNG of a few kilobytes that says it has 900 million pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")
    )
    return path


def test_hostile_and_damaged_images_are_one_line_each(model: Path, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    buffer = io.BytesIO()
    Image.fromarray(blots(1, 80, 80)).save(buffer, "JPEG")
    (folder / "cut.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    frames = [Image.fromarray(blots(n, 20, 20)) for n in range(3)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    bomb(folder / "bomb.png")
    (folder / "empty.jpg").write_bytes(b"")
    Image.fromarray(blots(1, 30, 30)).save(folder / "good.png")
    done = cli("predict", folder, "--model", model, "--out", tmp_path / "out", "--save", "mask", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and [Path(row["image"]).name for row in told["images"]] == ["good.png"]
    reasons = {Path(path).name: reason for path, reason in told["skipped"].items()}
    assert reasons["bomb.png"] == "image has more than 178 million pixels; cut it into parts"
    assert "damaged" in reasons["cut.jpg"] and "animation of 3 frames" in reasons["moving.gif"]
    assert reasons["empty.jpg"] == "empty file"
    assert len(done.stderr.strip().splitlines()) == 4
    alone = cli("predict", folder / "cut.jpg", "--model", model, "--out", tmp_path / "alone")
    assert alone.returncode == 2 and len(alone.stderr.strip().splitlines()) == 1 and not (tmp_path / "alone").exists()


def test_a_bomb_allocates_nothing(model: Path, tmp_path: Path) -> None:
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom segdet.inference.batch.job import run_job\n"
        "from segdet.inference.predict.predictor import open_predictor\nfrom segdet.inference.io.sources import expand\n"
        f"predictor = open_predictor({str(model)!r}, device='cpu', threads=1)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        f"    run_job(predictor, expand([{str(bomb(tmp_path / 'bomb.png'))!r}]), Path({str(tmp_path / 'out')!r}), ('mask',))\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    name, grown = done.stdout.split()
    assert name == "InputError" and int(grown) * (1 if sys.platform == "darwin" else 1024) < 30_000_000
