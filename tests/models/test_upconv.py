"""A convolution computed before enlarging: the same numbers as enlarging first, forwards and backwards."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

from segdet.models.registry import build_model
from segdet.models.upconv import enlarged_conv, fast_decoder, ready_kernels


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5), (16, 16)])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_enlarging_first(size: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 5, 3, 3, dtype=torch.float64, requires_grad=True)
    shift = torch.randn(4, dtype=torch.float64, requires_grad=True) if bias else None
    ours = enlarged_conv(x, weight, shift)
    theirs = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, shift, padding=1)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    given = [t for t in (x, weight, shift) if t is not None]
    pull = torch.randn_like(theirs)
    for one, two in zip(torch.autograd.grad(ours, given, pull), torch.autograd.grad(theirs, given, pull), strict=True):
        assert torch.allclose(one, two, rtol=0, atol=1e-11)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("odd", [False, True])
def test_a_decoder_keeps_its_names_and_its_answers(training: bool, odd: bool) -> None:
    """`odd`: levels that are not exactly twofold go the usual way."""
    torch.manual_seed(0)
    usual = UnetDecoder([3, 8, 12, 16], [16, 8, 4], n_blocks=3).double()
    for module in usual.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.normal_(module.weight, 1, 0.3)
            torch.nn.init.normal_(module.bias)
    fast = fast_decoder(copy.deepcopy(usual), 16)
    assert list(fast.state_dict()) == list(usual.state_dict())
    side = 30 if odd else 32
    sides = [side, 16 - odd, 8, 4]
    levels = [torch.randn(2, c, n, n, dtype=torch.float64) for c, n in zip((3, 8, 12, 16), sides, strict=True)]
    usual.train(training), fast.train(training)
    assert torch.allclose(usual(levels), fast(levels), rtol=0, atol=1e-10)
    if training:  # the statistics are learnt alike
        for name, value in usual.state_dict().items():
            assert torch.allclose(value, fast.state_dict()[name], rtol=0, atol=1e-10), name


def test_unet_uses_it() -> None:
    model, _ = build_model("unet", "resnet18", ["crack"])
    assert all(type(block).__name__ == "_FastBlock" and block.exact for block in model.decoder.blocks)


def test_kernels_are_made_ready_for_an_export_only() -> None:
    model, _ = build_model("unet", "test_efficientnet", ["crack"], "none", {"decoder_channels": [16, 8, 8, 8, 4]})
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = model.eval()(x)
        with ready_kernels(model):
            assert all(block.ready is not None for block in model.decoder.blocks)
            assert torch.equal(model(x), before)
            names = list(model.state_dict())
        assert all(block.ready is None for block in model.decoder.blocks) and list(model.state_dict()) == names
        for parameter in model.decoder.parameters():
            parameter.mul_(1.1)
        assert not torch.equal(model(x), before)
