"""From a PyTorch model to an ONNX graph: one path for every head."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from segdet.contract import OPSET
from segdet.exporting.graph import ClassesGraph, OneClassGraph
from segdet.exporting.surgery import named, with_shapes
from segdet.metadata import KEY, Metadata
from segdet.models.detector import Detector
from segdet.models.upconv import ready_kernels


def to_onnx(model: nn.Module, metadata: Metadata) -> onnx.ModelProto:
    """The checked ONNX graph of a model, without metadata: folded, with inferred shapes and named nodes."""
    threshold = torch.tensor(metadata.decision_threshold, dtype=torch.float32)
    graph, outputs = _graph(model, metadata)
    one = isinstance(graph, OneClassGraph)
    example = torch.zeros(2, 64, 96, 3, dtype=torch.uint8)
    shapes: tuple[Any, ...] = ({0: "batch", 1: "height", 2: "width"},)
    for name in ("onnxscript", "onnx_ir"):  # they tell of every constant they do not fold
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), ready_kernels(model):
        warnings.simplefilter("ignore")  # the exporter speaks about its own future
        program = torch.onnx.export(
            graph,
            (example, threshold) if one else (example,),
            input_names=["image", "threshold"] if one else ["image"],
            output_names=outputs,
            dynamic_shapes=(*shapes, None) if one else shapes,
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    if one:  # an initializer of an input's name is its default; callers may still feed another value
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(threshold.item(), np.float32), "threshold")
        )
    for node in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del node.metadata_props[:]  # the exporter's notes name source files of the machine it ran on
    del proto.metadata_props[:]
    proto = with_shapes(named(proto))
    if metadata.task == "segmentation":  # masks have the image's size; the exporter may have found a longer name for it
        for output in proto.graph.output:
            for dim, name in zip(output.type.tensor_type.shape.dim, ("batch", "height", "width"), strict=True):
                dim.dim_param = name
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _graph(model: nn.Module, metadata: Metadata) -> tuple[nn.Module, list[str]]:
    """The module to trace, in evaluation mode, and the names of its outputs."""
    if metadata.task == "detection":
        return Detector(model, metadata.mean, metadata.std, metadata.damp_duplicates).eval(), [
            "boxes",
            "scores",
            "labels",
        ]
    kind = OneClassGraph if metadata.is_binary else ClassesGraph
    return kind(model, metadata.mean, metadata.std).eval(), ["mask", "confidence"]


def write(proto: onnx.ModelProto, metadata: Metadata, path: Path) -> None:
    """Write model and description to one file."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.producer_name, copy.producer_version = "segdet", metadata.version
    del copy.metadata_props[:]
    entry = copy.metadata_props.add()
    entry.key, entry.value = KEY, metadata.to_json()
    path.write_bytes(copy.SerializeToString())
