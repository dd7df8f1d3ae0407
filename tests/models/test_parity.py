"""Equality with code nobody here wrote: the same weights give the same answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from segdet.models import weights
from segdet.models.registry import build_model


def _unsettle(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def _load(
    file: Path, state: dict[str, torch.Tensor], arch: str, backbone: str, classes: int, **options: object
) -> nn.Module:
    """Our model started from a published file, through the door a user takes."""
    torch.save(state, file)
    imgsz = options.pop("imgsz", 224)
    model, encoder = build_model(arch, backbone, ["c"] * classes, "none", options, imgsz)
    report = weights.start_from(file, model, encoder)
    assert "of the model loaded" in report, report
    return model.eval()


@pytest.mark.parametrize("arch", ["fcn", "deeplabv3"])
@pytest.mark.parametrize("size", [(96, 96), (97, 131)])
def test_torchvision(arch: str, size: tuple[int, int], tmp_path: Path) -> None:
    build = {"fcn": "fcn_resnet50", "deeplabv3": "deeplabv3_resnet50"}[arch]
    torch.manual_seed(0)
    theirs = getattr(torchvision.models.segmentation, build)(
        weights=None, weights_backbone=None, aux_loss=True, num_classes=21
    )
    _unsettle(theirs)
    ours = _load(tmp_path / "w.pth", theirs.state_dict(), arch, "resnet50", 20)
    x = torch.randn(2, 3, *size)
    with torch.inference_mode():
        expected, given = theirs(x)["out"], ours(x)
    worst = float((expected - given).abs().max())
    print(f"{arch} against torchvision at {size}: {worst:.1e}")
    assert worst <= 1e-5 * float(expected.abs().max())
    assert set(ours.state_dict()) == {n.replace("backbone.", "backbone.model.", 1) for n in theirs.state_dict()}


@pytest.mark.parametrize("encoder", ["tu-resnet18", "resnet18"])
def test_smp_unet(encoder: str, tmp_path: Path) -> None:
    theirs = _unsettle(smp.Unet(encoder, encoder_weights=None, classes=1))
    ours = _load(tmp_path / "w.pth", theirs.state_dict(), "unet", "resnet18", 1)
    x = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize("stride", [8, 16])
def test_smp_deeplabv3plus(stride: int, tmp_path: Path) -> None:
    theirs = _unsettle(smp.DeepLabV3Plus("tu-resnet50", encoder_weights=None, classes=1, encoder_output_stride=stride))
    ours = _load(
        tmp_path / "w.pth", theirs.state_dict(), "deeplabv3plus", "resnet50", 1,
        output_stride=stride, atrous_rates=(12, 24, 36),
    )  # fmt: skip
    x = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        expected, given = theirs(x), ours(x)
    assert float((expected - given).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


def _attention(x: torch.Tensor, state: dict[str, torch.Tensor], name: str, heads: int) -> torch.Tensor:
    """A pre-norm transformer block, from the paper: x + MSA(LN(x)), then x + MLP(LN(x))."""
    count, tokens, dim = x.shape

    def norm(y: torch.Tensor, part: str) -> torch.Tensor:
        return F.layer_norm(y, (dim,), state[f"{name}.{part}.weight"], state[f"{name}.{part}.bias"], 1e-5)

    def linear(y: torch.Tensor, part: str) -> torch.Tensor:
        return F.linear(y, state[f"{name}.{part}.weight"], state[f"{name}.{part}.bias"])

    q, k, v = linear(norm(x, "norm1"), "attn.qkv").reshape(count, tokens, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
    weight = (q @ k.transpose(-1, -2) / (dim // heads) ** 0.5).softmax(-1)
    x = x + linear((weight @ v).transpose(1, 2).reshape(count, tokens, dim), "attn.proj")
    return x + linear(F.gelu(linear(norm(x, "norm2"), "mlp.fc1")), "mlp.fc2")


def _reference_segmenter(
    x: torch.Tensor, state: dict[str, torch.Tensor], depth: int, heads: int, grid: int
) -> torch.Tensor:
    """Segmenter's forward written from the paper (arXiv 2105.05633, section 3), on a published state dict."""
    height, width = x.shape[-2:]
    x = F.pad(x, (0, -width % 16, 0, -height % 16))
    padded = x.shape[-2:]
    patches = F.conv2d(x, state["encoder.patch_embed.proj.weight"], state["encoder.patch_embed.proj.bias"], stride=16)
    count, dim, h, w = patches.shape
    position = state["encoder.pos_embed"]
    spatial = position[:, 1:].reshape(1, grid, grid, dim).permute(0, 3, 1, 2)
    spatial = F.interpolate(spatial, size=(h, w), mode="bilinear").flatten(2).transpose(1, 2)
    tokens = torch.cat([state["encoder.cls_token"].expand(count, -1, -1), patches.flatten(2).transpose(1, 2)], 1)
    tokens = tokens + torch.cat([position[:, :1], spatial], 1)
    for layer in range(depth):
        tokens = _attention(tokens, state, f"encoder.blocks.{layer}", heads)
    tokens = F.layer_norm(tokens, (dim,), state["encoder.norm.weight"], state["encoder.norm.bias"], 1e-5)[:, 1:]
    if "decoder.head.weight" in state:
        masks = F.linear(tokens, state["decoder.head.weight"], state["decoder.head.bias"])
    else:
        classes = state["decoder.cls_emb"].shape[1]
        tokens = F.linear(tokens, state["decoder.proj_dec.weight"], state["decoder.proj_dec.bias"])
        tokens = torch.cat([tokens, state["decoder.cls_emb"].expand(count, -1, -1)], 1)
        for layer in range(2):
            tokens = _attention(tokens, state, f"decoder.blocks.{layer}", max(1, dim // 64))
        tokens = F.layer_norm(
            tokens, (dim,), state["decoder.decoder_norm.weight"], state["decoder.decoder_norm.bias"], 1e-5
        )
        patch = F.normalize(tokens[:, :-classes] @ state["decoder.proj_patch"], dim=-1)
        embedding = F.normalize(tokens[:, -classes:] @ state["decoder.proj_classes"], dim=-1)
        masks = patch @ embedding.transpose(1, 2)
        masks = F.layer_norm(
            masks, (classes,), state["decoder.mask_norm.weight"], state["decoder.mask_norm.bias"], 1e-5
        )
    masks = masks.transpose(1, 2).reshape(count, -1, h, w)
    return F.interpolate(masks, size=padded, mode="bilinear")[..., :height, :width]


@pytest.mark.parametrize("decoder", ["mask", "linear"])
@pytest.mark.parametrize("size", [(128, 128), (97, 150)])
def test_segmenter_of_the_published_layout(decoder: str, size: tuple[int, int], tmp_path: Path) -> None:
    """ViT-S/16 with 5 classes under the official checkpoint's names, inside its `model` key, with its unused classifier."""
    torch.manual_seed(0)
    encoder = timm.create_model("vit_small_patch16_224", pretrained=False, num_classes=1000, img_size=128)
    state = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    dim, classes = 384, 5
    if decoder == "linear":
        head = nn.Linear(dim, classes)
        state |= {f"decoder.head.{name}": tensor for name, tensor in head.state_dict().items()}
    else:
        for layer in range(2):
            block = timm.models.vision_transformer.Block(dim, 6, qkv_bias=True)
            state |= {f"decoder.blocks.{layer}.{name}": tensor for name, tensor in block.state_dict().items()}
        for part, module in (
            ("proj_dec", nn.Linear(dim, dim)),
            ("decoder_norm", nn.LayerNorm(dim)),
            ("mask_norm", nn.LayerNorm(classes)),
        ):
            state |= {f"decoder.{part}.{name}": tensor for name, tensor in module.state_dict().items()}
        state["decoder.cls_emb"] = torch.randn(1, classes, dim)
        state["decoder.proj_patch"] = dim**-0.5 * torch.randn(dim, dim)
        state["decoder.proj_classes"] = dim**-0.5 * torch.randn(dim, dim)
    state = {name: tensor + 0.02 * torch.randn_like(tensor) for name, tensor in state.items()}
    ours = _load(
        tmp_path / "checkpoint.pth", {"model": state, "n_cls": classes, "epoch": 3},  # type: ignore[dict-item]
        "segmenter", "vit_small_patch16_224", classes - 1, decoder=decoder, imgsz=128,
    )  # fmt: skip
    x = torch.randn(2, 3, *size)
    with torch.inference_mode():
        expected, given = _reference_segmenter(x, state, 12, 6, 8), ours(x)
    worst = float((expected - given).abs().max() / expected.abs().max())
    print(f"segmenter {decoder} at {size}: {worst:.1e}")
    assert worst <= 1e-4


def test_position_embeddings_of_another_size_are_resampled(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    model, backbone = build_model("segmenter", "vit_tiny_patch16_224", ["c"], "none", {}, 320)
    weights.start_from(tmp_path / "vit.pth", model, backbone)
    assert backbone.model.pos_embed.shape == (1, 401, 192)
    assert torch.allclose(backbone.model.pos_embed[:, 0], source.pos_embed[:, 0])
    assert torch.allclose(backbone.model.pos_embed[:, 1], source.pos_embed[:, 1], atol=1e-3)  # corners stay corners
