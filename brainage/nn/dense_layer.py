"""The dense control of a mixture: one feed-forward network of as many active products, same interface."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from brainage.errors import ConfigError
from brainage.nn.dense_experts import DenseExperts
from brainage.nn.routing import RoutingRecord


class DenseLayer(nn.Module):
    """One two-layer network of width ``top_k * hidden_dim``: the matmul FLOPs of K experts of width H.

    Every token goes to it with gate 1, so its record is that of a mixture of one expert, with scores of 0.

    Args:
        dim: width D.
        num_experts: number of experts of the mixture that it stands for; only checked.
        hidden_dim: hidden width H of one expert of that mixture.
        top_k: experts per token K of that mixture.

    Raises:
        ConfigError: if a size is below 1, or ``top_k`` not between 1 and E.
    """

    uses_context = False

    def __init__(self, dim: int, num_experts: int, hidden_dim: int, top_k: int = 2) -> None:
        super().__init__()
        if not 1 <= top_k <= num_experts:
            raise ConfigError("top_k", top_k, f"must be between 1 and num_experts ({num_experts})")
        if hidden_dim < 1:
            raise ConfigError("hidden_dim", hidden_dim, "must be at least 1")
        self.network = DenseExperts(1, dim, top_k * hidden_dim)

    def forward(
        self,
        x_BND: Tensor,
        context_BND: Tensor | None = None,
        prior_NE: Tensor | None = None,
        return_routing: bool = False,
    ) -> Tensor | tuple[Tensor, RoutingRecord]:
        """Transform tokens (B, N, D); the caller adds the residual.

        ``context_BND`` and ``prior_NE`` are not used: nothing is chosen, so no expert can be closed.
        """
        x_TD = x_BND.flatten(0, 1)
        y_TD = self.network.slices(x_TD, (len(x_TD),))
        y_BND = y_TD.to(x_BND.dtype).view_as(x_BND)
        if not return_routing:
            return y_BND
        shape = (*x_BND.shape[:2], 1)
        zeros = torch.zeros(shape, dtype=torch.long, device=x_BND.device)
        scores = torch.zeros(shape, device=x_BND.device)
        record = RoutingRecord(scores, zeros, torch.ones_like(scores), zeros == 0, zeros[..., 0] != 0)
        return y_BND, record
