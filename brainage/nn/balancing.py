"""Auxiliary losses that flatten the load. None is used by default: they are there for the ablations.

Each is a pure function of logits or scores, to be added to a training loss with a small weight; the average
of importance and load losses over the layers, times 0.01, is the setting of V-MoE (arXiv 2106.05974, A.2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from brainage.errors import ConfigError


def importance_loss(probabilities_BNE: Tensor) -> Tensor:
    """Squared coefficient of variation of the experts' summed probabilities, 0 when even; a scalar."""
    return _cv_squared(probabilities_BNE.flatten(0, -2).sum(dim=0))


def load_loss(logits_BNE: Tensor, top_k: int, noise_std: float, noise_BNE: Tensor | None = None) -> Tensor:
    """Squared coefficient of variation of a smooth load, 0 when even; a scalar.

    The load of an expert is the mean over tokens of the probability that it would be among the ``top_k`` if
    its noise were drawn again: ``1 - Phi((t - logit) / sigma)``, with t the K-th largest noisy logit.

    Args:
        logits_BNE: logits without noise, ``record.scores_BNE``.
        top_k: experts per token K, from 1 to E.
        noise_std: as given to the layer; sigma is ``noise_std / E``.
        noise_BNE: the noise itself, drawn anew where it is not given.

    Raises:
        ConfigError: if ``noise_std`` is not positive or ``top_k`` not between 1 and E.
    """
    experts = logits_BNE.shape[-1]
    if not noise_std > 0:
        raise ConfigError("noise_std", noise_std, "must be positive, since the smooth load is that of noise")
    if not 1 <= top_k <= experts:
        raise ConfigError("top_k", top_k, f"must be between 1 and num_experts ({experts})")
    sigma = noise_std / experts
    noise = torch.randn_like(logits_BNE) * sigma if noise_BNE is None else noise_BNE
    threshold = (logits_BNE + noise).topk(top_k, dim=-1).values[..., -1:]
    chosen = torch.special.ndtr((logits_BNE - threshold) / sigma)
    return _cv_squared(chosen.flatten(0, -2).mean(dim=0))


def score_balancing_loss(scores_BNE: Tensor, temperature: float = 0.1) -> Tensor:
    """:func:`importance_loss` of ``softmax(scores / temperature)``, for scores that are no logits; a scalar.

    The ablation "ERMoE with a balancing loss": eigenbasis scores are cosines in [-1, 1], so a temperature
    well below 1 is needed for the softmax to follow the choice of experts.

    Raises:
        ConfigError: if ``temperature`` is not positive.
    """
    if not temperature > 0:
        raise ConfigError("temperature", temperature, "must be positive")
    return importance_loss((scores_BNE / temperature).softmax(dim=-1))


def _cv_squared(load_E: Tensor) -> Tensor:
    return load_E.var(correction=0) / load_E.mean().square()
