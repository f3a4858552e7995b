"""Mixture of dense experts whose router is a learned function of the token: V-MoE and its relatives."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from brainage.errors import ConfigError
from brainage.nn.dense_experts import DenseExperts
from brainage.nn.routing import RoutingRecord
from brainage.nn.softmax_routing import SoftmaxTopK, within_capacity


class SoftmaxMoE(nn.Module):
    """Token-choice mixture: logits of a router, softmax, top-k, dense experts.

    Args:
        router: module from tokens (B, N, D) to logits (B, N, E).
        dim: width D.
        num_experts: number of experts E.
        hidden_dim: hidden width H of one expert.
        top_k: experts per token K; ``num_experts`` mixes all of them.
        noise_std: in training, normal noise of standard deviation ``noise_std / E`` is added to the logits.
        normalize_gates: see :class:`~brainage.nn.softmax_routing.SoftmaxTopK`.
        capacity_factor: limit of an expert's tokens relative to an even load, see
            :func:`~brainage.nn.softmax_routing.within_capacity`; None drops no token.

    Raises:
        ConfigError: naming field, value and rule.
    """

    uses_context = False

    def __init__(
        self,
        router: nn.Module,
        dim: int,
        num_experts: int,
        hidden_dim: int,
        top_k: int = 2,
        noise_std: float = 0.0,
        normalize_gates: bool = False,
        capacity_factor: float | None = None,
    ) -> None:
        super().__init__()
        if not noise_std >= 0:
            raise ConfigError("noise_std", noise_std, "must not be negative")
        if capacity_factor is not None and not capacity_factor > 0:
            raise ConfigError("capacity_factor", capacity_factor, "must be positive")
        self.noise_std, self.capacity_factor = noise_std, capacity_factor
        self.select = SoftmaxTopK(num_experts, top_k, normalize_gates)
        self.router = router
        self.experts = DenseExperts(num_experts, dim, hidden_dim)

    def forward(
        self,
        x_BND: Tensor,
        context_BND: Tensor | None = None,
        prior_NE: Tensor | None = None,
        return_routing: bool = False,
    ) -> Tensor | tuple[Tensor, RoutingRecord]:
        """Route and transform tokens; the caller adds the residual.

        Args:
            x_BND: normalised tokens.
            context_BND: not used; these routers look at the token alone.
            prior_NE: (N, E) or (B, N, E) in [0, 1]; 0 closes an expert to a token, a positive value weights
                its probability (see :class:`~brainage.nn.softmax_routing.SoftmaxTopK`).
            return_routing: also return the :class:`RoutingRecord`.

        Returns:
            y_BND in the dtype of ``x_BND``, 0 for tokens that no expert takes; or (y_BND, record).

        Raises:
            ConfigError: if the shape of the prior does not fit.
        """
        logits_BNE = self.router(x_BND)
        noise_BNE = None
        sigma = self.noise_std / logits_BNE.shape[-1]
        if self.training and sigma > 0:
            noise_BNE = torch.randn_like(logits_BNE) * sigma
        record = replace(self.select(logits_BNE, prior_NE, noise_BNE), noise_std=sigma)
        if self.capacity_factor is not None:
            record = within_capacity(record, self.capacity_factor)
        y_TD = self.experts(x_BND.flatten(0, 1), record)
        y_BND = y_TD.to(x_BND.dtype).view_as(x_BND)
        return (y_BND, record) if return_routing else y_BND
