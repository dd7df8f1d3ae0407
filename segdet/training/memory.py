"""`--batch auto`: how many images of a step fit into memory."""

from __future__ import annotations

import psutil
import torch
from torch import nn

from segdet.models.common import normalise
from segdet.models.detection import Target
from segdet.training.stepper import out_of_memory
from segdet.training.task import Setup

_USED = 0.8  # share of the free memory that training may take
_EXTRA = 1.6  # what a step needs beyond the tensors kept for the backward pass: gradients of maps, workspaces
_COPIES = 5  # of the parameters: themselves, gradients, two of AdamW, the average
_MOST = {"cuda": 32}  # larger steps are fewer; on a processor they are not faster either


def batch_that_fits(setup: Setup, usual: int) -> int:
    """A power of two: as many images as fit, at most 32 on a GPU and `usual` (the recipe's) on a processor.

    What one image needs is counted, not tried: the bytes of all tensors that a forward pass keeps for the backward pass.
    """
    device = setup.accelerator.device
    parameters = sum(p.numel() * p.element_size() for p in setup.model.parameters())
    room = _USED * _free(device) - _COPIES * parameters
    try:
        fit = max(1, int(room / (_EXTRA * bytes_per_image(setup))))
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        fit = 1
    # Small datasets keep at least eight steps an epoch.
    photographs = len({record.photograph for record in setup.dataset.splits["train"]})
    return _power_of_two(min(fit, max(usual, _MOST.get(device.type, usual)), max(1, photographs // 8)))


def bytes_per_image(setup: Setup) -> float:
    """Memory that the forward pass of one training image keeps for the backward pass, as training will run it."""
    model, backbone, accelerator = setup.model, setup.backbone, setup.accelerator
    fixed = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in fixed:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = torch.zeros(2, setup.imgsz, setup.imgsz, 3, dtype=torch.uint8, device=accelerator.device)
    inputs = normalise(images, backbone.mean, backbone.std)
    one = Target(torch.full((1, 4), 0.5, device=images.device), torch.zeros(1, dtype=torch.int64, device=images.device))
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}  # batch norm must not learn from grey
    model.to(accelerator.device).train()
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), accelerator.autocast():
            _forward(model, inputs, [one, one])
    finally:
        for name, tensor in model.named_buffers():
            tensor.copy_(before[name])
    return sum(kept.values()) / len(images)


def _forward(model: nn.Module, inputs: torch.Tensor, targets: list[Target]) -> object:
    return model(inputs, None, targets) if hasattr(model, "square") else model(inputs)


def _free(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what PyTorch keeps for later counts as used there
        return float(torch.cuda.mem_get_info(device)[0])
    return float(psutil.virtual_memory().available)


def _power_of_two(number: int) -> int:
    return 1 << (max(1, number).bit_length() - 1)
