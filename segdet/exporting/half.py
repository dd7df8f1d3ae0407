"""fp16: half the file, for GPUs. Casts stand only where halves and floats meet.

As in mixed-precision training, the heavy layers and the operations between them run in float16; norms, softmax, sums, logarithms,
positions and everything that was seen to come near the end of the range stay in float32, and so do the steps before the
first and behind the last heavy layer. (ONNX Runtime's converter sends what it keeps in float32 through halves at every
step, which costs boxes their last digits.)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from segdet.exporting.ranges import Range
from segdet.exporting.surgery import HEAVY, Graph, copy_of, of_type, with_shapes

LARGEST = 16384.0  # a quarter of float16's range: images that were not measured may reach further

# Exact enough in halves, and understood in them by every runtime. Everything else stays in float32.
_LIGHT = frozenset({
    "Add", "Sub", "Mul", "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Erf", "Gelu",
    "Concat", "Split", "Slice", "Pad", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Identity",
    "MaxPool", "AveragePool", "GlobalAveragePool", "Resize",
})  # fmt: skip
_FLOAT_INPUTS = {"Resize": (1, 2)}  # region and scales


def measured_tensors(proto: onnx.ModelProto) -> list[str]:
    """The tensors whose range `halved` wants to know: all of them."""
    return sorted(Graph(proto).floats)


def halved(proto: onnx.ModelProto, ranges: Mapping[str, Range]) -> tuple[onnx.ModelProto, list[str]]:
    """A copy in mixed precision, with the same inputs and outputs.

    Returns:
        The model, and the names of heavy layers that had to stay in float32 because their values are too large.
    """
    out = copy_of(proto)
    graph = Graph(out)
    halves, kept = _chosen(graph, ranges)
    _convert(graph, halves)
    del out.graph.value_info[:]
    return with_shapes(out), kept


def _chosen(graph: Graph, ranges: Mapping[str, Range]) -> tuple[set[str], list[str]]:
    """Nodes that work in halves, and heavy ones that do not."""
    results = {value.name for value in graph.proto.graph.output}  # the contract's are float32
    large = {name for name, seen in ranges.items() if not seen.largest <= LARGEST}
    heavy = of_type(graph, HEAVY)
    inside = graph.before(heavy)  # what only follows the last heavy layer stays in float32
    halves: set[str] = set()
    half_tensors: set[str] = set()
    kept: list[str] = []
    for name, node in graph.nodes.items():
        tensors = [t for t in (*node.input, *node.output) if t in graph.floats]
        if node.op_type in HEAVY:
            good = bool(tensors) and not large.intersection(tensors)
            if not good:
                kept.append(name)
        else:  # only where it saves casts: all that it reads is there in halves already
            reads = [t for t in node.input if t in graph.floats]
            good = (
                (node.op_type in _LIGHT or _divides_by_constant(graph, node))
                and name in inside
                and bool(reads)
                and half_tensors.issuperset(reads)
                and not large.intersection(tensors)
                and not _antialiased(node)
            )
        if good and not results.intersection(node.output):
            halves.add(name)
            half_tensors.update(t for t in node.output if t in graph.floats)
    return halves, kept


def _divides_by_constant(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether it divides by fixed numbers that are well inside the range of halves."""
    if node.op_type != "Div" or node.input[1] not in graph.weights:
        return False
    divisor = np.abs(numpy_helper.to_array(graph.weights[node.input[1]]))
    return bool((divisor > 1e-3).all() and (divisor < LARGEST).all())


def _antialiased(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "antialias" and attribute.i for attribute in node.attribute)


def _convert(graph: Graph, halves: set[str]) -> None:
    """Change the graph in place: weights, and one cast for each tensor that is read in the other precision."""
    proto = graph.proto.graph
    half_tensors = {t for name in halves for t in graph.nodes[name].output if t in graph.floats}
    half_weights: dict[str, str] = {}
    used_weights: set[str] = set()
    casts: dict[str, onnx.NodeProto] = {}  # by the tensor they read

    def other(tensor: str) -> str:
        """The tensor in the precision that its maker does not give."""
        if tensor not in casts:
            half = tensor in half_tensors
            suffix, kind = (".float", TensorProto.FLOAT) if half else (".half", TensorProto.FLOAT16)
            casts[tensor] = helper.make_node(
                "Cast", [tensor], [tensor + suffix], name=f"cast_{tensor}{suffix}", to=kind
            )
        return str(casts[tensor].output[0])

    for name, node in graph.nodes.items():
        for place, tensor in enumerate(node.input):
            wants_half = name in halves and place not in _FLOAT_INPUTS.get(node.op_type, ())
            if tensor in graph.weights:
                if wants_half:
                    node.input[place] = half_weights.setdefault(tensor, f"{tensor}.half")
                else:
                    used_weights.add(tensor)
            elif tensor in graph.floats and (tensor in half_tensors) != wants_half:
                node.input[place] = other(tensor)
    for name, half in half_weights.items():
        proto.initializer.append(numpy_helper.from_array(_to_half(graph.weights[name]), half))
    for weight in [t for t in proto.initializer if t.name in half_weights and t.name not in used_weights]:
        proto.initializer.remove(weight)
    _insert(proto, casts)


def _insert(proto: onnx.GraphProto, casts: Mapping[str, onnx.NodeProto]) -> None:
    """Put each cast right behind the maker of what it reads."""
    ordered: list[onnx.NodeProto] = [casts[value.name] for value in proto.input if value.name in casts]
    for node in proto.node:
        ordered.append(node)
        ordered.extend(casts[tensor] for tensor in node.output if tensor in casts)
    copies = onnx.GraphProto()
    copies.node.extend(ordered)  # copied before the originals go
    del proto.node[:]
    proto.node.extend(copies.node)


def _to_half(tensor: TensorProto) -> np.ndarray:
    """The weight in halves; what is larger than any half becomes the largest."""
    limit = float(np.finfo(np.float16).max)
    return numpy_helper.to_array(tensor).clip(-limit, limit).astype(np.float16)
