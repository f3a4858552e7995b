"""What a mixture-of-experts layer decided, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RoutingRecord:
    """The routing of one forward pass. Nothing of it is kept on the module.

    Attributes:
        scores_BNE: the router's scores before any prior: cosines in [-1, 1] for the eigenbasis router, logits
            for the others.
        experts_BNK: indices of the chosen experts, best first. A slot that is not used holds an arbitrary
            valid index and a gate of exactly 0; count only the slots in ``used_BNK``.
        gates_BNK: weights of the chosen experts, positive where used. They sum to 1 over K, or to 0 for a
            token that passes through the residual; where they are a softmax's own probabilities, to the
            probability of the chosen (see :class:`~brainage.nn.softmax_routing.SoftmaxTopK`).
        eligible_BNE: whether the expert was allowed for the token and scored above the threshold, if any.
        fallback_BN: whether the token had no eligible expert.
        open_BNE: the experts that the prior leaves open to the token; None where all are.
        temperature: what the scores are to be divided by where a softmax is taken of them: 1 for logits.
        noise_std: standard deviation of the noise that the router adds to its scores in training.

    Soft MoE chooses nothing, and its record reads differently: see :class:`~brainage.nn.soft_moe.SoftMoE`.
    """

    scores_BNE: Tensor
    experts_BNK: Tensor
    gates_BNK: Tensor
    eligible_BNE: Tensor
    fallback_BN: Tensor
    open_BNE: Tensor | None = None
    temperature: float = 1.0
    noise_std: float = 0.0

    @property
    def num_experts(self) -> int:
        """Number of experts E."""
        return self.scores_BNE.shape[-1]

    @property
    def used_BNK(self) -> Tensor:
        """Slots that hold an expert which computes the token."""
        return self.gates_BNK > 0

    @property
    def gates_BNE(self) -> Tensor:
        """Gates by expert, 0 where it was not chosen."""
        zeros = torch.zeros_like(self.scores_BNE, dtype=self.gates_BNK.dtype)
        return zeros.scatter_add(-1, self.experts_BNK, self.gates_BNK)

    def detach(self) -> RoutingRecord:
        """The same record without its autograd graph."""
        return replace(self, scores_BNE=self.scores_BNE.detach(), gates_BNK=self.gates_BNK.detach())
