"""`segdet export`: one ONNX file, written only if it agrees with the model it came from."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from segdet.console import progress
from segdet.data import catalog, splits
from segdet.data.records import Record
from segdet.errors import InputError, SegdetError
from segdet.evaluation.coco import Detections
from segdet.export import detection_parity, parity
from segdet.export.detection_parity import DetectionLimits, compare_detections
from segdet.export.graph import ClassesGraph, OneClassGraph
from segdet.files import replacing, write_json
from segdet.inference.session import Session, open_session
from segdet.metadata import KEY, Metadata
from segdet.models import weights
from segdet.models.detector import Detector, detect

OPSET = 18  # understood by every runtime of the last years; from 20 on GridSample is wrong in TensorRT 10.13
PARITY_IMAGES = 50


def export(
    source: str | Path,
    out: str | Path | None = None,
    data: str | None = None,
    tolerance: float | None = None,
    limit: int = PARITY_IMAGES,
) -> Path:
    """Export a run folder or weights file to ONNX and prove the file on real validation images.

    Args:
        out: file to write (default: `exports/<run or file name>.onnx`).
        data: dataset to compare on (default: the one it was trained on).
        tolerance: largest share of differing pixels on any image, or for detection the pixels by which a corner may move.
        limit: images to compare on.

    Returns:
        The ONNX file; `<name>.parity.json` stands beside it.

    Raises:
        InputError: no such weights, or no images to compare on. SegdetError: the file does not agree; none is left.
    """
    file = weights.find(source)
    model, metadata = weights.load(file)
    target = Path(out) if out is not None else Path("exports") / f"{_name(Path(source), file)}.onnx"
    if target.suffix != ".onnx":
        raise InputError(f"--out {target}: the file's name must end in .onnx")
    records = _validation_records(data or metadata.data.name, Path(source), given=data is not None, limit=limit)
    proto = to_onnx(model, metadata)
    compare = _comparison(metadata, tolerance)
    described = metadata.model_copy(update={"opset": OPSET, "source_sha256": weights.sha256_of(file)})
    with replacing(target) as temporary:
        _write(proto, described, temporary)
        with progress("comparing with PyTorch", len(records)) as advance:
            compared = compare(model, open_session(temporary, "cpu"), records, advance)
        if not compared["passed"]:
            raise SegdetError(
                f"{target}: not written, the file does not agree with {file}: {sentence(compared)}; "
                "the worst images are " + ", ".join(entry["image"] for entry in compared["worst"][:3])
            )
        brief = {key: value for key, value in compared.items() if key not in ("images", "worst")}
        _write(proto, described.model_copy(update={"parity": brief}), temporary)
        write_json(target.with_suffix(".parity.json"), compared)
    return target


Compare = Callable[[nn.Module, Session, Sequence[Record], Callable[[int], None]], dict[str, Any]]


def _comparison(metadata: Metadata, tolerance: float | None) -> Compare:
    """How a file of this task is compared with its model; `tolerance` widens the first limit."""
    if metadata.task == "detection":
        bounds = DetectionLimits() if tolerance is None else DetectionLimits(box=tolerance)

        def boxes(model: nn.Module, session: Session, records: Sequence[Record], advance: Callable[[int], None]) -> Any:
            detector = Detector(model, metadata.mean, metadata.std, metadata.damp_duplicates).eval()
            return compare_detections(
                lambda image: Detections(*detect(detector, image[None])[0]), session, records, bounds, advance
            )

        return boxes
    limits = parity.Limits() if tolerance is None else parity.Limits(pixels=tolerance)
    return lambda model, session, records, advance: parity.compare(model, session, records, limits, advance)


def sentence(compared: dict[str, Any]) -> str:
    """What a comparison found, in one line."""
    return (detection_parity.sentence if "max_box_difference" in compared else parity.sentence)(compared)


def to_onnx(model: nn.Module, metadata: Metadata) -> onnx.ModelProto:
    """The checked ONNX graph of a model, without metadata."""
    threshold = torch.tensor(0.5 if metadata.threshold is None else metadata.threshold, dtype=torch.float32)
    graph, outputs = _graph(model, metadata)
    one = isinstance(graph, OneClassGraph)
    example = torch.zeros(2, 64, 96, 3, dtype=torch.uint8)
    shapes: tuple[Any, ...] = ({0: "batch", 1: "height", 2: "width"},)
    for name in ("onnxscript", "onnx_ir"):  # they tell of every constant they do not fold
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter speaks about its own future
        program = torch.onnx.export(
            graph,
            (example, threshold) if one else (example,),
            input_names=["image", "threshold"] if one else ["image"],
            output_names=outputs,
            dynamic_shapes=(*shapes, None) if one else shapes,
            opset_version=OPSET,
            dynamo=True,
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
    kind = OneClassGraph if len(metadata.classes) == 1 else ClassesGraph
    return kind(model, metadata.mean, metadata.std).eval(), ["mask", "confidence"]


def _write(proto: onnx.ModelProto, metadata: Metadata, path: Path) -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.producer_name, copy.producer_version = "segdet", metadata.version
    entry = copy.metadata_props.add()
    entry.key, entry.value = KEY, metadata.to_json()
    path.write_bytes(copy.SerializeToString())


def _name(source: Path, file: Path) -> str:
    return source.resolve().name if source.is_dir() else file.stem


def _validation_records(data: str, source: Path, given: bool, limit: int) -> Sequence[Record]:
    """Validation images, spread over the whole split."""
    config = source / "config.yaml"
    if not given and config.is_file():  # a run knows the path, weights only the name
        import yaml

        data = yaml.safe_load(config.read_text()).get("data", data)
    try:
        dataset, _ = splits.with_validation(catalog.load(data))
    except InputError as error:
        raise InputError(f"an export is proved on real images, and they cannot be had: {error}") from error
    return splits.limited(dataset, limit).splits["val"]
