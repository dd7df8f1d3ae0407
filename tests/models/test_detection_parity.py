"""DETR and D-FINE against the implementations in `transformers`, with the same random weights in both.

Run with -s to see the differences.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from segdet.models import published, weights
from segdet.models.backbones import create_backbone
from segdet.models.detection import Predictions, Target
from segdet.models.detr import DETR
from segdet.models.dfine import DFINE

transformers = pytest.importorskip("transformers")

LIMIT = 1e-4  # relative to the largest value
PLACES = 16 * 16 + 8 * 8 + 4 * 4  # of a 128-pixel image: all are queries, since random weights make near ties in the choice


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def shake(model: nn.Module) -> None:
    """Norms and zeroed layers get random values: at their starting ones they would hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif name.endswith("running_mean") or (tensor.is_floating_point() and not tensor.any()):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)


@pytest.fixture(scope="module")
def detr_pair() -> tuple[DETR, nn.Module]:
    torch.manual_seed(0)
    config = transformers.DetrConfig(
        num_labels=5, backbone="resnet18", use_pretrained_backbone=False, num_queries=12, encoder_layers=2, decoder_layers=3
    )
    theirs = transformers.DetrForObjectDetection(config).eval()
    shake(theirs)
    backbone = create_backbone("resnet18", "none")
    ours = DETR(backbone, 5, layers=2, queries=12)
    ours.transformer.decoder.layers.append(_another(ours))
    state = published.renamed(theirs.state_dict(), published.HF_DETR)
    missing, left = ours.load_state_dict(state, strict=False)
    assert not [name for name in missing if "num_batches" not in name], missing
    assert not left, left
    return ours.eval(), theirs


def _another(ours: DETR) -> nn.Module:
    return DETR(ours.backbone, 5, layers=1).transformer.decoder.layers[0]


def test_detr_whole_images(detr_pair: tuple[DETR, nn.Module]) -> None:
    ours, theirs = detr_pair
    x = torch.randn(2, 3, 96, 160)
    with torch.inference_mode():
        a, b = ours(x), theirs(x, torch.ones(2, 96, 160))
    print("DETR", distance(a.logits, b.logits), distance(a.boxes, b.pred_boxes))
    assert distance(a.logits, b.logits) < LIMIT
    assert distance(a.boxes, b.pred_boxes) < LIMIT


def test_detr_padded_images(detr_pair: tuple[DETR, nn.Module]) -> None:
    ours, theirs = detr_pair
    x, mask = torch.randn(2, 3, 96, 160), torch.zeros(2, 96, 160, dtype=torch.bool)
    mask[1, 64:] = mask[1, :, 96:] = True
    x = x.masked_fill(mask[:, None], 0.0)
    ours.apart = False  # the published code passes the padding through the backbone
    try:
        with torch.inference_mode():
            a, b = ours(x, mask), theirs(x, (~mask).long())
    finally:
        ours.apart = True
    print("DETR padded", distance(a.logits, b.logits), distance(a.boxes, b.pred_boxes))
    assert distance(a.logits, b.logits) < LIMIT
    assert distance(a.boxes, b.pred_boxes) < LIMIT


def test_detr_is_not_moved_by_its_neighbours(detr_pair: tuple[DETR, nn.Module]) -> None:
    ours, _ = detr_pair
    small, large = torch.randn(1, 3, 70, 97), torch.randn(1, 3, 96, 160)
    x, mask = torch.zeros(2, 3, 96, 160), torch.ones(2, 96, 160, dtype=torch.bool)
    x[0, :, :70, :97], x[1] = small[0], large[0]
    mask[0, :70, :97], mask[1] = False, False
    with torch.inference_mode():
        both, alone = ours(x, mask), [ours(image) for image in (small, large)]
    for row in range(2):
        assert torch.allclose(both.logits[row], alone[row].logits[0], atol=1e-4)
        assert torch.allclose(both.boxes[row], alone[row].boxes[0], atol=1e-5)


@pytest.fixture(scope="module")
def dfine_pair() -> tuple[DFINE, nn.Module]:
    torch.manual_seed(0)
    config = transformers.DFineConfig(
        num_labels=5, num_queries=PLACES, decoder_layers=3, hidden_expansion=0.5, depth_mult=0.34, decoder_n_points=[3, 6, 3]
    )
    theirs = transformers.DFineForObjectDetection(config).eval()
    shake(theirs)
    ours = DFINE(create_backbone("hgnetv2_b4", "none"), 5, imgsz=128, queries=PLACES)
    state = published.renamed(theirs.state_dict(), published.HF_DFINE)
    missing, left = ours.load_state_dict(state, strict=False)
    assert not [name for name in missing if "num_batches" not in name], missing
    assert all(name.startswith(("class_embed.", "bbox_embed.")) for name in left), left  # stored twice there
    return ours.eval(), theirs


def test_dfine(dfine_pair: tuple[DFINE, nn.Module]) -> None:
    ours, theirs = dfine_pair
    x = torch.randn(2, 3, 128, 128)
    with torch.inference_mode():
        a, b = ours(x), theirs(x)
    for row in range(2):
        cost = torch.cdist(a.boxes[row], b.pred_boxes[row]) + torch.cdist(a.logits[row], b.logits[row])
        mine, other = linear_sum_assignment(cost.numpy())
        logits = distance(a.logits[row][mine], b.logits[row][other])
        boxes = distance(a.boxes[row][mine], b.pred_boxes[row][other])
        print("D-FINE as sets", logits, boxes)
        assert max(logits, boxes) < LIMIT
