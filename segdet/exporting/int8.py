"""int8: a quarter of the file and several times the speed on processors with VNNI.

Convolutions are quantised statically (QDQ: uint8 activations, int8 weights per channel; ONNX Runtime runs the other pairings
at half the speed), and everything that lies between two of them with them, so that nothing in between goes through
floats. Transformers' products with weights are quantised dynamically: their activations have outliers that a fixed
range would either cut or drown the rest in. Steps before the first and behind the last layer stay in float32.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode

from segdet.exporting.ranges import Range
from segdet.exporting.surgery import Graph, copy_of, of_type, with_shapes

# What ONNX Runtime (and OpenVINO) can do in 8 bits between two convolutions. The library's own list leaves Concat, Add,
# Mul and Sigmoid out, and each then costs a way to floats and back.
_BETWEEN = frozenset({
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul", "Pad", "Relu",
    "Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
# Behind these, tokens begin: their residual sums stay in float32.
_WALLS = frozenset({"MatMul", "Gemm", "LayerNormalization", "Softmax"})


@dataclass(frozen=True)
class Recipe:
    """What to quantise, and how.

    name: in a few words, for people. ranges: of activations, "widest" (all that was seen) or "clipped" (without the rarest
    0.01 % at each end). floats: names of layers that stay in float32.
    """

    name: str
    ranges: Literal["widest", "clipped"] = "widest"
    floats: frozenset[str] = frozenset()


def layers(proto: onnx.ModelProto) -> list[str]:
    """Names of the layers that can be quantised, in order: convolutions with weights of their own, and products with weights.

    A convolution whose weights are all ones is a sum and no layer (`models.unet.to_one_channel`).
    """
    graph = Graph(proto)
    convolutions = [n for n in of_type(graph, ["Conv"]) if graph.nodes[n].input[1] in graph.weights]
    convolutions = [n for n in convolutions if not _is_sum(graph, n)]
    if len(convolutions) < 2:  # a transformer's patch embedding: nothing to gain, and what it reads is the image itself
        convolutions = []
    products = {n for n in of_type(graph, ["MatMul"]) if _is_weight_matrix(graph, graph.nodes[n].input[1])}
    return [n for n in graph.nodes if n in products or n in set(convolutions)]


def _is_sum(graph: Graph, name: str) -> bool:
    weights = onnx.numpy_helper.to_array(graph.weights[graph.nodes[name].input[1]])
    return bool((weights == 1).all())


def measured_tensors(proto: onnx.ModelProto) -> list[str]:
    """The tensors whose ranges `quantised` needs."""
    graph = Graph(proto)
    convolutions = [n for n in layers(proto) if graph.nodes[n].op_type == "Conv"]
    touched = [*convolutions, *_between(graph, convolutions)]
    return sorted({t for n in touched for t in (*graph.nodes[n].input, *graph.nodes[n].output)} & graph.floats)


def quantised(proto: onnx.ModelProto, ranges: Mapping[str, Range], recipe: Recipe) -> onnx.ModelProto:
    """A copy with 8-bit layers, with the same inputs and outputs and only standard operators."""
    graph = Graph(proto)
    chosen = [name for name in layers(proto) if name not in recipe.floats]
    convolutions = [name for name in chosen if graph.nodes[name].op_type == "Conv"]
    products = [name for name in chosen if graph.nodes[name].op_type == "MatMul"]
    out = copy_of(proto)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a preparation that the exporter has done already
    try:
        if convolutions:
            out = _static(out, [*convolutions, *_between(graph, convolutions)], ranges, recipe)
        if products:
            out = _dynamic(out, products)
    finally:
        root.setLevel(level)
    for entry in [entry for entry in out.opset_import if entry.domain]:
        out.opset_import.remove(entry)
    del out.graph.value_info[:]
    return with_shapes(out)


def _between(graph: Graph, convolutions: list[str]) -> list[str]:
    """Nodes on a way from one of the convolutions to another that can work in 8 bits, in order."""

    def open_way(node: onnx.NodeProto) -> bool:
        return node.op_type not in _WALLS

    inside = graph.after(convolutions, open_way) & graph.before(convolutions, open_way)
    return [
        name
        for name, node in graph.nodes.items()
        if name in inside and node.op_type in _BETWEEN and graph.floats.intersection(node.output)
    ]


def _static(proto: onnx.ModelProto, names: list[str], ranges: Mapping[str, Range], recipe: Recipe) -> onnx.ModelProto:
    quantizer = QDQQuantizer(
        proto,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=_tensors_data(ranges, recipe),
        nodes_to_quantize=names,
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv", *sorted(_BETWEEN)],
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    made: onnx.ModelProto = quantizer.model.model
    return made


def _tensors_data(ranges: Mapping[str, Range], recipe: Recipe) -> TensorsData:
    clipped = recipe.ranges == "clipped"
    data = {
        name: TensorData(
            lowest=np.float32(seen.clipped_low if clipped else seen.low),
            highest=np.float32(seen.clipped_high if clipped else seen.high),
        )
        for name, seen in ranges.items()
    }
    return TensorsData(CalibrationMethod.MinMax, data)


def _dynamic(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    quantizer = ONNXQuantizer(
        with_shapes(proto),
        per_channel=True,
        reduce_range=False,
        mode=QuantizationMode.IntegerOps,
        static=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=None,
        nodes_to_quantize=names,
        nodes_to_exclude=[],
        op_types_to_quantize=["MatMul"],
        extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    made: onnx.ModelProto = quantizer.model.model
    return made


def _is_weight_matrix(graph: Graph, tensor: str) -> bool:
    return tensor in graph.weights and len(graph.weights[tensor].dims) == 2
