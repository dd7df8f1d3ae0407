"""Devices: what is asked for runs or is refused with the missing library; OpenVINO stands in only once it has agreed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from segdet.errors import InputError
from segdet.inference.backends import agreement, select
from segdet.inference.backends import onnxruntime as runtimes
from segdet.inference.backends.select import open_session
from segdet.inference.io.sources import expand
from segdet.tools import environment as health
from segdet.tools.probe import probe_model
from tests.conftest import ROOT, Cli
from tests.detectors import blob_model, blob_picture
from tests.drivers import Driver
from tests.segmenters import blots, channel_model, dark_model

openvino = pytest.mark.skipif(not agreement.installed(), reason="OpenVINO is not installed")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGDET_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "dark": dark_model(folder / "dark.onnx"),
        "classes": channel_model(folder / "classes.onnx"),
        "boxes": blob_model(folder / "blobs.onnx"),
    }


@openvino
@pytest.mark.parametrize("precision", ["openvino", "openvino:f32"])
def test_openvino_gives_the_answers_of_onnx_runtime(models: dict[str, Path], precision: str) -> None:
    image = blots(1, 70, 90)
    image[:, :, 1] //= 2
    ours, theirs = open_session(models["dark"], "cpu"), open_session(models["dark"], precision)
    assert theirs.device.startswith("OpenVINO") and theirs.metadata == ours.metadata
    for threshold in (None, 0.2, 0.8):
        first, second = ours.run(image[None], threshold), theirs.run(image[None], threshold)
        assert (first[0] == second[0]).mean() > 0.99 and np.abs(first[1] - second[1]).max() < 0.01
    first, second = (open_session(models["classes"], device).run(image[None]) for device in ("cpu", precision))
    assert (first[0] == second[0]).all()
    with pytest.raises(
        InputError, match=r"threshold=0\.5: .* has several classes and no threshold to set; leave it out"
    ):
        open_session(models["classes"], precision).run(image[None], 0.5)


@openvino
def test_openvino_follows_the_size_of_the_images(models: dict[str, Path]) -> None:
    """The first size, another one for long enough to get a model of its own, batches, and the first again."""
    ours, theirs = open_session(models["dark"], "cpu"), open_session(models["dark"], "openvino:f32")
    small, wide = blots(1, 40, 50), blots(2, 48, 90)
    for images in (small[None], wide[None], *[wide[None]] * 40, np.stack([small] * 3), small[None]):
        expected, found = ours.run(images), theirs.run(images)
        assert (expected[0] == found[0]).all() and np.abs(expected[1] - found[1]).max() < 1e-5


@openvino
def test_openvino_answers_several_threads_at_once(models: dict[str, Path]) -> None:
    session = open_session(models["dark"], "openvino:f32", 1)
    images = [blots(seed, 120, 150) for seed in range(4)]
    expected = [session.run(image[None])[1] for image in images]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            if not (session.run(images[number][None])[1] == expected[number]).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@openvino
def test_openvino_reports_to_nobody(models: dict[str, Path], tmp_path: Path) -> None:
    """Importing OpenVINO sends an event to its maker and leaves a file in the home folder; through segdet it does not."""
    code = (
        "import sys, socket\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from pathlib import Path\nfrom segdet.inference.backends.select import open_session\n"
        f"open_session(Path({str(models['dark'])!r}), 'openvino')\n"
        "print(sorted(name for name in sys.modules if name.startswith('openvino_telemetry') and sys.modules[name]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stderr
    assert not (tmp_path / "intel").exists()


@openvino
def test_auto_takes_openvino_once_it_has_agreed(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(agreement.WORTH):
        Image.fromarray(blots(number, 40, 40)).save(folder / f"{number}.png")
    (folder / "torn.png").write_bytes(b"torn")
    sources, model = expand([str(folder)]), models["dark"]
    assert agreement.verdict(model) is None and open_session(model).device == "CPUExecutionProvider"
    assert select.select_device(model, "auto", sources[:3]) == "cpu"  # not worth looking
    assert select.select_device(model, "auto", sources) == "auto" and agreement.verdict(model) is True
    assert "using it for this model" in capsys.readouterr().err
    assert open_session(model).device.startswith("OpenVINO")
    assert (
        select.select_device(model, "auto", sources) == "auto" and not capsys.readouterr().err
    )  # the verdict is remembered
    (verdict,) = (tmp_path / "cache/parity").iterdir()
    assert json.loads(verdict.read_text())["agrees"] is True
    verdict.write_text("{")
    assert agreement.verdict(model) is None
    monkeypatch.setattr(agreement, "installed", lambda: False)
    assert (
        select.select_device(model, "auto", sources) == "auto" and open_session(model).device == "CPUExecutionProvider"
    )


class _Off:
    """A session whose answers are moved."""

    def __init__(self, session: object, move: int) -> None:
        self._session, self._move = session, move
        self.metadata = session.metadata  # type: ignore[attr-defined]

    def run(self, images: np.ndarray, threshold: float | None = None) -> tuple[np.ndarray, ...]:
        first, *rest = self._session.run(images, threshold)  # type: ignore[attr-defined]
        moved = first + np.float32(self._move) if first.dtype == np.float32 else np.roll(first, self._move, axis=2)
        return moved, *rest


@pytest.mark.parametrize("kind", ["dark", "classes", "boxes"])
def test_answers_that_differ_do_not_agree(models: dict[str, Path], kind: str) -> None:
    session = open_session(models[kind], "cpu")
    coloured = blob_picture({"red": (10, 10, 30, 30), "blue": (40, 40, 60, 60)})
    image = blots(3, 64, 64) if kind == "dark" else coloured
    same, other = (agreement.compare(session, _Off(session, move), [image]) for move in (0, 3))  # type: ignore[arg-type]
    assert same["agrees"] and not other["agrees"]
    empty = np.full((32, 32, 3), 90 if kind == "boxes" else 255, np.uint8)
    assert agreement.compare(session, session, [empty])["agrees"]


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "tensorrt"])
def test_a_gpu_that_is_missing_is_an_error(models: dict[str, Path], device: str) -> None:
    if runtimes.PROVIDERS[device.partition(":")[0]] in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime is made for GPUs")
    with pytest.raises(InputError, match=r"pip install 'segdet\[gpu\]'"):
        open_session(models["dark"], device)


def test_the_missing_library_is_named(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a GPU build of ONNX Runtime whose libraries do not load, which starts on the processor without a word."""
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    on_cpu = onnxruntime.InferenceSession(str(models["dark"]), providers=["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: on_cpu)

    def load(name: str, mode: int = 0) -> Driver:
        if name.startswith(missing):
            raise OSError(f"{missing}: cannot open shared object file: No such file or directory\nmore")
        return Driver()

    monkeypatch.setattr("ctypes.CDLL", load)
    missing = "libcuda.so.1"
    with pytest.raises(InputError, match=r"libcuda.so.1 is missing: install the NVIDIA driver"):
        open_session(models["dark"], "cuda")
    missing = "nothing"
    with pytest.raises(InputError, match=r"libonnxruntime_providers_cuda.so is missing"):
        open_session(models["dark"], "cuda")
    folder = tmp_path / "capi"
    folder.mkdir()
    (folder / "libonnxruntime_providers_cuda.so").write_bytes(b"")
    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "__init__.py"))
    missing = str(folder / "libonnxruntime_providers_cuda.so")
    with pytest.raises(InputError, match=r"cannot open shared object file: No such file or directory; pip install"):
        open_session(models["dark"], "cuda")


