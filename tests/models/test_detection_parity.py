"""DETR and D-FINE against the implementations in `transformers`, with the same random weights in both.

Run with -s to see the differences.
"""

# ruff: noqa: T201 (tolerances are printed for whoever runs it with -s)
from __future__ import annotations

import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from segdet.models import published, weights
from segdet.models.backbones import create_backbone
from segdet.models.denoising import disturbed
from segdet.models.detection import Predictions, Target
from segdet.models.detr import DETR
from segdet.models.dfine import DFINE, bin_offsets
from segdet.training.detection_losses import DETRLoss, box_losses, distilled, fine_grained, varifocal
from segdet.training.matcher import Matcher, Pairs

transformers = pytest.importorskip("transformers")

LIMIT = 1e-4  # relative to the largest value
PLACES = (
    16 * 16 + 8 * 8 + 4 * 4
)  # of a 128-pixel image: all are queries, since random weights make near ties in the choice


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
        num_labels=5,
        backbone="resnet18",
        use_pretrained_backbone=False,
        num_queries=12,
        encoder_layers=2,
        decoder_layers=3,
    )
    theirs = transformers.DetrForObjectDetection(config).eval()
    shake(theirs)
    backbone = create_backbone("resnet18", "none")
    ours = DETR(backbone, 5, layers=2, num_queries=12)
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
        num_labels=5,
        num_queries=PLACES,
        decoder_layers=3,
        hidden_expansion=0.5,
        depth_mult=0.34,
        decoder_n_points=[3, 6, 3],
    )
    theirs = transformers.DFineForObjectDetection(config).eval()
    shake(theirs)
    ours = DFINE(create_backbone("hgnetv2_b4", "none"), 5, "s", imgsz=128, num_queries=PLACES)
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


def drawn_case(classes: int, extra_class: int) -> tuple[Predictions, list[Target], list[dict[str, torch.Tensor]]]:
    """Random predictions of 3 images with 4, 0 and 2 objects, and the targets in both projects' forms."""
    generator = torch.Generator().manual_seed(3)

    def boxes(*shape: int) -> torch.Tensor:
        return torch.cat(
            [
                torch.rand(*shape, 2, generator=generator) * 0.5 + 0.25,
                torch.rand(*shape, 2, generator=generator) * 0.3 + 0.05,
            ],
            -1,
        )

    predictions = Predictions(torch.randn(3, 30, classes + extra_class, generator=generator), boxes(3, 30))
    predictions.extra = {
        "corners": torch.randn(3, 30, 132, generator=generator), "initial": boxes(3, 30),
        "up": torch.tensor([0.5]), "scale": torch.tensor([4.0]),
    }  # fmt: skip
    targets = [Target(boxes(n), torch.randint(0, classes, (n,), generator=generator)) for n in (4, 0, 2)]
    return predictions, targets, [{"boxes": t.boxes, "class_labels": t.labels} for t in targets]


