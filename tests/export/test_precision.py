"""fp16 and int8: the contract stays, the gate judges, and what is standing beside the file is true."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import segdet
from segdet.cli.main import run
from segdet.data.images import read_image
from segdet.errors import InputError, SegdetError
from segdet.exporting import half, int8, job, parity, search
from segdet.exporting.onnx import to_onnx, write
from segdet.exporting.ranges import Range, measure
from segdet.exporting.surgery import Graph, with_shapes
from segdet.inference.backends.select import open_session
from segdet.models import weights
from segdet.training.config import TrainConfig


@pytest.fixture(scope="module")
def proto(exported: Path) -> onnx.ModelProto:
    """The graph of `trained` in fp32."""
    return with_shapes(onnx.load(exported))


@pytest.fixture(scope="module")
def traced(proto: onnx.ModelProto) -> Iterator[None]:
    """Exports take the graph from here: tracing is what costs most, and other tests do it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "to_onnx", lambda model, metadata: proto)
        yield


@pytest.fixture(scope="module")
def files(trained: Path, exported: Path, traced: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("precisions")
    made = {"fp32": exported}
    for precision in ("fp16", "int8"):  # a tiny model on six tiny images: the limits are for real ones
        made[precision] = segdet.export(
            trained, out=folder / f"walls-{precision}.onnx", precision=precision, tolerance=0.05, calibration=8
        )
    return made


def _inputs(path: Path) -> list[tuple[str, str, list[object]]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [
        (e.name, e.type, e.shape)
        for e in (*session.get_inputs(), *session.get_overridable_initializers(), *session.get_outputs())
    ]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_inputs_and_outputs_stay_the_contract(files: dict[str, Path], precision: str) -> None:
    assert _inputs(files[precision]) == _inputs(files["fp32"])
    model = onnx.load(files[precision])
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert {node.domain for node in model.graph.node} == {""}
    assert not [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]


def test_weights_are_really_smaller(files: dict[str, Path]) -> None:
    def held(precision: str) -> dict[int, int]:
        sizes: dict[int, int] = {}
        for tensor in onnx.load(files[precision]).graph.initializer:
            sizes[tensor.data_type] = sizes.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
        return sizes

    exact = held("fp32")[onnx.TensorProto.FLOAT]
    assert held("fp16")[onnx.TensorProto.FLOAT16] > 0.99 * exact
    assert held("int8")[onnx.TensorProto.INT8] > 0.9 * exact


@pytest.mark.parametrize("shape", [(1, 70, 131), (2, 96, 96), (1, 1, 1)])
@pytest.mark.parametrize(("precision", "most"), [("fp16", 0.02), ("int8", 0.25)])
def test_answers_stay_near_at_any_size(
    files: dict[str, Path], precision: str, most: float, shape: tuple[int, int, int]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    exact, small = (open_session(files[name], "cpu").run(images) for name in ("fp32", precision))
    assert small[1].dtype == np.float32 and np.abs(small[1] - exact[1]).mean() < most
    everything = open_session(files[precision], "cpu").run(images, threshold=0.0)[0]
    assert everything.all()


def test_int8_runs_in_8_bits_from_layer_to_layer(files: dict[str, Path], tmp_path: Path) -> None:
    """What the library leaves in floats by itself (Concat, Resize, Add) costs the speed."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(files["int8"]), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    graph = Graph(onnx.load(files["fp32"]))
    convolutions = sum(node.op_type == "Conv" for node in graph.nodes.values())
    # The last layer stays in floats: one convolution per channel, and one that adds them up.
    assert kinds.count("QLinearConv") == convolutions - 2 and "QLinearConcat" in kinds
    assert kinds.count("QuantizeLinear") <= 3  # the image, and what a mean over all pixels gives


def test_parity_names_what_was_done(files: dict[str, Path]) -> None:
    for precision in ("fp16", "int8"):
        inside = open_session(files[precision], "cpu").metadata
        beside = json.loads(files[precision].with_suffix(".parity.json").read_text())
        assert inside.precision == beside["precision"] == precision and inside.parity is not None
        assert inside.parity["agreement"] == beside["agreement"] > 0.85
        low, high = beside["iou"]["ci95"]
        assert low <= beside["iou"]["delta"] <= high
    made = beside["quantised"]
    assert made["recipe"].startswith("all layers") and made["in_float"] and made["layers"] > 20
    assert made["calibration_images"] == 8


def test_the_card_and_the_picture_stand_beside(files: dict[str, Path], trained: Path, tmp_path: Path) -> None:
    for precision, file in files.items():
        text = file.with_suffix(".md").read_text()
        metadata = open_session(file, "cpu").metadata
        assert text.startswith(f"# {file.stem}\n") and f"{metadata.threshold:.3f}" in text
        assert f"| IoU | {metadata.metrics['iou']:.3f} |" in text and metadata.data.sha256 in text
        assert f"segdet train --config {file.stem}.yaml" in text and str(metadata.source_sha256) in text
        block = text.split("trains it again.\n\n")[1].split("\n\n##")[0]
        saved = tmp_path / f"{file.stem}.yaml"
        saved.write_text(textwrap.dedent(block))
        again, first = TrainConfig.from_file(saved), TrainConfig.from_file(trained / "config.yaml")
        machine = {"out", "name", "device", "workers", "data"}
        assert again.model_dump(exclude=machine) == first.model_dump(exclude=machine)
        assert ("8-bit" in text) == (precision == "int8")
        assert str(trained) not in text and str(file.parent) not in text
        height, width, _ = read_image(file.with_suffix(".worst.jpg")).shape
        assert width > 4 * 96 and height > 96


def test_a_file_that_lost_too_much_is_not_written(
    trained: Path, traced: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parity.LIMITS, "fp16", replace(parity.LIMITS["fp16"], loss=-1.0))
    options = ["--precision", "fp16", "--limit", "2", "--out", str(tmp_path / "bad.onnx")]
    assert run(["export", str(trained), *options]) == 1
    assert "does not agree" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_broken_quantisation_is_not_written(
    trained: Path, traced: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges that have nothing to do with the values: the answers are noise, and the gate sees it whatever is tried."""
    wrong = Range(-1e-3, 1e-3, -1e-3, 1e-3)
    monkeypatch.setattr(search, "measure", lambda proto, images, names, advance: dict.fromkeys(names, wrong))
    monkeypatch.setattr(search, "_SHARES", (0.1,))
    monkeypatch.setattr(search, "_GROUPS", 2)
    with pytest.raises(SegdetError, match="does not agree"):
        segdet.export(trained, out=tmp_path / "broken.onnx", precision="int8", calibration=4, limit=3)
    assert list(tmp_path.iterdir()) == []


def test_the_search_goes_on_when_the_gate_refuses(
    trained: Path, traced: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused: list[float] = []

    def refuses_twice(file: Path, gate: object, records: object) -> dict[str, object]:
        compared = original(file, gate, records)
        refused.append(compared["agreement"])
        return {**compared, "passed": len(refused) > 2}

    original = job._compared
    monkeypatch.setattr(job, "_compared", refuses_twice)
    file = segdet.export(trained, out=tmp_path / "x.onnx", precision="int8", tolerance=0.5, calibration=4, limit=2)
    made = json.loads(file.with_suffix(".parity.json").read_text())["quantised"]
    assert made["recipe"] == "all layers but the first and last" and len(made["in_float"]) == 2
    assert capsys.readouterr().err.count("refused") == 2


def test_unusable_options_are_input_errors(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="precision=int4: must be fp32, fp16 or int8"):
        segdet.export(trained, precision="int4")
    (tmp_path / "walls").mkdir()
    with pytest.raises(InputError, match="exists already"):
        segdet.export(trained, out=tmp_path / "walls.onnx", triton=tmp_path)


def test_what_overflows_in_halves_stays_in_floats(trained: Path, proto: onnx.ModelProto, tmp_path: Path) -> None:
    metadata = weights.read_metadata(trained / "weights" / "best.safetensors")
    images = [np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)]
    ranges = measure(proto, images, half.measured_tensors(proto))
    graph = Graph(proto)
    victim = [n for n, node in graph.nodes.items() if node.op_type == "Conv"][5]
    loud = graph.nodes[victim].output[0]
    made, kept = half.halved(proto, {**ranges, loud: Range(0.0, 1e6, 0.0, 1e6)})
    assert kept[0] == victim
    write(made, metadata, tmp_path / "half.onnx")
    confidence = open_session(tmp_path / "half.onnx", "cpu").run(images[0][None])[1]
    assert np.isfinite(confidence).all()
    assert Graph(made).nodes[victim].input[1] in Graph(made).weights  # float32 still


def test_transformers_are_quantised_dynamically_and_their_files_shrink(tmp_path: Path) -> None:
    from segdet.models.registry import build_model
    from tests.models.test_unet import _metadata

    model, backbone = build_model("segmenter", "test_vit", ["crack"], "none", {}, 64)
    metadata = _metadata(
        arch="segmenter", backbone="test_vit", mean=list(backbone.mean), std=list(backbone.std), imgsz=64
    )
    proto = to_onnx(model.eval(), metadata)
    assert not int8.measured_tensors(proto)
    made = int8.quantised(proto, {}, int8.Recipe("all"))
    kinds = [node.op_type for node in made.graph.node]
    assert kinds.count("MatMulInteger") == len(int8.layers(proto)) > 10 and "QuantizeLinear" not in kinds
    image = np.random.default_rng(0).integers(0, 256, (1, 80, 60, 3), dtype=np.uint8)
    answers = []
    for name, one in (("exact", proto), ("small", made)):
        write(one, metadata, tmp_path / f"{name}.onnx")
        answers.append(open_session(tmp_path / f"{name}.onnx", "cpu").run(image)[1])
    assert np.abs(answers[0] - answers[1]).mean() < 0.02
    assert (tmp_path / "small.onnx").stat().st_size < 0.5 * (tmp_path / "exact.onnx").stat().st_size
