"""The GPU kit, as far as it goes without a GPU: it runs whole on the processor, and its GPU paths on a session that is not real."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.conftest import ROOT
from tests.drivers import GpuRuntime, gpu
from tests.segmenters import blots, dark_model

sys.path.append(str(ROOT / "scripts"))

from gpu_kit import record, sessions, table
from gpu_kit.sessions import Variant
from gpu_kit.tensorrt import fallbacks

__all__ = ["gpu"]  # a fixture

HEADS = ("fcn", "dfine")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `rows.jsonl` of a small run on the processor, and the ONNX files it made in `work`."""
    folder = tmp_path_factory.mktemp("gpu")
    done = _kit(
        "--device", "cpu", "--quick", "--heads", *HEADS, "--work", folder / "work", "--out", folder / "rows.jsonl"
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def _kit(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "bench_gpu.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def test_the_script_runs_whole_without_a_gpu(quick: Path) -> None:
    rows = record.read(quick / "rows.jsonl")
    assert {row["part"] for row in rows} == {"machine", "correct", "speed", "training", "serving", "learning"}
    assert not [row for row in rows if "error" in row or "left_out" in row]
    judged = [row for row in rows if "passed" in row]
    assert {(row["step"], row["arch"], row["precision"]) for row in judged} == {
        *(("torch", head, precision) for head in HEADS for precision in ("fp32", "bf16")),
        *(("onnx", head, precision) for head in HEADS for precision in ("fp32", "fp16")),
    }
    assert all(row["passed"] and len(row["images"]) == 3 and len(row["batches"]) == 2 for row in judged)
    assert all(row["detections"] > 0 for row in judged if row["arch"] == "dfine"), "nothing compared proves nothing"
    timed = [row for row in rows if row["part"] == "speed"]
    assert all(row["ms"] > 0 and row["images_per_second"] > 0 for row in timed)
    assert {row["step"] for row in timed} == {"eager fp32", "eager bf16", "onnx fp32 cpu", "onnx fp32 cpu bound"}
    served = [one for row in rows if row["part"] == "serving" for one in row["clients"].values()]
    assert served and all(one["per_second"] > 0 and not one["failed"] for one in served)
    (curve,) = [row for row in rows if row["step"] == "curves"]
    assert max(curve["largest_difference"]) < 0.1


def test_the_rows_become_a_page_and_a_picture(quick: Path, tmp_path: Path) -> None:
    done = _kit("--table", quick / "rows.jsonl", "--plot", tmp_path / "speed.png")
    assert done.returncode == 0, done.stderr
    for title in ("Machine", "Answers", "Inference", "Training", "Serving", "Learning"):
        assert f"## {title}\n" in done.stdout
    assert "## Failed" not in done.stdout and "no GPU" in done.stdout
    widths = {len(line.split("|")) for line in done.stdout.splitlines() if line.startswith("| fcn | PyTorch")}
    assert len(widths) == 1 and (tmp_path / "speed.png").stat().st_size > 5000


def test_what_tensorrt_leaves_to_cuda(quick: Path) -> None:
    """Bytes are reordered and measured before they become floats, and detectors shrink large images with antialiasing.

    A new entry here is a part of the graph that TensorRT cannot run: it costs copies between two engines.
    """
    start = {("Shape", "uint8 input"), ("Transpose", "uint8 input"), ("Cast", "uint8 inside the graph")}
    shrinks = {("Resize", "antialiased"), ("Equal", "bool input")}
    for arch, expected in (("fcn", start), ("dfine", start | shrinks)):
        for precision in ("fp32", "fp16"):
            proto = onnx.load(quick / "work" / f"{arch}-{precision}.onnx")
            assert {(node.operator, node.reason) for node in fallbacks(proto)} == expected, (arch, precision)
    shipped = fallbacks(onnx.load(ROOT / "exports" / "crack.onnx"))
    assert {(node.operator, node.reason) for node in shipped} == start
    assert all(node.name for node in shipped), "a node without a name cannot be found again"


_REFUSED = """
<ir_version: 9, opset_import: ["" : 18, "own" : 1]>
g (float[1,3,8,8] x, uint8[1,3,8,8] image, int64[4] size) => (float[1,3,N,M] y, uint8[1,3,8,8] z)
<float scale = {0.1}, uint8 middle = {128}, int8 zero = {0}, int64[1] many = {5000}, float[0] none = {}> {
  plain = Resize<mode = "linear">(x, none, none, size)
  soft = Resize<mode = "linear", antialias = 1>(x, none, none, size)
  round = Resize<mode = "cubic">(x, none, none, size)
  unsigned = DequantizeLinear(image, scale, middle)
  eight = QuantizeLinear(x, scale, zero)
  back = DequantizeLinear(eight, scale, zero)
  bytes = Identity(image)
  top, which = TopK(x, many)
  odd = own.Strange(x)
  bits = BitShift<direction = "LEFT">(image, image)
  rest = Mod(size, size)
  pooled = MaxPool<kernel_shape = [2, 2], dilations = [2, 2]>(x)
  y = Add(soft, soft)
  z = Cast<to = 2>(x)
}
"""


def test_rules_of_tensorrt() -> None:
    proto = onnx.parser.parse_model(_REFUSED)
    for number, node in enumerate(proto.graph.node):
        node.name = f"{number} {node.output[0]}"
    found = {node.name.split()[1]: node.reason for node in fallbacks(proto)}
    assert found == {
        "soft": "antialiased", "round": "mode cubic", "unsigned": "uint8 input", "bytes": "uint8 input",
        "top": "more than 3839", "odd": "no such operator", "bits": "no such operator", "pooled": "dilated",
    }  # fmt: skip


@pytest.mark.parametrize("captured", [False, True])
def test_bound_sessions_keep_their_places_on_the_gpu(tmp_path: Path, gpu: GpuRuntime, captured: bool) -> None:
    """A captured graph replays on the buffers that it was captured with: none may be made again."""
    model = dark_model(tmp_path / "dark.onnx")
    shape = (2, 24, 32, 3)
    file = sessions.opened(model, Variant("cuda", bound=True, captured=captured, number=1), shape)
    (name, settings), last = gpu.opened[-1][0]
    assert (name, last) == ("CUDAExecutionProvider", "CPUExecutionProvider") and settings["device_id"] == 1
    assert settings.get("enable_cuda_graph") == (1 if captured else None)
    expected = sessions.opened(model, Variant("cpu"), shape)
    for seed in range(3):
        images = np.stack([blots(seed, 24, 32), blots(seed + 9, 24, 32)])
        found, times = file.run(images)
        for ours, theirs in zip(found, expected.run(images)[0], strict=True):
            assert ours.dtype == theirs.dtype and (ours == theirs).all()
        assert 0 < times.copies < times.whole  # type: ignore[operator]
    kinds = [call[0] for call in gpu.calls]
    assert kinds.count("place") == 1 and kinds.count("reserve") == 2 and kinds.count("update") == 3
    assert kinds.count("run bound") == 3 and kinds.count("synchronize outputs") == 3
    for before, after in (
        ("update", "run bound"),
        ("run bound", "synchronize outputs"),
        ("synchronize outputs", "fetch"),
    ):
        assert kinds.index(before) < kinds.index(after), "the clock stops when the work is done, not when it is queued"


def test_options_of_the_ways_to_run(tmp_path: Path, gpu: GpuRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGDET_CACHE", str(tmp_path / "cache"))
    model = dark_model(tmp_path / "dark.onnx", precision="fp16")
    sessions.opened(model, Variant("cuda", tf32=True), (1, 8, 8, 3))
    assert gpu.opened[-1][0][0][1]["use_tf32"] == 1
    sessions.opened(model, Variant("tensorrt", bound=True, captured=True), (1, 8, 8, 3))
    (_, engine), (_, cuda), _ = gpu.opened[-1][0]
    assert engine["trt_cuda_graph_enable"] == 1 and engine["trt_fp16_enable"] is True and cuda["use_tf32"] == 0
    assert gpu.opened[-1][1] == {"enable_fallback": 0}


def test_steps_leave_a_row_whatever_happens(tmp_path: Path) -> None:
    log = record.Log(tmp_path / "rows.jsonl", time.time() + 100)
    log.begin("part", time.time() + 50)

    def missing() -> dict[str, Any]:
        raise record.LeftOut("no GPU")

    def package() -> dict[str, Any]:
        import segdet_has_no_such_package  # noqa: F401

        return {}

    log.step("good", lambda: {"value": 1}, arch="unet")
    log.step("bad", lambda: {"value": 1 / 0})
    log.step("lacking", missing)
    log.step("package", package)
    log.begin("late", time.time() - 1)
    log.step("too late", lambda: {"value": 2})
    with log.path.open("a") as file:
        file.write('{"part": "cut o')  # as a process that is killed leaves it
    good, bad, lacking, without, late = record.read(log.path)
    assert good["value"] == 1 and good["arch"] == "unet" and "ZeroDivisionError" in bad["error"]
    assert lacking["left_out"] == "no GPU" and "segdet_has_no_such_package" in without["left_out"]
    assert late["left_out"] == "no time left" and "value" not in late
    page = table.page(record.read(log.path))
    assert "## Failed" in page and "## Left out" in page and "no GPU" in page


def test_parts_in_processes_of_their_own(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    done = _kit("--device", "cpu", "--quick", "--isolated", "--parts", "machine", "--out", out)
    assert done.returncode == 0 and len(record.read(out)) == 4
    late = _kit("--device", "cpu", "--quick", "--minutes", "0", "--parts", "speed", "--heads", "fcn", "--out", out)
    assert late.returncode == 0
    assert all(json.loads(line).get("left_out") == "no time left" for line in out.read_text().splitlines()[4:])


def test_the_wheels_that_travel_are_the_versions_that_are_tested() -> None:
    pinned = {line.split("==")[0].lower().replace("_", "-"): line.split("==")[1] for line in _lines("constraints.txt")}
    wheels = [line.split("==") for line in _lines("scripts/gpu_wheels.txt")]
    assert len(wheels) > 10
    for name, version in wheels:
        assert pinned[name] == version, name


def _lines(file: str) -> list[str]:
    lines = (line.strip() for line in (ROOT / file).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]
