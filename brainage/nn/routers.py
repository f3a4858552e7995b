"""From projections to a routing decision: eigenbasis scores, then threshold, top-k and fallback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from brainage.errors import ConfigError
from brainage.nn.routing import RoutingRecord

Fallback = Literal["best", "skip"]
FALLBACKS = ("best", "skip")
SOFTMAX_TEMPERATURE = 0.1
"""Of a softmax of cosines: they lie in [-1, 1], so at 1 it would hardly follow the choice of experts."""


def eigenbasis_scores(tokens_BNER: Tensor, context_BNER: Tensor) -> Tensor:
    """Eigenbasis score ``a_e = cos(V_e^T x, V_e^T c)`` of ERMoE (arXiv 2511.10971), (B, N, E) in [-1, 1].

    Args:
        tokens_BNER: projections ``V_e^T x`` of the tokens.
        context_BNER: projections ``V_e^T c`` of their contexts.

    Computed in float32 or better; a vector of norm 0 scores 0.
    """
    dtype = torch.promote_types(tokens_BNER.dtype, torch.float32)
    tokens, context = tokens_BNER.to(dtype), context_BNER.to(dtype)
    norms = torch.linalg.vector_norm(tokens, dim=-1) * torch.linalg.vector_norm(context, dim=-1)
    return (tokens * context).sum(dim=-1) / norms.clamp(min=1e-12)


def aligned_energy_scores(tokens_BNER: Tensor, context_BNER: Tensor) -> Tensor:
    """Share of an expert in the alignment of token and context: ``a_e = <V_e^T x, V_e^T c> / (|x| |c|)``.

    Lengths are those within all experts' bases together, so that where these are orthogonal to each other the
    scores sum to the cosine of token and context there. :func:`eigenbasis_scores` divides by the lengths
    within each single basis instead, which hides how much of the token lies in it: an expert whose basis
    holds next to nothing of the token can score highest. (B, N, E) in [-1, 1].

    Computed in float32 or better; a token or context of norm 0 scores 0.
    """
    dtype = torch.promote_types(tokens_BNER.dtype, torch.float32)
    tokens, context = tokens_BNER.to(dtype), context_BNER.to(dtype)
    lengths = torch.linalg.vector_norm(tokens, dim=(-2, -1)) * torch.linalg.vector_norm(context, dim=(-2, -1))
    return (tokens * context).sum(dim=-1) / lengths.clamp(min=1e-12).unsqueeze(-1)


def check_prior(prior_NE: Tensor, shape_BNE: torch.Size) -> None:
    """Raise ConfigError unless the prior has the shape (N, E) or (B, N, E) of the scores."""
    if prior_NE.shape not in (shape_BNE, shape_BNE[1:]):
        rule = f"must have the shape {tuple(shape_BNE[1:])} or {tuple(shape_BNE)}"
        raise ConfigError("prior_NE", tuple(prior_NE.shape), rule)


@dataclass(frozen=True)
class ThresholdTopK:
    """Selects, for each token, at most ``top_k`` of the experts that score above ``threshold``.

    With raw scores ``a`` and a prior ``p`` in [0, 1] (1 where none is given):

    1. An expert with ``p <= 0`` is closed to the token: it is never chosen, not even as a fallback.
    2. A positive prior weights the score, ``b = min(a, p a)``: a positive score is multiplied by p; one that
       is not positive stays as it is, since multiplying would *raise* it. So a prior can only lower a score.
    3. Eligible is what is open and has ``b > threshold``. Of these the ``top_k`` largest are selected.
    4. Gates are ``b`` normalised over the selected. For a negative threshold they are ``b - threshold``,
       normalised: with scores of both signs a sum can vanish, and the shift keeps every gate positive.
    5. A token with nothing eligible takes its best open expert alone with gate 1 (``fallback="best"``) or
       none (``"skip"``). A token to which every expert is closed always takes none.

    A score that is NaN is never eligible and ranks below all others.

    Args:
        num_experts: number of experts E.
        top_k: experts per token K, from 1 to E.
        threshold: T, in [-1, 1).
        fallback: ``"best"`` or ``"skip"``.

    Raises:
        ConfigError: naming the field that breaks its rule.
    """

    num_experts: int
    top_k: int = 2
    threshold: float = 0.0
    fallback: Fallback = "best"

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.num_experts:
            raise ConfigError("top_k", self.top_k, f"must be between 1 and num_experts ({self.num_experts})")
        if not -1 <= self.threshold < 1:
            rule = "must lie in [-1, 1), because scores are cosines and none exceeds 1"
            raise ConfigError("threshold", self.threshold, rule)
        if self.fallback not in FALLBACKS:
            raise ConfigError("fallback", self.fallback, f"must be one of {FALLBACKS}")

    def __call__(self, scores_BNE: Tensor, prior_NE: Tensor | None = None) -> RoutingRecord:
        """Route by ``scores_BNE``; ``prior_NE`` has the shape (N, E) or (B, N, E).

        Raises:
            ConfigError: if the shape of the prior does not fit.
        """
        # Below every cosine, so a NaN token still has an open expert to fall back on, and stays NaN itself.
        weighted = scores_BNE.masked_fill(scores_BNE.isnan(), -2.0)
        ranked, open_BNE = weighted, None
        if prior_NE is not None:
            check_prior(prior_NE, scores_BNE.shape)
            weighted = torch.minimum(weighted, prior_NE.to(weighted.dtype) * weighted)
            open_BNE = (prior_NE > 0).expand_as(weighted)
            ranked = weighted.masked_fill(~open_BNE, -torch.inf)

        best_BNK, experts_BNK = ranked.detach().topk(self.top_k, dim=-1)
        used_BNK = best_BNK > self.threshold
        fallback_BN = ~used_BNK[..., 0]

        # Below the rounding of a cosine a score is noise, and its quotients' gradients would overflow.
        strengths = weighted.gather(-1, experts_BNK) - min(self.threshold, 0.0)
        strengths = strengths.clamp(min=torch.finfo(strengths.dtype).eps).masked_fill(~used_BNK, 0.0)
        # Where nothing is used the sum is 0: dividing by 1 there keeps value and gradient finite.
        gates = strengths / strengths.sum(dim=-1, keepdim=True).masked_fill(fallback_BN[..., None], 1.0)
        if self.fallback == "best":
            alone = fallback_BN & (best_BNK[..., 0] > -torch.inf)
            gates = torch.cat((gates[..., :1].masked_fill(alone[..., None], 1.0), gates[..., 1:]), dim=-1)
        return RoutingRecord(
            scores_BNE,
            experts_BNK,
            gates,
            ranked.detach() > self.threshold,
            fallback_BN,
            open_BNE,
            SOFTMAX_TEMPERATURE,
        )