@pytest.mark.parametrize("device", ["gpu", "cpu:1", "cuda:x", "openvino:int3", ""])
def test_unknown_devices_are_refused(models: dict[str, Path], device: str) -> None:
    with pytest.raises(InputError, match="use auto, cpu, cuda"):
        open_session(models["dark"], device)


def test_the_probe_is_a_valid_model(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(probe_model(tmp_path / "probe.onnx"))
    onnx.checker.check_model(model, full_check=True)
    image = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    session = onnxruntime.InferenceSession(str(tmp_path / "probe.onnx"), providers=["CPUExecutionProvider"])
    assert (session.run(None, {"image": image})[0] == image[..., 1]).all()


def test_the_doctor_names_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"onnxruntime": "1.31.0", "onnxruntime-gpu": "1.31.0", "pillow": "11.0.0", "numpy": "2.0.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise health.importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(health.importlib.metadata, "version", version)
    told = {check.name: check for check in health._packages()}
    assert told["onnxruntime"].status == health.BAD and "overwrite each other" in told["onnxruntime"].found
    assert told["pillow"].status == health.WARN and told["pillow"].advice == "pip install 'pillow>=12.3.0'"

    class Broken:
        device = "broken"

        def run(self, *_: object) -> list[np.ndarray]:
            return [np.zeros((1, 2, 3), np.uint8)]

    assert health._runs("cpu", Broken).status == health.BAD  # type: ignore[arg-type]


def test_the_doctor_and_the_bench_from_the_command_line(cli: Cli, models: dict[str, Path], tmp_path: Path) -> None:
    done = cli("doctor", "--json")
    told = json.loads(done.stdout)
    status = {check["name"]: check["status"] for check in told["checks"]}
    assert done.returncode == (1 if told["status"] == "problem" else 0) and status["device cpu"] == "ok"
    Image.fromarray(blots(1, 60, 80)).save(tmp_path / "a.png")
    done = cli(
        "bench", models["dark"], "--image", tmp_path / "a.png", "--device", "cpu,cuda", "--seconds", "0.2", "--json"
    )
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(done.stdout)["models"]
    row, refused = entry["devices"]
    assert row["runs_on"] == "CPUExecutionProvider" and (row["height"], row["width"]) == (60, 80)
    assert 0 < row["p50"] <= row["p90"] <= row["p99"] and set(row["per_second"]) == {"1", "2", "4", "8"}
    assert sum(row["shares"].values()) == pytest.approx(1, abs=0.01) and row["memory_mb"] > 20
    if "error" in refused:
        assert "CUDAExecutionProvider" in refused["error"]
    missing = cli("bench", tmp_path / "none.onnx")
    assert missing.returncode == 2 and "no such model file" in missing.stderr
