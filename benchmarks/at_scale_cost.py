"""What a model costs on any device: counted, not read off a clock or an allocator.

A part does not grow with the batch: bases that are made from weights, weights that autocast rounds. So the
cost of one item is the difference of two batches.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

Forward = Callable[[int], Tensor]
"""A forward pass of so many items; returns what is differentiated."""

SMALL, LARGE = 1, 5


def forward_flops(forward: Forward) -> float:
    """Floating-point operations of the matrix products and convolutions of one item's forward pass."""
    totals = []
    for count in (SMALL, LARGE):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            forward(count)
        totals.append(counter.get_total_flops())
    return (totals[1] - totals[0]) / (LARGE - SMALL)


def saved_bytes(model: nn.Module, forward: Forward, precision: torch.dtype | None = None) -> float:
    """Bytes that one item's forward pass keeps for its backward pass; without precision in float32."""
    model.train()
    totals = [_saved(model, forward, count, precision) for count in (SMALL, LARGE)]
    return (totals[1] - totals[0]) / (LARGE - SMALL)


def _saved(model: nn.Module, forward: Forward, count: int, precision: torch.dtype | None) -> int:
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no address is given twice

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        alive.append(tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None),
    ):
        forward(count)
    return sum(kept.values())


def state_bytes(model: nn.Module) -> int:
    """Bytes of weights, gradients, AdamW's two moments and the averaged weights, all in float32."""
    return 5 * sum(4 * p.numel() for p in model.parameters())
