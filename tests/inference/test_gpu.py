"""GPUs, with a driver and a session that are not real: options, memory, failures, and what is said about them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segdet.errors import InputError, SegdetError
from segdet.inference.backends import nvidia, onnxruntime
from segdet.inference.backends.onnxruntime import DeviceLost, OutOfMemory
from segdet.inference.backends.select import open_session
from segdet.serving.runner import Runner
from segdet.serving.settings import ServeConfig
from segdet.tools import environment
from tests.drivers import Driver, GpuRuntime, gpu, loaded
from tests.segmenters import blots, dark_model

__all__ = ["gpu"]  # a fixture


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGDET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return dark_model(tmp_path / "dark.onnx")


def test_provider_options_of_cuda(model: Path, gpu: GpuRuntime) -> None:
    session = open_session(model, "cuda:1")
    assert session.on_gpu and session.device == "CUDAExecutionProvider"
    ((providers, more, _),) = gpu.opened
    (name, options), last = providers
    assert (name, last) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options["device_id"] == 1 and options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert options["use_tf32"] == 0 and options["arena_extend_strategy"] == "kSameAsRequested"
    assert more == {"enable_fallback": 0}  # the fallback prints to stdout and starts another provider


def test_tensorrt_keeps_the_engines_of_files_apart(tmp_path: Path, gpu: GpuRuntime) -> None:
    """ONNX Runtime names engines after the graph only: new weights of an old graph would get the old answers."""
    folders, halves = [], []
    for number, precision in enumerate(["fp32", "fp32", "fp16"]):
        path = tmp_path / str(number) / "model.onnx"
        path.parent.mkdir()
        dark_model(path, threshold=0.5 if number != 1 else 0.6, precision=precision)
        open_session(path, "tensorrt")
        providers = gpu.opened[-1][0]
        assert [each[0] for each in providers[:2]] == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
        options = providers[0][1]
        folders.append(options["trt_engine_cache_path"])
        halves.append(options["trt_fp16_enable"])
        assert Path(folders[-1]).is_dir() and options["trt_engine_cache_enable"] is True
    assert len(set(folders)) == 3 and halves == [False, False, True]


def test_images_of_one_size_use_one_place_in_gpu_memory(model: Path, gpu: GpuRuntime) -> None:
    ours, theirs = open_session(model, "cuda"), open_session(model, "cpu")
    small, large = np.stack([blots(k, 20, 30) for k in range(3)]), blots(4, 40, 30)[None]
    for images in (small[:1], small[1:2], small[2:, ::1], large, large[:, ::2], small[:1]):
        for threshold in (None, 0.3):
            for ours_part, theirs_part in zip(ours.run(images, threshold), theirs.run(images, threshold), strict=True):
                assert (ours_part == theirs_part).all()
    kinds = [call[0] for call in gpu.calls]
    assert kinds.count("place") == 3 and kinds.count("update") == 9 and kinds.count("run bound") == 12
    assert all(call[2:] == ("cuda", 0) for call in gpu.calls if call[0] == "place")


def test_what_does_not_fit_together_runs_in_parts(model: Path, gpu: GpuRuntime) -> None:
    images = np.stack([blots(k, 24, 24) for k in range(7)])
    expected = open_session(model, "cpu").run(images)

    def full(shape: tuple[int, ...]) -> None:
        if shape[0] > 2:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 123")

    gpu.fails = full
    session = open_session(model, "cuda")
    for ours, theirs in zip(session.run(images), expected, strict=True):
        assert ours.dtype == theirs.dtype and (ours == theirs).all()
    tried = [call[1][0] for call in gpu.calls if call[0] == "run bound"]
    assert tried == [7, 4, 2, 2, 2, 1]
    gpu.calls.clear()
    session.run(images)  # what fits is remembered
    assert [call[1][0] for call in gpu.calls if call[0] == "run bound"] == [2, 2, 2, 1]
    gpu.fails = lambda shape: (_ for _ in ()).throw(RuntimeError("CUDA failure 2: out of memory ; GPU=0"))
    with pytest.raises(OutOfMemory, match=r"not enough GPU memory for an image of 24x24; use tile or imgsz"):
        session.run(images)
    gpu.fails = lambda shape: (_ for _ in ()).throw(RuntimeError("Got invalid dimensions for input"))
    with pytest.raises(RuntimeError, match="invalid dimensions"):
        session.run(images)


def test_a_gpu_that_fails_makes_the_server_unhealthy(model: Path, gpu: GpuRuntime) -> None:
    runner = Runner(model, ServeConfig(device="cuda", batch=4))
    image = blots(1, 32, 32)
    runner.calibrate(image)
    assert {call[1][0] for call in gpu.calls if call[0] == "run bound"} == {1, 4}, "a full batch is warm too"
    assert not runner.lost
    gpu.fails = lambda shape: (_ for _ in ()).throw(RuntimeError("CUDA failure 700: an illegal memory access"))
    with pytest.raises(DeviceLost, match="the GPU has failed"):
        runner.run(image[None])
    assert runner.lost
    runner.close()


def test_a_failed_gpu_shows_in_the_health_check(model: Path, gpu: GpuRuntime) -> None:
    from fastapi.testclient import TestClient

    from segdet.serving.app import create_app

    app = create_app(ServeConfig(model=[f"dark={model}"], device="cuda"))
    with TestClient(app) as client:
        assert client.get("/healthz").status_code == 200
        app.state.context.models.get("dark").current.runner.lost = True
        answer = client.get("/healthz")
        assert answer.status_code == 503 and answer.json()["code"] == "device_lost" and "dark" in answer.json()["error"]


@pytest.mark.parametrize(
    ("device", "driver", "said"),
    [
        ("cuda:2", nvidia.Driver(2, (13, 0)), "2 GPUs, numbered from 0"),
        ("tensorrt:1", nvidia.Driver(1, (13, 0)), "1 GPU, number 0"),
        ("cuda", nvidia.Driver(0, (13, 0), nvidia._FAULTS[803]), "different versions: reboot"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_opened(
    model: Path, gpu: GpuRuntime, monkeypatch: pytest.MonkeyPatch, device: str, driver: nvidia.Driver, said: str
) -> None:
    monkeypatch.setattr(nvidia, "driver", lambda: driver)
    with pytest.raises(InputError, match=said) as caught:
        open_session(model, device)
    assert device in str(caught.value) and not gpu.opened


def test_errors_of_the_device_are_not_blamed_on_the_file(
    model: Path, gpu: GpuRuntime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnxruntime, "missing_library", lambda kind: "libcudnn.so.9: no such file; pip install it")

    def fail() -> None:
        print("*** EP Error ***")  # noqa: T201
        raise RuntimeError("CUDA failure 101: invalid device ordinal ; GPU=1")

    gpu.start = fail
    with pytest.raises(InputError, match=r"device=cuda: CUDAExecutionProvider cannot start .*ordinal.*libcudnn"):
        open_session(model, "cuda")
    gpu.start = lambda: (_ for _ in ()).throw(RuntimeError("Load model failed: Protobuf parsing failed"))
    with pytest.raises(InputError, match="not an ONNX file that can be run"):
        open_session(model, "cuda")
    assert capsys.readouterr().out == "", "standard output is for results"


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        (Driver(3, 12040), nvidia.Driver(3, (12, 4))),
        (Driver(0, 13010), nvidia.Driver(0, (13, 1), nvidia._FAULTS[100])),
        (Driver(1, 12020, 802), nvidia.Driver(0, (12, 2), nvidia._FAULTS[802])),
        (Driver(1, 12020, 7), nvidia.Driver(0, (12, 2), "the driver cannot start (CUDA error 7)")),
    ],
)
def test_the_driver_says_how_many_gpus_there_are(
    monkeypatch: pytest.MonkeyPatch, library: Driver, expected: nvidia.Driver
) -> None:
    monkeypatch.setattr(nvidia, "ctypes", loaded(library))
    assert nvidia.driver() == expected


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "ctypes", loaded(None))
    assert nvidia.driver().count == 0 and "install the NVIDIA driver" in nvidia.driver().fault


def test_a_driver_older_than_a_library_is_named() -> None:
    here = nvidia.Driver(1, (12, 4))
    assert "built for CUDA 13.0, but the driver runs CUDA 12.4" in nvidia.too_old("13.0", here)
    assert nvidia.too_old("12.8", here) == nvidia.too_old("", here) == nvidia.too_old("13.0", nvidia.Driver()) == ""


def test_auto_says_why_a_gpu_is_left_out(
    model: Path, gpu: GpuRuntime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert open_session(model).on_gpu
    monkeypatch.setattr(nvidia, "driver", lambda: nvidia.Driver(fault="the driver cannot start"))
    monkeypatch.setattr(nvidia, "present", lambda: True)
    onnxruntime._report.cache_clear()
    assert not open_session(model).on_gpu and not open_session(model).on_gpu
    assert capsys.readouterr().err.count("the GPU is not used: the driver cannot start") == 1


_FAKE_TORCH = """
import warnings
__version__ = "9.9"
class version: cuda = "13.0"
class OutOfMemoryError(RuntimeError): pass
class cuda:
    @staticmethod
    def is_available():
        if {available} is False:
            warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old (found version 12020).")
        return {available}
    @staticmethod
    def device_count(): return 1
