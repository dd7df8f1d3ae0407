"""Queries on an ONNX graph: producers and consumers of a tensor, and the nodes between two kinds of nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import onnx
from onnx import NodeProto, TensorProto

HEAVY = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})  # where nearly all of the arithmetic is


class Graph:
    """Links between the nodes of a model, which must be in topological order (ONNX asks for it) and have names.

    Attributes:
        nodes: by name. maker: name of the node that gives a tensor. readers: names of the nodes that take it.
        floats: tensors known to be float32 that nodes give (no initializers).
        weights: float32 initializers by name.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        self.nodes: dict[str, NodeProto] = {node.name: node for node in proto.graph.node}
        if len(self.nodes) != len(proto.graph.node):
            raise ValueError("nodes without names of their own")
        self.maker = {out: node.name for node in proto.graph.node for out in node.output if out}
        self.readers: dict[str, list[str]] = defaultdict(list)
        for node in proto.graph.node:
            for tensor in dict.fromkeys(node.input):
                self.readers[tensor].append(node.name)
        known = (*proto.graph.value_info, *proto.graph.output)
        self.floats = {
            v.name for v in known if v.type.tensor_type.elem_type == TensorProto.FLOAT and v.name in self.maker
        }
        self.weights = {t.name: t for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT}

    def after(self, names: Iterable[str], through: Callable[[NodeProto], bool] = lambda _: True) -> set[str]:
        """Nodes that depend on one of `names`, which are not themselves in it unless they depend on each other.

        Args:
            through: whether the search goes on behind a node it has reached.
        """
        return self._reach(names, lambda node: (reader for out in node.output for reader in self.readers[out]), through)

    def before(self, names: Iterable[str], through: Callable[[NodeProto], bool] = lambda _: True) -> set[str]:
        """Nodes that one of `names` depends on; as `after`."""
        return self._reach(
            names, lambda node: (self.maker[tensor] for tensor in node.input if tensor in self.maker), through
        )

    def _reach(
        self,
        names: Iterable[str],
        steps: Callable[[NodeProto], Iterator[str]],
        through: Callable[[NodeProto], bool],
    ) -> set[str]:
        seen: set[str] = set()
        waiting = [step for name in names for step in steps(self.nodes[name])]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                if through(self.nodes[name]):
                    waiting.extend(steps(self.nodes[name]))
        return seen


def named(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, every node with a name of its own."""
    taken: set[str] = set()
    for number, node in enumerate(proto.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type.lower()}_{number}"
        taken.add(node.name)
    return proto


def with_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the types and shapes of all tensors, as far as they can be inferred."""
    return onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)


def copy_of(proto: onnx.ModelProto) -> onnx.ModelProto:
    """An independent copy."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def of_type(graph: Graph, types: Iterable[str]) -> list[str]:
    """Names of the nodes of these types, in order."""
    wanted = set(types)
    return [name for name, node in graph.nodes.items() if node.op_type in wanted]
