"""The Triton model repository, read with Triton's own schema."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from segdet.errors import InputError
from segdet.exporting import triton
from segdet.inference.backends.select import open_session
from segdet.metadata import DataSource, Metadata


def _parsed(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_a_repository_holds_model_and_config(exported: Path, tmp_path: Path) -> None:
    metadata = open_session(exported, "cpu").metadata
    folder = triton.write_repository(exported, metadata, tmp_path / "models")
    assert folder == tmp_path / "models" / "walls"
    assert (folder / "1" / "model.onnx").read_bytes() == exported.read_bytes()
    config = _parsed((folder / "config.pbtxt").read_text())
    assert (config.name, config.backend) == ("walls", "onnxruntime") and config.max_batch_size > 1
    assert config.HasField("dynamic_batching") and config.dynamic_batching.max_queue_delay_microseconds > 0
    (image,) = config.input
    assert (image.name, image.data_type, list(image.dims)) == ("image", model_config_pb2.TYPE_UINT8, [-1, -1, 3])
    assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [
        ("mask", model_config_pb2.TYPE_UINT8, [-1, -1]),
        ("confidence", model_config_pb2.TYPE_FP32, [-1, -1]),
    ]
    assert config.parameters["classes"].string_value == '["crack"]'
    assert config.parameters["threshold"].string_value == str(metadata.threshold)
    with pytest.raises(InputError, match="exists already"):
        triton.write_repository(exported, metadata, tmp_path / "models")


def test_outputs_of_detectors_and_odd_class_names() -> None:
    metadata = Metadata(
        schema=1, task="detection", arch="dfine", backbone="resnet18", classes=['5" pipe', "Straße\n2", "back\\slash"],
        imgsz=320, mean=[0.0] * 3, std=[1.0] * 3, data=DataSource(name="x", sha256="0"), version="0",
    )  # fmt: skip
    config = _parsed(triton.config("pipes", metadata))
    assert [(o.name, list(o.dims)) for o in config.output] == [("boxes", [-1, 4]), ("scores", [-1]), ("labels", [-1])]
    assert config.output[2].data_type == model_config_pb2.TYPE_INT64
    import json

    assert json.loads(config.parameters["classes"].string_value) == metadata.classes


def test_names_that_no_url_can_hold(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be a model's name"):
        triton.place(Path("my model.onnx"), tmp_path)
