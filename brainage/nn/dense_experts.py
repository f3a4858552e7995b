"""Feed-forward experts with ordinary weight matrices, one set for each expert."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from brainage.errors import ConfigError
from brainage.nn.dispatch import combine, gather_tokens, outside_graphs, plan_routing
from brainage.nn.routing import RoutingRecord
from brainage.nn.slices import networks


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

    def slices(self, rows_SD: Tensor, sizes_E: tuple[int, ...]) -> Tensor:
        """Outputs (S, D) of each expert on its contiguous slice of the rows."""
        second_EHD = self.second_EDH.mT
        return networks(rows_SD, sizes_E, self.first_EHD, self.bias_EH, second_EHD, self.bias_ED)

    @outside_graphs
    def forward(self, x_TD: Tensor, record: RoutingRecord) -> Tensor:
        """Gated sum of the experts' outputs, (T, D)."""
        plan = plan_routing(record, x_TD)
        rows_SD = self.slices(gather_tokens(x_TD, plan), plan.sizes_E)
        return combine(rows_SD, record.gates_BNK.flatten(0, 1), plan)
