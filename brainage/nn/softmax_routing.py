"""Learned logits, and the selection by softmax and top-k that the published alternatives to ERMoE share.

A router is a module from tokens (..., D) to logits (..., E), computed in the precision of its parameters
outside autocast, because a logit rounded to bfloat16 changes which expert is chosen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainage.errors import ConfigError
from brainage.nn.routers import check_prior
from brainage.nn.routing import RoutingRecord

LOWEST_TEMPERATURE = 0.01
"""Bound of a learned temperature, as in the published implementations of X-MoE."""


class LinearRouter(nn.Module):
    """Learned linear logits ``W x`` without a bias, as in V-MoE (Riquelme et al. 2021, arXiv 2106.05974)."""

    def __init__(self, dim: int, num_experts: int) -> None:
        super().__init__()
        self.weight_ED = nn.Parameter(torch.randn(num_experts, dim) / math.sqrt(dim))

    def forward(self, x_BND: Tensor) -> Tensor:
        """Logits (B, N, E)."""
        with torch.autocast(x_BND.device.type, enabled=False):
            return F.linear(x_BND.to(self.weight_ED.dtype), self.weight_ED)


class CosineRouter(nn.Module):
    """Cosine logits with a learned temperature: the router of X-MoE (Chi et al. 2022, arXiv 2204.09179).

    ``logit_e = cos(P x, w_e) / tau`` with a linear projection P to a low dimension and one embedding ``w_e``
    for each expert. A projection of norm 0 has logits of 0.

    Args:
        dim: width D.
        num_experts: number of experts E.
        projection_dim: width of the projection; half the number of experts (at least 2) where not given, as
            in the paper.
        temperature: tau at the start; it never falls below 0.01.

    Raises:
        ConfigError: if ``projection_dim`` is below 1 or ``temperature`` below 0.01.
    """

    def __init__(
        self, dim: int, num_experts: int, projection_dim: int | None = None, temperature: float = 0.3
    ) -> None:
        super().__init__()
        width = max(num_experts // 2, 2) if projection_dim is None else projection_dim
        if width < 1:
            raise ConfigError("projection_dim", width, "must be at least 1")
        if not temperature >= LOWEST_TEMPERATURE:
            raise ConfigError("temperature", temperature, f"must be at least {LOWEST_TEMPERATURE}")
        self.projection_PD = nn.Parameter(torch.randn(width, dim) / math.sqrt(dim))
        self.embedding_EP = nn.Parameter(torch.randn(num_experts, width))
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self, x_BND: Tensor) -> Tensor:
        """Logits (B, N, E)."""
        with torch.autocast(x_BND.device.type, enabled=False):
            projected = F.normalize(F.linear(x_BND.to(self.projection_PD.dtype), self.projection_PD), dim=-1)
            cosines = F.linear(projected, F.normalize(self.embedding_EP, dim=-1))
            return cosines * self.log_scale.clamp(max=-math.log(LOWEST_TEMPERATURE)).exp()


@dataclass(frozen=True)
class SoftmaxTopK:
    """Selects the ``top_k`` most probable experts of ``softmax(logits + noise)``.

    With a prior ``p`` in [0, 1] (1 where none is given) the probabilities are those of
    ``softmax(logits + noise + log p)``: a positive prior weights an expert's probability, and an expert with
    ``p <= 0`` is closed to the token. The gates are the probabilities as they are, so that the router learns
    also for ``top_k = 1``; they sum to less than 1 unless every expert is chosen. With ``normalize_gates``
    they are divided by their sum over the chosen. ``top_k = num_experts`` is the soft mixture of all experts.

    In the record, ``scores_BNE`` are the logits without noise and prior, ``eligible_BNE`` says which experts
    are open to a token, and ``fallback_BN`` is true only for a token to which all are closed; it takes none.
    A logit that is NaN counts as 0.

    Args:
        num_experts: number of experts E.
        top_k: experts per token K, from 1 to E.
        normalize_gates: whether the gates of a token sum to 1.

    Raises:
        ConfigError: naming the field that breaks its rule.
    """

    num_experts: int
    top_k: int = 2
    normalize_gates: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.num_experts:
            raise ConfigError("top_k", self.top_k, f"must be between 1 and num_experts ({self.num_experts})")

    def __call__(
        self, logits_BNE: Tensor, prior_NE: Tensor | None = None, noise_BNE: Tensor | None = None
    ) -> RoutingRecord:
        """Route by ``logits_BNE``; ``prior_NE`` has the shape (N, E) or (B, N, E).

        Raises:
            ConfigError: if the shape of the prior does not fit.
        """
        # Gates stay finite; a NaN token becomes NaN through its experts, and only itself.
        logits = logits_BNE.masked_fill(logits_BNE.isnan(), 0.0)
        if noise_BNE is not None:
            logits = logits + noise_BNE
        open_BNE = torch.ones_like(logits, dtype=torch.bool)
        if prior_NE is not None:
            check_prior(prior_NE, logits_BNE.shape)
            open_BNE = (prior_NE > 0).expand_as(logits)
            # Not -inf: a row of it has no softmax. Beside an open expert the lowest number weighs exactly 0.
            lowest = torch.finfo(logits.dtype).min
            logits = (logits + prior_NE.to(logits.dtype).log()).masked_fill(~open_BNE, lowest)
        probabilities = logits.softmax(dim=-1).masked_fill(~open_BNE, 0.0)
        gates_BNK, experts_BNK = probabilities.topk(self.top_k, dim=-1)
        closed_BN = ~open_BNE.any(dim=-1)
        if self.normalize_gates:
            total = gates_BNK.sum(dim=-1, keepdim=True)
            gates_BNK = gates_BNK / total.masked_fill(closed_BN[..., None], 1.0)
        return RoutingRecord(
            logits_BNE,
            experts_BNK,
            gates_BNK,
            open_BNE,
            closed_BN,
            None if prior_NE is None else open_BNE,
        )


def within_capacity(record: RoutingRecord, capacity_factor: float) -> RoutingRecord:
    """The record with every expert limited to ``C = ceil(capacity_factor T K / E)`` of the batch's T tokens.

    V-MoE's buffers (arXiv 2106.05974, section 2.4): all first choices come before all second choices, and
    within a choice the tokens come in order. What comes after C is dropped: its slot gets a gate of 0 and the
    other gates stay as they are. So a token's result can depend on the tokens before it in the batch.
    """
    batch, tokens, slots = record.experts_BNK.shape
    capacity = math.ceil(capacity_factor * batch * tokens * slots / record.num_experts)
    in_order = F.one_hot(record.experts_BNK.movedim(-1, 0).flatten(), record.num_experts)
    in_order = in_order * record.used_BNK.movedim(-1, 0).reshape(-1, 1)
    place = (in_order.cumsum(dim=0) * in_order).sum(dim=1)  # from 1, among the pairs of the same expert
    dropped_BNK = (place > capacity).view(slots, batch, tokens).movedim(0, -1)
    return replace(record, gates_BNK=record.gates_BNK.masked_fill(dropped_BNK, 0.0))
