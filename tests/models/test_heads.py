"""Every head on every kind of backbone: sizes, a training step, precision, and the exported graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from segdet.errors import InputError
from segdet.exporting.onnx import to_onnx
from segdet.models.common import predict
from segdet.models.registry import ARCHS, build_model
from segdet.training.losses import loss_named
from tests.models.test_unet import _metadata

BACKBONES = ("resnet18", "vit_tiny_patch16_224", "efficientnet_lite0", "convnext_atto", "swin_tiny_patch4_window7_224")
HEADS = [name for name, arch in ARCHS.items() if arch.task == "segmentation"]
PAIRS = [(arch, name) for arch in HEADS for name in BACKBONES if arch != "segmenter" or name.startswith("vit")]


@pytest.mark.parametrize(("arch", "name"), PAIRS)
def test_a_training_step_of_one_image_and_odd_sizes(arch: str, name: str) -> None:
    torch.manual_seed(0)
    model, _ = build_model(arch, name, ["crack"], "none", {}, 64)
    model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    images = torch.randn(1, 3, 64, 64)
    target = torch.zeros(1, 64, 64, dtype=torch.uint8)
    target[:, 20:30] = 255
    before = [parameter.clone() for parameter in model.parameters()]
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(images)
    loss = loss_named("bce+dice", 1)(outputs, target)
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    moved = sum(bool((a != b).any()) for a, b in zip(before, model.parameters(), strict=True))
    assert moved > 0.8 * len(before)
    model.eval()
    for size in ((97, 131), (33, 50)):
        with torch.inference_mode():
            logits = model(torch.randn(2, 3, *size))
        assert logits.shape == (2, 1, *size) and torch.isfinite(logits).all()


# Tracing takes a quarter of a minute and more: every head with a convolutional and a plain backbone, every backbone with a U-Net.
EXPORTED = [(arch, name) for arch, name in PAIRS if arch == "unet" or name in ("resnet18", "vit_tiny_patch16_224")]


@pytest.mark.parametrize(("arch", "name"), EXPORTED)
def test_the_exported_graph_agrees_at_other_sizes(arch: str, name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, backbone = build_model(arch, name, ["crack"], "none", {}, 64)
    _unsettle(model)
    metadata = _metadata(mean=list(backbone.mean), std=list(backbone.std))
    file = tmp_path / "model.onnx"
    file.write_bytes(to_onnx(model.eval(), metadata).SerializeToString())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    for shape in ((1, 64, 96), (2, 97, 131), (1, 160, 70)):
        images = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
        confidence = session.run(["confidence"], {"image": images})[0]
        expected = predict(model, torch.from_numpy(images), backbone.mean, backbone.std)
        assert confidence.shape == shape and np.abs(confidence - expected).max() < 2e-4


def _unsettle(model: torch.nn.Module) -> None:
    """Batch-norm statistics that matter: fresh ones are the identity and hide mistakes."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


@pytest.mark.parametrize("arch", ["fcn", "deeplabv3"])
def test_auxiliary_heads_are_trained_and_dropped(arch: str) -> None:
    model, _ = build_model(arch, "resnet18", ["crack"], "none")
    x = torch.randn(2, 3, 48, 48)
    main, auxiliary = model.train()(x)
    assert main.shape == auxiliary.shape == (2, 1, 48, 48)
    assert isinstance(model.eval()(x), torch.Tensor)
    plain, _ = build_model(arch, "resnet18", ["crack"], "none", {"aux": False})
    assert isinstance(plain.train()(x), torch.Tensor)


def test_segmenter_on_a_backbone_without_tokens_says_what_to_use() -> None:
    with pytest.raises(InputError, match=r"resnet18.*vit_tiny_patch16_224"):
        build_model("segmenter", "resnet18", ["crack"])


def test_options_are_checked() -> None:
    for options, message in (
        ({"decoder": "magic"}, "--decoder magic"), ({"decodr": "mask"}, 'did you mean "decoder"'),
        ({"output_stride": 4}, "output_stride=4"), ({"output_stride": 8}, "keeps a stride of 16"), ({"input_scale": 9}, "input_scale=9"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            build_model("segmenter", "vit_tiny_patch16_224", ["crack"], "none", options)


def test_a_finer_output_stride_and_upscaling_give_finer_maps() -> None:
    strides = [build_model("fcn", "resnet18", ["c"], "none", {"output_stride": s})[1].strides[-1] for s in (8, 16, 32)]
    assert strides == [8, 16, 32]
    model, _ = build_model("segmenter", "vit_tiny_patch16_224", ["c"], "none", {"input_scale": 2}, 64)
    sizes: list[torch.Size] = []
    model.model.encoder.register_forward_hook(lambda module, inputs, output: sizes.append(output[-1].shape[-2:]))
    assert model.eval()(torch.randn(1, 3, 64, 48)).shape == (1, 1, 64, 48)
    assert sizes == [(8, 6)]


def test_frozen_parts_stand_still() -> None:
    from segdet.training.optim import build_optimizer, freeze

    for what in ("none", "1", "3", "backbone"):
        model, backbone = build_model("unet", "resnet18", ["c"], "none")
        still = freeze(backbone, what)
        frozen = [name for name, parameter in backbone.model.named_parameters() if not parameter.requires_grad]
        assert bool(frozen) == bool(still) == (what != "none")
        if what == "1":
            assert {name.split(".")[0] for name in frozen} == {"conv1", "bn1"}
        if what == "3":
            assert {name.split(".")[0] for name in frozen} == {"conv1", "bn1", "layer1", "layer2"}
        if what == "backbone":
            assert len(frozen) == len(list(backbone.model.parameters()))
        rates = build_optimizer("adamw", model, backbone, 1e-3, 0.5, 0.5, 0.01).param_groups
        assert max(group["peak"] for group in rates) == 1e-3
        if what == "none":
            assert min(group["peak"] for group in rates) == pytest.approx(1e-3 * 0.5 * 0.5**4)
    with pytest.raises(InputError, match="freeze=9"):
        freeze(backbone, "9")


def test_large_images_of_a_plain_transformer_are_shrunk_inside(tmp_path: Path) -> None:
    """Tokens look at each other: their number is bounded, in the file as in PyTorch."""
    model, backbone = build_model("segmenter", "test_vit", ["crack"], "none", {}, 64)
    assert model.most_pixels == 4096 * 16**2
    model.eval().most_pixels = 64 * 16**2
    seen: list[torch.Size] = []
    model.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output[-1].shape[-2:]))
    metadata = _metadata(arch="segmenter", backbone="test_vit", mean=list(backbone.mean), std=list(backbone.std))
    file = tmp_path / "small.onnx"
    file.write_bytes(to_onnx(model, metadata).SerializeToString())
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for shape, tokens in (((300, 200), (10, 7)), ((128, 128), (8, 8)), ((50, 70), (4, 5)), ((1, 2000), (1, 125))):
        images = np.random.default_rng(0).integers(0, 256, (1, *shape, 3), dtype=np.uint8)
        seen.clear()
        expected = predict(model, torch.from_numpy(images), backbone.mean, backbone.std)
        assert tuple(seen[-1]) == tokens and expected.shape == (1, *shape)
        confidence = session.run(["confidence"], {"image": images})[0]
        assert confidence.shape == (1, *shape) and np.abs(confidence - expected).max() < 2e-4
