"""The router of EMoE: how a token's energy spreads over the directions of one shared orthonormal basis."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from brainage.errors import ConfigError
from brainage.nn.stiefel import Orthogonalization, OrthonormalFrames


class EnergyRouter(nn.Module):
    """Logits from the energy of a token along a shared eigenbasis (EMoE, arXiv 2601.12137).

    With Q (D, R) orthonormal and learned, ``e_r = (q_r . x)^2 / sum_s (q_s . x)^2`` is the share of the
    token's energy along component r. Expert e weights it by its mask ``m_er``, a softmax over the *experts*
    of learned numbers, so that every component is divided among them: ``logit_e = (sum_r m_er g_r e_r + b_e)
    / tau`` with a learned gain ``g_r``, 1 at the start, and a bias ``b_e``, 0 at the start.

    Read off the authors' published code (github.com/Belis0811/EMoE), with two differences: Q is orthonormal
    exactly, at every step, where they add a penalty and a QR step, so there is no orthogonality loss; and
    the experts are feed-forward networks like those of the other routers here, not adapters beside a frozen
    one. A token of norm 0 has no energy and goes by the biases alone.

    Args:
        dim: width D.
        num_experts: number of experts E.
        rank: components R <= D. Unlike ERMoE's, this router is not blind for R = D: it compares components.
        temperature: tau, positive.
        orthogonalization: ``"cayley"`` or ``"qr"``.

    Raises:
        ConfigError: if ``rank`` is not between 1 and D, or ``temperature`` not positive.
    """

    def __init__(
        self,
        dim: int,
        num_experts: int,
        rank: int,
        temperature: float = 1.0,
        orthogonalization: Orthogonalization = "cayley",
    ) -> None:
        super().__init__()
        if not 1 <= rank <= dim:
            raise ConfigError("rank", rank, f"must be between 1 and dim ({dim})")
        if not temperature > 0:
            raise ConfigError("temperature", temperature, "must be positive")
        self.temperature = temperature
        self.basis = OrthonormalFrames(1, dim, rank, orthogonalization)
        self.mask_ER = nn.Parameter(torch.randn(num_experts, rank))
        self.gain_R = nn.Parameter(torch.ones(rank))
        self.bias_E = nn.Parameter(torch.zeros(num_experts))

    def forward(self, x_BND: Tensor) -> Tensor:
        """Logits (B, N, E)."""
        with torch.autocast(x_BND.device.type, enabled=False):
            energy_BNR = (x_BND.to(self.mask_ER.dtype) @ self.basis()[0]).square()
            total_BN1 = energy_BNR.sum(dim=-1, keepdim=True)
            share_BNR = energy_BNR / total_BN1.clamp(min=torch.finfo(total_BN1.dtype).tiny)
            masks_ER = self.mask_ER.softmax(dim=0) * self.gain_R
            return (share_BNR @ masks_ER.T + self.bias_E) / self.temperature
