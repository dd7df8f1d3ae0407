"""Sharing parameters, gradients and optimiser state between processes (FSDP2; Zhao et al. 2023, arXiv 2304.11277).

For networks whose training state one GPU cannot hold. Each process keeps its part of every parameter; the whole of a block is there
only while it is computed. What is saved is whole again: weights are the usual files.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

_SHARE = 0.02  # of all parameters, from which a block is sharded as a unit of its own

_WHOLE = StateDictOptions(full_state_dict=True)


def shard(model: nn.Module, processes: int, device: str) -> None:
    """Keep only this process's part of every parameter: the repeated blocks one by one, then all the rest together.

    Args:
        device: kind of the devices, "cuda" or "cpu".
    """
    mesh = init_device_mesh(device, (processes,))
    for block in _blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _blocks(model: nn.Module) -> list[nn.Module]:
    """Members of sequences that hold a fair part of all parameters, none within another."""
    least = _SHARE * sum(parameter.numel() for parameter in model.parameters())
    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for sequence in model.modules():
        if isinstance(sequence, nn.Sequential | nn.ModuleList):
            for member in sequence.children():
                size = sum(parameter.numel() for parameter in member.parameters())
                if member not in inside and size >= least and not isinstance(member, nn.ModuleList):
                    found.append(member)
                    inside.update(member.modules())
    return found


def whole_weights(model: nn.Module) -> dict[str, Any]:
    """The whole state dict, in every process; all of them must ask."""
    return get_model_state_dict(model, options=_WHOLE)


def load_weights(model: nn.Module, state: dict[str, Any]) -> None:
    """Take this process's part of a whole state dict."""
    set_model_state_dict(model, state, options=_WHOLE)


def whole_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The whole state of an optimiser by names of parameters, in every process; all of them must ask.

    Empty before its first step: PyTorch would make it take one, which leaves decayed weights in the momentum.
    """
    if not optimizer.state:
        return {}
    return get_optimizer_state_dict(model, optimizer, options=_WHOLE)


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take this process's part of what `whole_optimizer` gave."""
    if not state:
        return
    set_optimizer_state_dict(model, optimizer, state, options=_WHOLE)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor whose parts lie in several processes, put together; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