def ones(*_, device):
    raise RuntimeError("CUDA error: no kernel image is available for execution on the device\\nCompile with X to see")
"""


@pytest.mark.parametrize(
    ("available", "status", "said"),
    [
        (True, environment.BAD, "no kernel image is available"),
        (False, environment.WARN, "driver runs CUDA 12.2 at most"),
    ],
)
def test_the_doctor_says_why_pytorch_cannot_use_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available: bool, status: str, said: str
) -> None:
    (tmp_path / "torch.py").write_text(_FAKE_TORCH.format(available=available))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(nvidia, "present", lambda: True)
    monkeypatch.setattr(nvidia, "driver", lambda: nvidia.Driver(1, (12, 2)))
    (check,) = environment._torch()
    assert check.status == status and said in check.found + check.advice and "Compile with" not in check.found


def test_the_doctor_survives_a_driver_that_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexec sleep 100\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **more: run(command, **{**more, "timeout": 0.2}))
    (check,) = environment._nvidia()
    assert check.status == environment.BAD and "no answer within" in check.found
    tool.write_text("#!/bin/sh\necho '0, H200, 580.1, 143771 MiB, 0 MiB, Enabled'\n")
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(nvidia, "driver", lambda: nvidia.Driver(1, (13, 0)))
    (check,) = environment._nvidia()
    assert check.status == environment.GOOD and "1 usable here, CUDA 13.0" in check.found and "MIG" in check.advice


def test_errors_are_of_the_right_kind() -> None:
    assert issubclass(OutOfMemory, SegdetError) and not issubclass(OutOfMemory, InputError)
    assert onnxruntime.out_of_memory(MemoryError()) and not onnxruntime.out_of_memory(RuntimeError("shape"))
    assert sys.version_info >= (3, 11)
