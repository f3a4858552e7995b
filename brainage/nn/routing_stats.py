"""Figures that say how evenly and how decidedly a layer routes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from brainage.nn.routing import RoutingRecord


def expert_load(record: RoutingRecord) -> Tensor:
    """Number of (token, slot) pairs that each expert computes, (E,) int64."""
    return torch.bincount(record.experts_BNK[record.used_BNK], minlength=record.num_experts)


def routing_statistics(record: RoutingRecord) -> dict[str, float]:
    """:func:`load_statistics` of :func:`expert_load`, and ``below_threshold``.

    The latter is the fraction of the tokens that have no eligible expert.
    """
    below = float(record.fallback_BN.double().mean())
    return {**load_statistics(expert_load(record)), "below_threshold": below}


def load_statistics(load_E: Tensor) -> dict[str, float]:
    """Statistics of the load ``n_e`` of E experts, with shares ``f_e = n_e / sum(n)``.

    Returns:
        * ``gini``: sum_ij |n_i - n_j| / (2 E sum(n)); 0 when even, (E - 1) / E when one expert takes all;
        * ``gini_normalized``: the same over that maximum (0 for a single expert);
        * ``cv_squared``: variance over squared mean (Shazeer et al. 2017, arXiv 1701.06538);
        * ``max_violation``: max(n) / mean(n) - 1 (Wang et al. 2024, arXiv 2408.15664);
        * ``entropy``: -sum f log f, in nats; ``effective_experts``: its exponential;
        * ``dead_experts``: number of experts without a token.

        Where no token reached any expert, the figures of the load's shape are NaN.
    """
    load = load_E.to("cpu", torch.float64)
    experts, total = len(load), float(load.sum())
    share = load / total
    rank = torch.arange(1, experts + 1, dtype=torch.float64)
    gini = float(((2 * rank - experts - 1) * share.sort().values).sum() / experts)
    maximum = (experts - 1) / experts
    entropy = float(torch.special.entr(share).sum())
    return {
        "gini": gini,
        "gini_normalized": gini / maximum if experts > 1 else gini,
        "cv_squared": float(share.var(correction=0) * experts**2),
        "max_violation": float(share.max() * experts - 1),
        "entropy": entropy,
        "effective_experts": math.exp(entropy),
        "dead_experts": float((load == 0).sum()),
    }


def subspace_overlap(bases_EDR: Tensor) -> Tensor:
    """Overlap ``||V_i^T V_j||_F^2 / R`` of every two bases, (E, E).

    1 for equal subspaces, 0 for orthogonal ones, R / D on average for random ones.
    """
    flat = bases_EDR.movedim(0, 1).flatten(1)
    experts, _, rank = bases_EDR.shape
    gram = (flat.mT @ flat).reshape(experts, rank, experts, rank)
    return gram.square().sum(dim=(1, 3)) / rank


def routing_stability(before_BNK: Tensor, after_BNK: Tensor) -> dict[str, float]:
    """How much of one routing of some tokens is left in another of the same tokens.

    Args:
        before_BNK, after_BNK: indices of the chosen experts, best first, -1 for a slot that is not used.

    Returns:
        * ``same_first``: fraction of the tokens whose best expert is the same (none counts as an expert);
        * ``jaccard``: mean over the tokens of shared experts over all of both, 1 where both have none.
    """
    same_first = (before_BNK[..., 0] == after_BNK[..., 0]).double().mean()
    used_BNK = after_BNK >= 0
    equal_BNKK = (before_BNK.unsqueeze(-1) == after_BNK.unsqueeze(-2)) & used_BNK.unsqueeze(-2)
    shared_BN = equal_BNKK.flatten(-2).sum(-1).double()
    union_BN = (before_BNK >= 0).sum(-1) + used_BNK.sum(-1) - shared_BN
    jaccard_BN = torch.where(union_BN > 0, shared_BN / union_BN.clamp(min=1), 1.0)
    return {"same_first": float(same_first), "jaccard": float(jaccard_BN.mean())}