def assert_same_pairs(ours: list[Pairs], theirs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for (a, b), (c, d) in zip(ours, theirs, strict=True):
        assert a.tolist() == c.tolist()
        assert b.tolist() == d.tolist()


def test_detr_assignment_and_losses() -> None:
    from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss

    predictions, targets, labels = drawn_case(5, extra_class=1)
    outputs = {"logits": predictions.logits, "pred_boxes": predictions.boxes}
    matcher = HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    assert_same_pairs(Matcher()(predictions, targets), matcher(outputs, labels))
    theirs = ImageLoss(matcher, 5, eos_coef=0.1, losses=["labels", "boxes"])(outputs, labels)
    ours = DETRLoss(5)(predictions, targets)
    pairs = {"ce": theirs["loss_ce"], "l1": 5 * theirs["loss_bbox"], "giou": 2 * theirs["loss_giou"]}
    for name, value in pairs.items():
        print("DETR loss", name, float(ours[name]), float(value))
        assert torch.allclose(ours[name], value, rtol=1e-5)


def test_dfine_assignment_and_losses() -> None:
    from transformers.loss.loss_d_fine import DFineLoss

    predictions, targets, labels = drawn_case(5, extra_class=0)
    teacher, _, _ = drawn_case(5, extra_class=0)
    teacher.extra["corners"] = predictions.extra["corners"].flip(0) * 1.5
    teacher.logits = predictions.logits.flip(1)
    criterion = DFineLoss(transformers.DFineConfig(num_labels=5))
    outputs = {
        "logits": predictions.logits, "pred_boxes": predictions.boxes, "pred_corners": predictions.extra["corners"],
        "ref_points": predictions.extra["initial"], "teacher_corners": teacher.extra["corners"], "teacher_logits": teacher.logits,
    }  # fmt: skip
    pairs = Matcher(label=2.0, focal=True)(predictions, targets)
    theirs = criterion.matcher(outputs, labels)
    assert_same_pairs(pairs, theirs)
    count = 6.0
    wanted = {
        **criterion.loss_labels_vfl(outputs, labels, theirs, count),
        **criterion.loss_boxes(outputs, labels, theirs, count),
        **criterion.loss_local(outputs, labels, theirs, count),
    }
    l1, giou = box_losses(predictions, targets, pairs, count)
    bins, scale = bin_offsets(torch.tensor([0.5]), torch.tensor([4.0])), torch.tensor([4.0])
    ours = {
        "loss_vfl": varifocal(predictions, targets, pairs, 5, count), "loss_bbox": l1, "loss_giou": giou,
        "loss_fgl": fine_grained(predictions, targets, pairs, bins, scale, count),
        "loss_ddf": distilled(predictions, teacher, targets, pairs),
    }  # fmt: skip
    assert ours.keys() == wanted.keys()
    for name, value in ours.items():
        print("D-FINE", name, float(value), float(wanted[name]))
        assert torch.allclose(value, wanted[name], rtol=1e-4)


def test_denoising_queries_see_only_their_group() -> None:
    from transformers.models.d_fine.modeling_d_fine import get_contrastive_denoising_training_group

    _, targets, labels = drawn_case(5, extra_class=0)
    embedding = nn.Embedding(6, 8, padding_idx=5)
    ours = disturbed(targets, 5, 30, embedding, wanted=20)
    assert ours is not None
    embedded, _, mask, meta = get_contrastive_denoising_training_group(labels, 5, 30, embedding, 20)
    assert ours.embedded.shape == embedded.shape
    assert torch.equal(ours.blocked, mask == -torch.inf)
    assert ours.groups == meta["dn_num_group"]
    for (queries, _), positive in zip(ours.matches, meta["dn_positive_idx"], strict=True):
        assert queries.tolist() == positive.tolist()


def test_published_files_load_with_their_own_names(
    detr_pair: tuple[DETR, nn.Module], dfine_pair: tuple[DFINE, nn.Module], tmp_path: Path
) -> None:
    """Hugging Face safetensors, facebookresearch's .pth of 91 ids, and D-FINE's .pth with averaged weights."""
    for ours, theirs, make in (
        (*detr_pair, lambda: DETR(create_backbone("resnet18", "none"), 5, num_queries=12)),
        (*dfine_pair, lambda: DFINE(create_backbone("hgnetv2_b4", "none"), 5, "s", imgsz=128, num_queries=PLACES)),
    ):
        file = tmp_path / "model.safetensors"
        safetensors.torch.save_file({k: v.clone() for k, v in theirs.state_dict().items()}, file)
        fresh = make()
        weights.start_from(file, fresh, fresh.backbone)
        for name, tensor in ours.state_dict().items():
            if "num_batches" not in name and name in fresh.state_dict():
                assert torch.equal(fresh.state_dict()[name], tensor), name

    published_detr = DETR(create_backbone("resnet18", "none"), 91)
    state = {k.replace("backbone.model.", "backbone.0.body."): v for k, v in published_detr.state_dict().items()}
    torch.save({"model": state, "epoch": 500}, tmp_path / "detr.pth")
    ours = DETR(create_backbone("resnet18", "none"), 80)
    said = weights.start_from(tmp_path / "detr.pth", ours, ours.backbone)
    assert f"{len(ours.state_dict())} of {len(ours.state_dict())}" in said
    head = published_detr.class_embed.weight
    assert torch.equal(ours.class_embed.weight[0], head[1])  # person
    assert torch.equal(ours.class_embed.weight[79], head[90])  # toothbrush
    assert torch.equal(ours.class_embed.weight[80], head[91])  # no object
    assert torch.equal(ours.class_embed.weight[11], head[13])  # stop sign: id 12 does not exist

    published_dfine, _ = dfine_pair
    official = {
        re.sub(r"^backbone\.model\.(stages)_", r"backbone.\1.", k).replace("backbone.model.", "backbone."): v
        for k, v in published_dfine.state_dict().items()
    }
    torch.save({"ema": {"module": official}, "model": {}}, tmp_path / "dfine.pth")
    fresh = DFINE(create_backbone("hgnetv2_b4", "none"), 5, "s", imgsz=128, num_queries=PLACES)
    said = weights.start_from(tmp_path / "dfine.pth", fresh, fresh.backbone)
    assert f"{len(official)} of {len(official)}" in said
