"""Which parts of a graph TensorRT cannot run, by its list of operators and types; ONNX Runtime gives these to CUDA.

It answers without a GPU and without TensorRT. What a build on a real machine says has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

_LIST = Path(__file__).with_name("tensorrt_ops.yaml")
_MOST_K = 3840  # of TopK
_FIRST = {"Resize", "Upsample", "CumSum", "Dropout", "Scan"}
_MAKERS = {"Cast", "CastLike", "Constant", "ConstantOfShape"}
_RESIZES = {"half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"}


@dataclass(frozen=True)
class Left:
    """A node that TensorRT does not run. reason: why, in a few words."""

    name: str
    operator: str
    reason: str


@cache
def _types() -> dict[str, frozenset[str]]:
    """Operator -> the types it takes."""
    known: dict[str, Any] = yaml.safe_load(_LIST.read_text())
    found = {}
    for group, lines in known["operators"].items():
        for line in lines:
            for operator in [line] if isinstance(line, str) else line:
                found[operator] = frozenset(known["types"][group])
    return found


def fallbacks(proto: onnx.ModelProto) -> list[Left]:
    """Nodes of a graph with inferred shapes that TensorRT does not run."""
    return list(_left(proto.graph, _kinds(proto.graph)))


def _left(graph: onnx.GraphProto, kinds: dict[str, int]) -> Iterator[Left]:
    border = {value.name for value in (*graph.input, *graph.output)}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        reason = _unknown(node, kinds, border) or _refused(node, constants)
        if reason:
            yield Left(node.name, node.op_type, reason)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _left(attribute.g, {**kinds, **_kinds(attribute.g)})


def _kinds(graph: onnx.GraphProto) -> dict[str, int]:
    """Tensor -> its element type."""
    values = (*graph.input, *graph.output, *graph.value_info)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    return {**kinds, **{tensor.name: tensor.data_type for tensor in graph.initializer}}


def _unknown(node: onnx.NodeProto, kinds: dict[str, int], border: set[str]) -> str:
    """Why operator or types are not on the list; empty when they are."""
    allowed = _types().get(node.op_type)
    if node.domain not in ("", "ai.onnx") or allowed is None:
        return "no such operator"
    inputs = node.input[: 1 if node.op_type in _FIRST else None]  # the others are sizes, axes and the like
    outputs = node.output if node.op_type in _MAKERS else ()  # those of other operators follow from their inputs
    for tensor in (*inputs, *outputs):
        kind = kinds.get(tensor, TensorProto.UNDEFINED)
        if kind in (TensorProto.UNDEFINED, TensorProto.DOUBLE):  # doubles are cast down
            continue
        word = helper.tensor_dtype_to_string(kind).removeprefix("TensorProto.").lower()
        if word not in allowed:
            return f"{word} {'input' if tensor in node.input else 'output'}"
        if word == "uint8" and tensor not in border:
            return "uint8 inside the graph"
    return ""


def _refused(node: onnx.NodeProto, constants: dict[str, TensorProto]) -> str:
    """Why this use of an operator is not supported; empty when it is."""
    check = _RULES.get(node.op_type)
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return check(node, given, constants) if check else ""


def _resize(node: onnx.NodeProto, given: dict[str, Any], constants: dict[str, TensorProto]) -> str:
    if given.get("antialias"):
        return "antialiased"
    if given.get("mode", b"nearest") not in (b"nearest", b"linear"):
        return f"mode {given['mode'].decode()}"
    way = given.get("coordinate_transformation_mode", b"half_pixel").decode()
    if way not in _RESIZES or given.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        return f"coordinates {way}"
    return ""


def _topk(node: onnx.NodeProto, given: dict[str, Any], constants: dict[str, TensorProto]) -> str:
    if not given.get("sorted", 1):
        return "not sorted"
    k = constants.get(node.input[1])
    return f"more than {_MOST_K - 1}" if k is not None and int(numpy_helper.to_array(k).item()) >= _MOST_K else ""


def _zero(node: onnx.NodeProto, given: dict[str, Any], constants: dict[str, TensorProto]) -> str:
    point = constants.get(node.input[2]) if len(node.input) > 2 else None
    return "zero point other than 0" if point is not None and numpy_helper.to_array(point).any() else ""


def _pool(node: onnx.NodeProto, given: dict[str, Any], constants: dict[str, TensorProto]) -> str:
    if any(step != 1 for step in given.get("dilations", ())):
        return "dilated"
    return "gives indices" if len(node.output) > 1 and node.output[1] else ""


def _scatter(node: onnx.NodeProto, given: dict[str, Any], constants: dict[str, TensorProto]) -> str:
    return "reduces" if given.get("reduction", b"none") != b"none" else ""


def _grid(node: onnx.NodeProto, given: dict[str, Any], constants: dict[str, TensorProto]) -> str:
    return f"mode {given['mode'].decode()}" if given.get("mode") in (b"cubic", b"bicubic") else ""


_RULES: dict[str, Callable[[onnx.NodeProto, dict[str, Any], dict[str, TensorProto]], str]] = {
    "Resize": _resize,
    "TopK": _topk,
    "DequantizeLinear": _zero,
    "QuantizeLinear": _zero,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "ScatterND": _scatter,
    "GridSample": _grid,
}
