"""Auxiliary losses that flatten the load. None is used by default: they are there for the ablations.

Each is a pure function of scores, to be added to a training loss with a small weight; V-MoE takes the average
over its layers times 0.01 (arXiv 2106.05974, A.2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from brainage.errors import ConfigError
from brainage.nn.routing import RoutingRecord


def balancing_loss(record: RoutingRecord) -> Tensor:
    """The balancing loss of one layer that chooses experts, 0 when the load is even; a differentiable scalar.

    V-MoE's where the router adds noise in training: half the importance loss and half the load loss. Without
    noise there is no smooth load, and it is the importance loss alone: that of learned logits, or of ERMoE's
    eigenbasis scores at the record's temperature. Experts that the prior closes to a token get none of its
    probability; where the prior leaves no even load possible, the loss has its least value above 0.

    Nothing is to balance in the records of ``soft`` and ``dense``.
    """
    probabilities = record.scores_BNE / record.temperature
    if record.open_BNE is None:
        probabilities = probabilities.softmax(dim=-1)
    else:
        # Not -inf: a token to which all are closed would have no softmax.
        lowest = torch.finfo(probabilities.dtype).min
        probabilities = probabilities.masked_fill(~record.open_BNE, lowest).softmax(dim=-1)
        probabilities = probabilities * record.open_BNE
    importance = importance_loss(probabilities)
    if not record.noise_std > 0:
        return importance
    smooth = load_loss(record.scores_BNE, record.experts_BNK.shape[-1], record.noise_std, record.open_BNE)
    return (importance + smooth) / 2


def importance_loss(probabilities_BNE: Tensor) -> Tensor:
    """Squared coefficient of variation of the experts' summed probabilities, 0 when even; a scalar."""
    return _cv_squared(probabilities_BNE.flatten(0, -2).sum(dim=0))


def load_loss(
    logits_BNE: Tensor,
    top_k: int,
    sigma: float,
    open_BNE: Tensor | None = None,
    noise_BNE: Tensor | None = None,
) -> Tensor:
    """Squared coefficient of variation of a smooth load, 0 when even; a scalar.

    The load of an expert is the mean over tokens of the probability that it would be among the ``top_k`` if
    its noise were drawn again: ``1 - Phi((t - logit) / sigma)``, with t the K-th largest noisy logit.

    Args:
        logits_BNE: logits without noise, ``record.scores_BNE``.
        top_k: experts per token K, from 1 to E.
        sigma: standard deviation of the noise, ``record.noise_std``.
        open_BNE: the experts open to each token; all where it is not given. A token with no more than K open
            experts takes them all, whatever the noise.
        noise_BNE: the noise itself, drawn anew where it is not given.

    Raises:
        ConfigError: if ``sigma`` is not positive or ``top_k`` not between 1 and E.
    """
    experts = logits_BNE.shape[-1]
    if not sigma > 0:
        raise ConfigError("sigma", sigma, "must be positive, since the smooth load is that of noise")
    if not 1 <= top_k <= experts:
        raise ConfigError("top_k", top_k, f"must be between 1 and num_experts ({experts})")
    noisy = logits_BNE + (torch.randn_like(logits_BNE) * sigma if noise_BNE is None else noise_BNE)
    if open_BNE is not None:
        noisy = noisy.masked_fill(~open_BNE, torch.finfo(noisy.dtype).min)
    threshold = noisy.topk(top_k, dim=-1).values[..., -1:]
    if open_BNE is not None:
        lowest = torch.finfo(noisy.dtype).min
        threshold = threshold.masked_fill(open_BNE.sum(-1, keepdim=True) <= top_k, lowest)
    chosen = torch.special.ndtr((logits_BNE - threshold) / sigma)
    if open_BNE is not None:
        chosen = chosen * open_BNE
    return _cv_squared(chosen.flatten(0, -2).mean(dim=0))


def _cv_squared(load_E: Tensor) -> Tensor:
    # A load of 0 everywhere, which only a prior that closes everything makes, is even.
    return load_E.var(correction=0) / load_E.mean().square().clamp(min=torch.finfo(load_E.dtype).tiny)
