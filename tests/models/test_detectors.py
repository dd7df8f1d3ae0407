"""Detectors: outputs, gradients, exports at several sizes, and combinations that cannot work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segdet.errors import InputError
from segdet.metadata import DataSource, Metadata
from segdet.models.backbones import Backbone
from segdet.models.detection import Target
from segdet.models.detector import Detector, detect
from segdet.models.registry import build_model
from segdet.training.detection_losses import DETRLoss, DFINELoss

CLASSES = ["bolt", "crack", "rust"]
SMALL = {
    "dfine": {"variant": "n"},
    "detr": {"layers": 2, "width": 64, "feedforward": 128, "num_queries": 20, "frozen_norm": False},
}


def built(arch: str, backbone: str, imgsz: int = 96) -> tuple[nn.Module, Backbone]:
    torch.manual_seed(0)
    return build_model(arch, backbone, CLASSES, "none", SMALL[arch], imgsz)


def unsettled(model: nn.Module) -> nn.Module:
    """Random statistics, and no layer of zeros: untrained boxes would otherwise be all alike and hide mistakes."""
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point() and tensor.dim() > 1 and not tensor.any():
            tensor.normal_(std=0.1)
    return model.eval()


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0", "vit_tiny_patch16_224", "hgnetv2_b0"])
@pytest.mark.parametrize("arch", ["dfine", "detr"])
def test_every_pair_trains_a_step_in_bf16(arch: str, backbone: str) -> None:
    model, _ = built(arch, backbone)
    model.train()
    targets = [
        Target(torch.tensor([[0.5, 0.5, 0.4, 0.3], [0.2, 0.3, 0.1, 0.2]]), torch.tensor([0, 2])),
        Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
    ]
    with torch.autocast("cpu", torch.bfloat16):
        predictions = model(torch.randn(2, 3, 96, 96), None, targets)
    terms = (DFINELoss(3) if arch == "dfine" else DETRLoss(3))(predictions, targets)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    assert torch.isfinite(loss)
    untouched = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    # Only what a backbone has beyond the maps that are used may stay without a gradient.
    assert all("backbone" in name for name in untouched), untouched


@pytest.mark.parametrize("arch", ["dfine", "detr"])
def test_a_batch_without_objects_has_a_loss(arch: str) -> None:
    model, _ = built(arch, "resnet18")
    model.train()
    targets = [Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))] * 2
    terms = (DFINELoss(3) if arch == "dfine" else DETRLoss(3))(model(torch.randn(2, 3, 96, 96), None, targets), targets)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    assert torch.isfinite(loss) and loss > 0


@pytest.mark.parametrize("arch", ["dfine", "detr"])
def test_each_image_answers_for_itself(arch: str) -> None:
    model, backbone = built(arch, "resnet18")
    detector = Detector(unsettled(model), backbone.mean, backbone.std)
    images = np.random.default_rng(0).integers(0, 256, (2, 90, 130, 3), dtype=np.uint8)
    together = detect(detector, images)
    for row in range(2):
        boxes, scores, labels = detect(detector, images[row : row + 1])[0]
        assert np.abs(together[row][1] - scores).max() < 1e-4
        assert np.abs(together[row][0] - boxes).max() < 0.05
        assert (together[row][2] == labels).mean() > 0.95  # near ties may swap
        assert (np.diff(scores) <= 0).all()
        assert (boxes >= 0).all() and (boxes[:, 2:] <= (130, 90)).all()


@pytest.mark.parametrize(
    ("arch", "backbone"), [("dfine", "resnet18"), ("dfine", "vit_tiny_patch16_224"), ("detr", "resnet18")]
)
def test_exports_agree_at_every_size(arch: str, backbone: str) -> None:
    import onnxruntime

    from segdet.exporting.onnx import to_onnx

    model, encoder = built(arch, backbone)
    model = unsettled(model)
    described = Metadata(
        schema=1, task="detection", arch=arch, backbone=backbone, options=SMALL[arch], classes=CLASSES, imgsz=96,
        mean=list(encoder.mean), std=list(encoder.std), data=DataSource(name="drawn", sha256="0"), version="0",
    )  # fmt: skip
    proto = to_onnx(model, described)
    assert {node.domain for node in proto.graph.node} <= {"", "ai.onnx"}
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    detector = Detector(model, encoder.mean, encoder.std)
    for shape in ((1, 96, 96), (2, 64, 107), (1, 203, 97)):
        images = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
        boxes, scores, labels = session.run(["boxes", "scores", "labels"], {"image": images})
        assert boxes.dtype == np.float32 and scores.dtype == np.float32 and labels.dtype == np.int64
        for row, (own, own_scores, _) in enumerate(detect(detector, images)):
            assert np.abs(scores[row] - own_scores).max() < 1e-4
            # Scores that tie swap places: every box must have a partner of its score.
            apart = np.abs(boxes[row][:, None] - own[None]).max(-1) / max(shape[1:]) + np.abs(
                scores[row][:, None] - own_scores[None]
            )
            assert apart.min(1).max() < 1e-3


def test_duplicates_are_damped_and_exported(tmp_path: Path) -> None:
    import onnxruntime

    from segdet.exporting.onnx import to_onnx

    model, encoder = built("dfine", "resnet18")
    model.decoder.expect(0.7, 0.7)  # large boxes overlap
    described = Metadata(
        schema=1, task="detection", arch="dfine", backbone="resnet18", options=SMALL["dfine"], classes=CLASSES, imgsz=96,
        mean=list(encoder.mean), std=list(encoder.std), data=DataSource(name="drawn", sha256="0"), version="0",
        damp_duplicates=True,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(
        to_onnx(unsettled(model), described).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    images = np.random.default_rng(1).integers(0, 256, (2, 90, 130, 3), dtype=np.uint8)
    found = session.run(["boxes", "scores", "labels"], {"image": images})
    plain = detect(Detector(model, encoder.mean, encoder.std), images)
    own = detect(Detector(model, encoder.mean, encoder.std, damp_duplicates=True), images)
    for row, (boxes, scores, labels) in enumerate(own):
        assert np.abs(found[1][row] - scores).max() < 1e-4 and (np.diff(scores) <= 0).all()
        assert (scores <= plain[row][1] + 1e-6).all() and scores.sum() < 0.9 * plain[row][1].sum()
        assert scores[0] == pytest.approx(plain[row][1][0])  # the surest is never a duplicate
        assert len(boxes) == len(labels) == len(plain[row][0])


def test_a_size_that_cannot_be_divided_is_refused_with_one_that_can() -> None:
    with pytest.raises(InputError, match=r"imgsz=100: dfine on resnet18 needs a multiple of 32, for instance 96"):
        built("dfine", "resnet18", 100)


def test_unknown_size_and_options() -> None:
    with pytest.raises(InputError, match=r"variant=q: must be one of"):
        build_model("dfine", "resnet18", CLASSES, options={"variant": "q"}, imgsz=96)
    with pytest.raises(InputError, match=r"input_scale=2: detr resizes images itself; use a larger imgsz"):
        build_model("detr", "resnet18", CLASSES, options={"input_scale": 2}, imgsz=96)
    with pytest.raises(InputError, match="quries: no option of detr"):
        build_model("detr", "resnet18", CLASSES, options={"quries": 3}, imgsz=96)


def test_boxes_start_at_the_usual_size() -> None:
    model, _ = built("dfine", "resnet18", 160)
    images = torch.rand(1, 3, 160, 160)

    def first() -> torch.Tensor:
        boxes: torch.Tensor = model.train()(images).extra["first"].boxes
        return boxes

    with torch.no_grad():
        published = first()
        model.decoder.expect(0.6, 0.2)
        started = first()
    assert float(published[..., 2:].max()) < 0.11
    assert 0.4 < float(started[..., 2].median()) < 0.8 and 0.1 < float(started[..., 3].median()) < 0.3
    assert torch.allclose(published[..., :2], started[..., :2])  # centres stay
