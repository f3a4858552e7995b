"""Soft MoE: experts that compute mixtures of tokens, so that nothing is chosen and nothing is dropped."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainage.errors import ConfigError
from brainage.nn.dense_experts import DenseExperts
from brainage.nn.routers import check_prior
from brainage.nn.routing import RoutingRecord


class SoftMoE(nn.Module):
    """Soft mixture of experts (Puigcerver et al. 2023, arXiv 2308.00951).

    Each expert has P slots. With logits ``l_nep = scale cos(x_n, phi_ep)``, a slot reads the average of its
    sequence's tokens by ``softmax over n``, its expert transforms it, and a token reads the average of all
    slots by ``softmax over (e, p)``. The products cost as much as a token choice of ``E P / N`` experts per
    token. Since slots mix tokens, the tokens of one sequence depend on each other (a NaN spreads within its
    sequence, not beyond), and their order does not matter.

    The record describes weights, not choices: ``scores_BNE`` is the largest logit of an expert's slots,
    ``gates_BNK`` with K = E the weight that a token gives to an expert's slots together, in ``experts_BNK``
    from the largest to the smallest, ``eligible_BNE`` the experts open to a token, and ``fallback_BN`` the
    tokens to which all are closed. Every expert computes the same number of slots, so the load that
    :func:`~brainage.nn.expert_load` counts is even by construction; sum ``gates_BNE`` for the weight.

    Args:
        dim: width D.
        num_experts: number of experts E.
        hidden_dim: hidden width H of one expert.
        slots_per_expert: slots P of each expert.

    Raises:
        ConfigError: if a size is below 1.
    """

    uses_context = False

    def __init__(self, dim: int, num_experts: int, hidden_dim: int, slots_per_expert: int) -> None:
        super().__init__()
        if slots_per_expert < 1:
            raise ConfigError("slots_per_expert", slots_per_expert, "must be at least 1")
        self.experts = DenseExperts(num_experts, dim, hidden_dim)
        self.slots_EPD = nn.Parameter(torch.randn(num_experts, slots_per_expert, dim) / math.sqrt(dim))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(
        self,
        x_BND: Tensor,
        context_BND: Tensor | None = None,
        prior_NE: Tensor | None = None,
        return_routing: bool = False,
    ) -> Tensor | tuple[Tensor, RoutingRecord]:
        """Transform tokens; the caller adds the residual.

        Args:
            x_BND: normalised tokens.
            context_BND: not used.
            prior_NE: (N, E) or (B, N, E) in [0, 1], added to the logits as ``log p`` in both directions: a
                token to which an expert is closed (0) neither enters its slots nor reads them.
            return_routing: also return the :class:`RoutingRecord`.

        Returns:
            y_BND in the dtype of ``x_BND``, 0 for tokens to which every expert is closed; or (y_BND, record).

        Raises:
            ConfigError: if the shape of the prior does not fit.
        """
        logits_BNEP = self._logits(x_BND)
        batch, _, experts, slots = logits_BNEP.shape
        open_BNE = torch.ones(logits_BNEP.shape[:3], dtype=torch.bool, device=x_BND.device)
        weighted = logits_BNEP
        if prior_NE is not None:
            check_prior(prior_NE, open_BNE.shape)
            open_BNE = (prior_NE > 0).expand_as(open_BNE)
            # Not -inf: a slot that is closed to all tokens would have no softmax.
            weighted = weighted + prior_NE.to(weighted.dtype).log().unsqueeze(-1)
            weighted = weighted.masked_fill(~open_BNE.unsqueeze(-1), torch.finfo(weighted.dtype).min)
        closed = ~open_BNE.unsqueeze(-1)
        read_BNEP = weighted.softmax(dim=1).masked_fill(closed, 0.0)
        written_BNEP = weighted.flatten(2).softmax(dim=2).view_as(weighted).masked_fill(closed, 0.0)

        rows_SD = torch.einsum("bnep,bnd->ebpd", read_BNEP, x_BND.to(read_BNEP.dtype)).flatten(0, 2)
        outputs_SD = self.experts.slices(rows_SD, (batch * slots,) * experts)
        outputs_EBPD = outputs_SD.unflatten(0, (experts, batch, slots))
        y_BND = torch.einsum("bnep,ebpd->bnd", written_BNEP, outputs_EBPD.to(written_BNEP.dtype))
        y_BND = y_BND.to(x_BND.dtype)
        if not return_routing:
            return y_BND
        gates_BNK, experts_BNK = written_BNEP.sum(dim=-1).sort(dim=-1, descending=True)
        fallback_BN = ~open_BNE.any(dim=-1)
        return y_BND, RoutingRecord(logits_BNEP.amax(-1), experts_BNK, gates_BNK, open_BNE, fallback_BN)

    def _logits(self, x_BND: Tensor) -> Tensor:
        """Scaled cosines of tokens and slots (B, N, E, P), in the parameters' precision."""
        with torch.autocast(x_BND.device.type, enabled=False):
            tokens = F.normalize(x_BND.to(self.slots_EPD.dtype), dim=-1)
            slots = F.normalize(self.slots_EPD, dim=-1)
            return torch.einsum("bnd,epd->bnep", tokens, slots * self.scale)
