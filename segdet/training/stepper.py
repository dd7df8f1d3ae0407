"""One optimisation step: forward, backward, clipping, averaged weights, in as many parts as memory asks for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from segdet.console import say
from segdet.errors import InvalidOption, SegdetError, setting
from segdet.training import depthwise, sharding
from segdet.training.optim import averaged, build_optimizer, freeze, set_rate
from segdet.training.task import Setup

Loss = Callable[[nn.Module, Any], torch.Tensor]


class Stepper:
    """The network in training, its optimiser and its averaged weights.

    Attributes:
        parts: a batch is computed in so many parts, one after another; their gradients add up to that of the whole batch
            (batch norm sees the parts; a loss pooled over the batch is pooled over each part).
        damping: factor on every learning rate, lowered after a NaN or infinite loss.
        idle: whether the device has finished the last step; a GPU works on while this process prepares the next one.
    """

    def __init__(self, setup: Setup) -> None:
        config, backbone = setup.config, setup.backbone
        self.config, self.accelerator, self.model = config, setup.accelerator, setup.model
        self.frozen = freeze(backbone, config.freeze)
        self.backbone = backbone
        self.whole: nn.Module | None = None  # where the parts of a sharded network are put together to be measured
        self.model.to(self.accelerator.device)
        if not config.fsdp:  # it cannot divide tensors that are laid out otherwise
            self.model.to(memory_format=torch.channels_last)
        if self.accelerator.device.type == "cpu" and self.accelerator.mixed_precision == "bf16":
            depthwise.fast_backward(self.model)
        if config.sync_bn and self.accelerator.num_processes > 1:
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        if config.compile:
            self.model.compile(dynamic=False)  # training images have one size; averaged weights stay uncompiled
        self.average = averaged(self.model, config.ema) if config.ema else None
        if config.fsdp:
            self._shard()
        self.frozen_params = [p for p in backbone.parameters() if p.requires_grad] if config.freeze_epochs else []
        optimizer = build_optimizer(
            config.optimizer,
            self.model,
            backbone,
            config.lr,
            config.backbone_lr,
            config.layer_decay,
            config.weight_decay,
        )
        self.network: nn.Module = self.model if config.fsdp else self.accelerator.prepare(self.model)
        self.optimizer = self.accelerator.prepare(optimizer)
        self.parts, self.damping = config.accumulate, 1.0
        self._done: torch.cuda.Event | None = None  # on a GPU: the end of the last step

    def _shard(self) -> None:
        processes, device = self.accelerator.num_processes, self.accelerator.device
        if processes == 1:
            reason, hint = "shares the network between processes", "start several: torchrun --nproc_per_node N"
            raise InvalidOption("fsdp", None, reason, hint)
        if self.accelerator.mixed_precision == "fp16":
            raise InvalidOption("fsdp", None, "cannot be used with fp16", f"use {setting('precision', 'bf16')}")
        self.whole = copy.deepcopy(self.model)
        for network in (self.model, *([self.average.module] if self.average is not None else [])):
            sharding.shard(network, processes, device.type)

    def best_network(self) -> nn.Module:
        """The weights to measure and keep: the averaged ones if there are any. All processes must ask together."""
        best: nn.Module = self.average.module if self.average is not None else self.model
        if self.whole is None:
            return best
        self.whole.load_state_dict(sharding.whole_weights(best))
        return self.whole

    def start_epoch(self, epoch: int) -> None:
        """Into training mode; parts of the backbone that rest keep their weights and statistics."""
        self.network.train()
        rests = epoch < self.config.freeze_epochs
        for parameter in self.frozen_params:
            parameter.requires_grad_(not rests)
        for module in [*self.frozen, *([self.backbone] if rests else [])]:
            module.eval()

    def step(self, batch: Any, loss: Loss, rate: float, seed: int) -> torch.Tensor:
        """Learn from one batch; out of memory, it is tried again in twice as many parts.

        Args:
            rate: share of the peak learning rates. seed: of dropout and denoising in this step.

        Returns:
            The batch's mean loss, a float64 scalar on the device; not finite when loss or gradient were not.

        Raises:
            SegdetError: one image alone does not fit into memory.
        """
        set_rate(self.optimizer, rate * self.damping)
        while True:
            torch.manual_seed(seed)
            try:
                value = self._gradients(batch, loss)
                break
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            # Outside the handler: the error holds the frames, and they hold the memory.
            self._halve(len(batch.indices))
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.clip)
        norm = None if norm is None else sharding.whole(norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.model)
        if self.accelerator.device.type == "cuda":
            self._done = torch.cuda.Event()
            self._done.record()
        # A NaN or infinite gradient has corrupted the weights; with a scaler (fp16) it only made it skip the step.
        return value if norm is None or self.accelerator.scaler is not None else value + 0.0 * norm.double()

    @property
    def idle(self) -> bool:
        return self._done is None or self._done.query()

    def _gradients(self, batch: Any, loss: Loss) -> torch.Tensor:
        count = len(batch.indices)
        value = torch.zeros((), dtype=torch.float64, device=self.accelerator.device)
        slices = _slices(count, self.parts)
        for number, rows in enumerate(slices):
            part = batch if len(slices) == 1 else batch.part(rows)
            last = number == len(slices) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.network):
                share = len(part.indices) / count
                one = loss(self.network, part)
                self.accelerator.backward(one if share == 1.0 else one * share)
            value += one.detach().double() * share
        return value

    def _halve(self, count: int) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if self.accelerator.num_processes > 1:  # the others wait in the middle of the same step
            raise SegdetError(
                f"out of memory with {count} images per process: use {setting('accumulate', 2 * self.parts)} (less memory, "
                f"the same training) or a smaller {setting('batch')}, and continue the run with {setting('resume')}"
            )
        if self.parts >= count:
            smaller = f"use a smaller {setting('imgsz')} or a smaller {setting('backbone')}"
            raise SegdetError(f"out of memory with one image at a time; {smaller}")
        self.parts = min(2 * self.parts, count)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        say(f"out of memory: batches of {count} are now computed in {self.parts} parts, the training stays the same")

    def state(self) -> dict[str, Any]:
        """Everything a step depends on, as tensors and plain values. All processes must ask together."""
        scaler = self.accelerator.scaler
        average: dict[str, Any] | None = None
        if self.average is not None:
            average = {"n_averaged": self.average.n_averaged, **self._weights(self.average.module)}
        return {
            "model": self._weights(self.model),
            "average": average,
            "optimizer": (
                self.optimizer.state_dict()
                if self.whole is None
                else sharding.whole_optimizer(self.model, self.optimizer.optimizer)
            ),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "parts": self.parts,
            "damping": self.damping,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved `state`."""
        self._take(self.model, state["model"])
        if self.average is not None:
            weights = dict(state["average"])
            self.average.n_averaged.copy_(weights.pop("n_averaged"))
            self._take(self.average.module, weights)
        if self.whole is None:
            self.optimizer.load_state_dict(state["optimizer"])
        else:
            sharding.load_optimizer(self.model, self.optimizer.optimizer, state["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.parts, self.damping = state["parts"], state["damping"]

    def _weights(self, network: nn.Module) -> dict[str, Any]:
        return network.state_dict() if self.whole is None else sharding.whole_weights(network)

    def _take(self, network: nn.Module, state: dict[str, Any]) -> None:
        if self.whole is None:
            network.load_state_dict(state)
        else:
            sharding.load_weights(network, state)


# Words of libraries that ask for GPU memory past PyTorch, and of the processor's allocator. cuDNN finds no plan for a
# convolution when there is no room for the workspace of any.
_NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm",
)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error means that memory did not suffice: PyTorch has a class for it, other libraries only words."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)


def _slices(count: int, parts: int) -> Sequence[slice]:
    """Rows of at most `parts` parts of nearly equal size."""
    parts = min(parts, count)
    edges = [round(count * k / parts) for k in range(parts + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]
