"""The ONNX contract, and a gate that really closes."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import segdet
from segdet.data.images import read_image
from segdet.errors import InputError, SegdetError
from segdet.exporting import graph, parity
from segdet.exporting.onnx import to_onnx
from segdet.inference.backends.select import open_session
from segdet.models import weights
from segdet.models.common import predict
from segdet.models.registry import build_model
from segdet.validation.threshold import store


def _open(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def test_inputs_and_outputs_are_the_contract(exported: Path) -> None:
    session = _open(exported)
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", "height", "width", 3])
    outputs = {entry.name: (entry.type, entry.shape) for entry in session.get_outputs()}
    assert outputs == {
        "mask": ("tensor(uint8)", ["batch", "height", "width"]),
        "confidence": ("tensor(float)", ["batch", "height", "width"]),
    }
    assert [entry.name for entry in session.get_overridable_initializers()] == ["threshold"]
    model = onnx.load(exported)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert not [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]


@pytest.mark.parametrize("shape", [(1, 427, 640), (3, 96, 96), (2, 97, 131), (1, 1, 1), (1, 33, 500)])
def test_any_size_and_batch_agrees_with_pytorch(exported: Path, trained: Path, shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    mask, confidence = _open(exported).run(["mask", "confidence"], {"image": images})
    model, metadata = weights.load(trained / "weights" / "best.safetensors")
    expected = predict(model, torch.from_numpy(images), metadata.mean, metadata.std)
    assert mask.dtype == np.uint8 and confidence.dtype == np.float32 and mask.shape == confidence.shape == shape
    assert np.abs(confidence - expected).max() < 1e-4
    assert (mask == (confidence >= np.float32(metadata.threshold))).all()


def test_the_threshold_can_be_overridden(exported: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    session = _open(exported)
    everything = session.run(["mask"], {"image": images, "threshold": np.array(0.0, np.float32)})[0]
    nothing = session.run(["mask"], {"image": images, "threshold": np.array(1.1, np.float32)})[0]
    assert everything.all() and not nothing.any()


def test_the_metadata_travels_inside(exported: Path, trained: Path) -> None:
    inside = json.loads(_open(exported).get_modelmeta().custom_metadata_map["segdet"])
    file = trained / "weights" / "best.safetensors"
    assert inside["schema"] == 1 and inside["opset"] == 18 and inside["classes"] == ["crack"]
    assert inside["source_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert inside["parity"]["passed"] is True and inside["threshold"] == weights.read_metadata(file).threshold
    beside = json.loads(exported.with_suffix(".parity.json").read_text())
    assert len(beside["images"]) == beside["compared"] == 6
    assert b"/home" not in exported.read_bytes() and str(Path.cwd()).encode() not in exported.read_bytes()


def test_several_classes_give_indices_and_the_winners_probability(tmp_path: Path) -> None:
    classes = ["a", "b"]
    options = {"decoder_channels": [32, 24, 16, 12, 8]}
    model, backbone = build_model("unet", "test_efficientnet", classes, "none", options)
    from tests.models.test_unet import _metadata

    metadata = _metadata(classes=classes, mean=list(backbone.mean), std=list(backbone.std))
    file = tmp_path / "two.onnx"
    file.write_bytes(to_onnx(model.eval(), metadata).SerializeToString())
    images = np.random.default_rng(1).integers(0, 256, (2, 70, 50, 3), dtype=np.uint8)
    mask, confidence = _open(file).run(["mask", "confidence"], {"image": images})
    assert (mask == predict(model, torch.from_numpy(images), backbone.mean, backbone.std)).all()
    assert mask.max() <= 2 and confidence.min() > 1 / 3 - 1e-6 and confidence.max() <= 1


@pytest.mark.parametrize("what", ["normalisation", "threshold"])
def test_a_graph_that_disagrees_is_not_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if what == "normalisation":
        right = graph.normalise
        monkeypatch.setattr(graph, "normalise", lambda image, mean, std: right(image, mean, std).flip(1) + 0.5)
    else:
        forward = graph.OneClassGraph.forward
        monkeypatch.setattr(graph.OneClassGraph, "forward", lambda self, image, t: forward(self, image, t * 0.2))
    with pytest.raises(SegdetError, match="does not agree") as error:
        segdet.export(trained, out=tmp_path / "broken.onnx")
    assert error.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_old_file(
    exported: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old.onnx"
    old.write_bytes(exported.read_bytes())
    monkeypatch.setitem(parity.LIMITS, "fp32", replace(parity.LIMITS["fp32"], pixels=-1.0))
    with pytest.raises(SegdetError, match="does not agree"):
        segdet.export(trained, out=old)
    assert old.read_bytes() == exported.read_bytes() and list(tmp_path.iterdir()) == [old]


@pytest.mark.parametrize("tolerance", [-1.0, -1e-9, float("nan")])
def test_a_tolerance_below_zero_is_refused(trained: Path, tmp_path: Path, tolerance: float) -> None:
    with pytest.raises(InputError, match=r"tolerance=.*must be at least 0") as error:
        segdet.export(trained, out=tmp_path / "x.onnx", tolerance=tolerance)
    assert error.value.exit_code == 2 and not list(tmp_path.iterdir())


def test_a_batch_of_no_images_is_refused_in_one_line(exported: Path) -> None:
    with pytest.raises(InputError, match="a batch of 0 images"):
        open_session(exported, "cpu").run(np.zeros((0, 64, 64, 3), np.uint8))


def test_coarser_looks_are_a_key_of_the_file_and_nothing_in_its_graph(
    exported: Path, trained: Path, tmp_path: Path
) -> None:
    file = segdet.export(trained, out=tmp_path / "a.onnx", limit=2, multiscale_to=48)
    assert open_session(file, "cpu").metadata.down_to == 48
    assert onnx.load(file).graph.SerializeToString() == onnx.load(exported).graph.SerializeToString()
    assert "longer side of 96 pixels or more" in file.with_suffix(".md").read_text()
    changed = open_session(file, "cpu").metadata
    store(file, changed, {**changed.metrics, "threshold": 0.3, "operate": "recall=0.9"})
    assert open_session(file, "cpu").metadata.down_to == 48
    plain = segdet.export(trained, out=tmp_path / "b.onnx", limit=2, multiscale_to=0)
    assert open_session(plain, "cpu").metadata.down_to is None
    for wrong in (9, -1):
        with pytest.raises(InputError, match=f"multiscale_to={wrong}: must be at least 32"):
            segdet.export(trained, out=tmp_path / "c.onnx", multiscale_to=wrong)
    described = onnx.load(file)
    described.metadata_props[0].value = described.metadata_props[0].value.replace('"down_to":48', '"down_to":-1')
    described.metadata_props[0].value = described.metadata_props[0].value.replace('"down_to": 48', '"down_to": -1')
    onnx.save(described, tmp_path / "bad.onnx")
    with pytest.raises(InputError, match="down_to in its metadata"):
        open_session(tmp_path / "bad.onnx", "cpu")


def test_a_threshold_stored_later_is_on_the_card(exported: Path, tmp_path: Path) -> None:
    file, card = (Path(shutil.copy(exported.with_suffix(end), tmp_path / f"a{end}")) for end in (".onnx", ".md"))
    before, metadata = card.read_text(), open_session(file, "cpu").metadata
    first = f"{metadata.threshold:.3f}"
    for threshold, rule in ((0.1234, "recall=0.9"), (0.9876, "max-f1")):
        store(file, metadata, {"threshold": threshold, "operate": rule, "iou": 0.5})
        told = (
            f" is {threshold:.3f} ({rule}, chosen after the export; the scores and the agreement below are at {first})"
        )
        assert card.read_text() == before.replace(f" is {first}", told) != before
    notes = "what somebody wrote about it"
    card.write_text(notes)
    store(file, metadata, {"threshold": 0.5, "operate": "max-f1"})
    assert card.read_text() == notes
    card.unlink()
    store(file, metadata, {"threshold": 0.5, "operate": "max-f1"})
    assert list(tmp_path.iterdir()) == [file]


def test_labels_by_several_hands_are_on_the_card(exported: Path, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    file = run / "weights" / "best.safetensors"
    metadata = weights.read_metadata(file)
    widths = {
        "photographs": 99,
        "quartiles": [0.64, 0.9, 1.24],
        "neighbours": 0.73,
        "chance": 0.002,
        "iou_width_alone": 0.73,
    }
    metrics = {**metadata.metrics, "label_width": widths}
    weights.describe(file, metadata.model_copy(update={"metrics": metrics}))
    segdet.export(run, out=tmp_path / "a.onnx", limit=2)
    told = "half of them are 0.64 to 1.24 times as wide as what it marks"
    assert told in (tmp_path / "a.md").read_text() and told not in exported.with_suffix(".md").read_text()
    assert open_session(tmp_path / "a.onnx", "cpu").metadata.metrics["label_width"] == widths


def test_no_paper_is_newer_than_its_model(trained: Path, tmp_path: Path) -> None:
    """The model cannot take its place, for a folder is there: what stands beside stays as it was."""
    (tmp_path / "old.onnx").mkdir()
    (tmp_path / "old.md").write_text("card of the old model")
    with pytest.raises(OSError, match=r"old\.onnx"):
        segdet.export(trained, out=tmp_path / "old.onnx")
    assert (tmp_path / "old.md").read_text() == "card of the old model"
    assert {path.name for path in tmp_path.iterdir()} == {"old.onnx", "old.md"}


def test_unusable_sources_are_input_errors(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(InputError, match="no such run folder"):
        segdet.export(tmp_path / "none")
    with pytest.raises(InputError, match="not a run folder"):
        segdet.export(tmp_path)
    with pytest.raises(InputError, match=r"must end in \.onnx"):
        segdet.export(trained, out=tmp_path / "model.bin")
    with pytest.raises(InputError, match="compared on real images"):
        segdet.export(trained, data=str(tmp_path / "gone"))


def test_the_exported_file_scores_as_the_weights(exported: Path, trained: Path, walls: Path) -> None:
    from segdet.data import formats
    from segdet.validation.run import validate

    records = formats.read(walls).splits["val"]
    ours = validate(exported, records, "val", workers=0).metrics
    theirs = validate(trained / "weights" / "best.safetensors", records, "val", workers=0).metrics
    assert ours["iou"] == pytest.approx(theirs["iou"], abs=1e-3)
    assert ours["f1_2px"] == pytest.approx(theirs["f1_2px"], abs=1e-3)
    image = read_image(records[0].image)
    assert segdet.load(exported).predict(image).mask.any()
