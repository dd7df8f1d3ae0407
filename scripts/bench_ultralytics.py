"""The same ONNX network in segdet and in ultralytics: JPEG in, mask PNG out, one image at a time, on one core.

    python scripts/bench_ultralytics.py yolo26n-sem.onnx --python other/bin/python --data crack --size 416x416

`--python` is an interpreter with ultralytics (AGPL-3.0: never a dependency of segdet, and nothing of it is copied here). The
ONNX file is what its `export(format="onnx", imgsz=[H, W])` writes for a semantic model, with random weights if need be:
speed does not depend on them. For segdet the graph is wrapped into its contract (raw RGB bytes in, mask and confidence out);
padding to a multiple of 32 is the same. Each side runs in a process of its own, pinned to one core; start-up is reported apart.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench_predict

_THEIRS = """
import json, os, resource, sys, time
from pathlib import Path
os.sched_setaffinity(0, {int(sys.argv[4])})
model, images, out = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
size = json.loads(sys.argv[5])
def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
began = time.perf_counter()
import cv2
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime
open_session = onnxruntime.InferenceSession
def one_thread(model, options=None, **more):  # its threads would leave the core that the process is bound to
    options = options or onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return open_session(model, options, **more)
onnxruntime.InferenceSession = one_thread
from ultralytics import YOLO
out.mkdir(parents=True, exist_ok=True)
yolo = YOLO(model, task="semantic")
def run(paths):
    for path in paths:
        result = yolo.predict(path, imgsz=size, verbose=False, save=False)[0]
        cv2.imwrite(str(out / (Path(path).stem + "_mask.png")), result.semantic_mask.data.cpu().numpy())
run(images[:1])
start, start_wall = cpu(), time.perf_counter() - began
clock = time.perf_counter()
run(images)
row = {"cpu": 1000 * (cpu() - start) / len(images), "wall": 1000 * (time.perf_counter() - clock) / len(images),
       "start_cpu": start, "start_wall": start_wall, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}
print(json.dumps(row))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("onnx", type=Path)
    parser.add_argument("--python", required=True, help="interpreter that has ultralytics")
    parser.add_argument("--data", default="crack")
    parser.add_argument("--size", default="416x416", help="WIDTHxHEIGHT of the images")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, _ = bench_predict.prepare(options.data, options.size, options.count, folder / "images")
        width, height = (int(side) for side in options.size.split("x"))
        wrapped = folder / "wrapped.onnx"
        wrap(options.onnx, wrapped, height, width)
        sides = ("ultralytics", "segdet cpu", "segdet openvino")
        rows: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for turn in range(options.rounds):
            for side in sides if turn % 2 else reversed(sides):
                rows[side].append(one(side, options, images, wrapped, folder, (height, width)))
                print(f"round {turn + 1}: {side}: {rows[side][-1]}", file=sys.stderr, flush=True)
        differ = [bench_predict.compare(folder / "ultralytics", folder / side, images)[0] for side in sides]
    heads = "| | CPU ms | wall ms | ratio CPU | ratio wall | start-up CPU s / wall s | GB | pixels that differ |"
    print(f"{heads}\n|---|---|---|---|---|---|---|---|")
    middle = {
        side: {key: statistics.median(row[key] for row in found) for key in found[0]} for side, found in rows.items()
    }
    theirs = middle["ultralytics"]
    for (side, row), share in zip(middle.items(), differ, strict=True):
        print(
            f"| {side} | {row['cpu']:.1f} | {row['wall']:.1f} | {theirs['cpu'] / row['cpu']:.2f} | {theirs['wall'] / row['wall']:.2f} "
            f"| {row['start_cpu']:.2f} / {row['start_wall']:.2f} | {row['memory']:.2f} | {share:.3%} |"
        )


def one(
    side: str, options: argparse.Namespace, images: list[Path], wrapped: Path, folder: Path, size: tuple[int, int]
) -> dict[str, Any]:
    if side != "ultralytics":
        device = side.split()[1]
        job = {"kind": "segdet", "model": str(wrapped), "device": device, "images": [str(path) for path in images]}
        return bench_predict.measure({**job, "out": str(folder / side), "core": options.core})
    listed = folder / "images.json"
    listed.write_text(json.dumps([str(path) for path in images]))
    network = [-(-side // 32) * 32 for side in size]
    command = [options.python, "-c", _THEIRS, str(options.onnx), str(listed), str(folder / side), str(options.core)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, json.dumps(network)], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def wrap(source: Path, target: Path, height: int, width: int) -> None:
    """Write the network with segdet's inputs and outputs."""
    import onnx
    from onnx import TensorProto, helper

    from segdet.metadata import KEY, DataSource, Metadata

    model = onnx.load(source)
    graph = model.graph
    network = [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    more = [network[2] - height, network[3] - width]
    top, left = more[0] // 2, more[1] // 2
    pads = [0, 0, top, left, 0, 0, more[0] - top, more[1] - left]
    given, answer = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        node.input[:] = ["network" if name == given else name for name in node.input]
    constants = {
        "w_scale": helper.make_tensor("w_scale", TensorProto.FLOAT, [], [255.0]),
        "w_pads": helper.make_tensor("w_pads", TensorProto.INT64, [8], pads),
        "w_grey": helper.make_tensor("w_grey", TensorProto.FLOAT, [], [114 / 255]),
        "w_from": helper.make_tensor("w_from", TensorProto.INT64, [2], [top, left]),
        "w_to": helper.make_tensor("w_to", TensorProto.INT64, [2], [top + height, left + width]),
        "w_axes": helper.make_tensor("w_axes", TensorProto.INT64, [2], [1, 2]),
        "w_zero": helper.make_tensor("w_zero", TensorProto.FLOAT, [], [0.0]),
        "w_one": helper.make_tensor("w_one", TensorProto.FLOAT, [], [1.0]),
    }
    before = [
        helper.make_node("Transpose", ["image"], ["w_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["w_planes"], ["w_float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["w_float", "w_scale"], ["w_unit"]),
        helper.make_node("Pad", ["w_unit", "w_pads", "w_grey"], ["network"]),
    ]
    after = [
        helper.make_node("Slice", [answer, "w_from", "w_to", "w_axes"], ["w_cut"]),
        helper.make_node("Cast", ["w_cut"], ["mask"], to=TensorProto.UINT8),
        helper.make_node("Cast", ["mask"], ["w_answer"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["w_answer", "w_zero"], ["w_none"]),
        helper.make_node("Add", ["w_none", "w_one"], ["confidence"]),
    ]
    nodes = [*before, *graph.node, *after]
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])]
    outputs = [
        helper.make_tensor_value_info("mask", TensorProto.UINT8, ["N", "H", "W"]),
        helper.make_tensor_value_info("confidence", TensorProto.FLOAT, ["N", "H", "W"]),
    ]
    wrapped = helper.make_graph(nodes, "wrapped", inputs, outputs, [*graph.initializer, *constants.values()])
    result = helper.make_model(wrapped, opset_imports=model.opset_import, ir_version=model.ir_version)
    entry = result.metadata_props.add()
    classes = [f"class {k}" for k in range(1, 20)]
    entry.key, entry.value = (
        KEY,
        Metadata(
            schema=1, task="segmentation", arch="foreign", backbone="foreign", classes=classes, imgsz=416, mean=[0.0] * 3,
            std=[1.0] * 3, data=DataSource(name="none", sha256="0" * 64), version="0",
        ).to_json(),
    )  # fmt: skip
    onnx.save(result, target)


if __name__ == "__main__":
    main()
