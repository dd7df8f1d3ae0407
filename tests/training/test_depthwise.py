"""The mixed depthwise pass: the same convolution, with gradients at least as exact as bfloat16's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from segdet.training.depthwise import fast_backward


@pytest.mark.parametrize("size", [(17, 19), (16, 22)])
@pytest.mark.parametrize(
    ("side", "stride", "dilation", "bias"),
    [(5, 1, 1, False), (5, 2, 1, True), (5, 1, 2, True), (3, 1, 1, True), (3, 2, 1, False), (7, 1, 1, False)],
)
def test_same_answer_and_gradients(side: int, stride: int, dilation: int, bias: bool, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(24, 24, side, stride, side // 2 * dilation, dilation, groups=24, bias=bias)
    mixed = copy.deepcopy(plain)
    assert fast_backward(mixed) == 1 and fast_backward(nn.Conv2d(8, 8, 3)) == 0
    x = torch.randn(2, 24, *size)
    outputs, gradients = [], []
    for conv, low in ((plain, False), (plain, True), (mixed, True)):
        conv.zero_grad()
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            out = conv(given)
        (out.float() * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
        outputs.append(out)
        gradients.append([given.grad, *(p.grad.clone() for p in conv.parameters())])
    exact, bfloat, ours = gradients
    assert torch.equal(outputs[1], outputs[2]) or torch.allclose(outputs[1].float(), outputs[2].float(), atol=2e-2)
    for truth, theirs, mine in zip(exact, bfloat, ours, strict=True):
        worst = float(truth.abs().max())
        assert float((mine - truth).abs().max()) <= max(1.5 * float((theirs - truth).abs().max()), 0.01 * worst)
    assert list(mixed.state_dict()) == list(plain.state_dict())


def test_in_float32_nothing_changes() -> None:
    plain = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    mixed = copy.deepcopy(plain)
    fast_backward(mixed)
    x = torch.randn(1, 8, 9, 9)
    assert torch.equal(plain(x), mixed(x))
