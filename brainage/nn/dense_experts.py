"""Feed-forward experts with ordinary weight matrices, one set for each expert."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainage.errors import ConfigError
from brainage.nn.dispatch import DispatchPlan, combine, gather_tokens


class DenseExperts(nn.Module):
    """E two-layer networks ``y = W2 gelu(W1 x + b1) + b2``, drawn like ``nn.Linear``.

    Args:
        num_experts: number of experts E.
        dim: width D.
        hidden_dim: hidden width H of one expert.

    Raises:
        ConfigError: if a size is below 1.
    """

    def __init__(self, num_experts: int, dim: int, hidden_dim: int) -> None:
        super().__init__()
        for field, value in (("num_experts", num_experts), ("dim", dim), ("hidden_dim", hidden_dim)):
            if value < 1:
                raise ConfigError(field, value, "must be at least 1")

        def drawn(*shape: int, fan_in: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape).uniform_(-1, 1) / math.sqrt(fan_in))

        self.first_EHD = drawn(num_experts, hidden_dim, dim, fan_in=dim)
        self.bias_EH = drawn(num_experts, hidden_dim, fan_in=dim)
        self.second_EDH = drawn(num_experts, dim, hidden_dim, fan_in=hidden_dim)
        self.bias_ED = drawn(num_experts, dim, fan_in=hidden_dim)

    def slices(self, rows_SD: Tensor, sizes_E: tuple[int, ...]) -> list[Tensor]:
        """Outputs (n_e, D) of each expert on its contiguous slice of the rows."""
        # Empty slices are computed too: they cost nothing and give their expert a gradient of exactly zero.
        return [
            F.linear(F.gelu(F.linear(rows, first, first_bias)), second, second_bias)
            for rows, first, first_bias, second, second_bias in zip(
                rows_SD.split(sizes_E),
                self.first_EHD.unbind(),
                self.bias_EH.unbind(),
                self.second_EDH.unbind(),
                self.bias_ED.unbind(),
                strict=True,
            )
        ]

    def forward(self, x_TD: Tensor, gates_TK: Tensor, plan: DispatchPlan) -> Tensor:
        """Gated sum of the experts' outputs, (T, D)."""
        return combine(self.slices(gather_tokens(x_TD, plan), plan.sizes_E), gates_TK, plan)
