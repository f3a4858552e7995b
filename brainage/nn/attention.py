"""Multi-head self-attention that can also return its head-averaged attention matrix."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainage.errors import ConfigError


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, arXiv 1706.03762).

    Args:
        dim: width D.
        num_heads: number of heads, a divisor of ``dim``.

    Raises:
        ConfigError: if ``num_heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ConfigError("num_heads", num_heads, f"must divide dim ({dim})")
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def _heads(self, x_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, N, D / heads)."""
        split = self.query_key_value(x_BND).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind()
        return query, key, value

    def forward(self, x_BND: Tensor, present_BN: Tensor | None = None) -> Tensor:
        """Attention output (B, N, D), through the fused kernel, without an attention matrix in memory.

        Args:
            x_BND: tokens.
            present_BN: False for tokens that no other may read, such as padding; not for all of a sequence.
        """
        mask_B11N = None if present_BN is None else present_BN[:, None, None]
        attended = F.scaled_dot_product_attention(*self._heads(x_BND), attn_mask=mask_B11N)
        return self.output(attended.transpose(1, 2).flatten(2))

    def with_mean_attention(self, x_BND: Tensor, present_BN: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same output, and the attention averaged over heads (B, N, N), whose rows sum to 1.

        The explicit matrix serves both, so attention is computed once here too.
        """
        query, key, value = self._heads(x_BND)
        logits = query / math.sqrt(query.shape[-1]) @ key.mT
        if present_BN is not None:
            logits = logits.masked_fill(~present_BN[:, None, None], -torch.inf)
        weights = logits.softmax(dim=-1)
        attended = weights @ value
        # Divided after the sum: the gradient of mean() would divide every head's matrix.
        return self.output(attended.transpose(1, 2).flatten(2)), weights.sum(dim=1) / self.num_heads
