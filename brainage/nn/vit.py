"""A pre-norm vision transformer on token sequences, with mixtures of experts in the blocks that ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from brainage.errors import ConfigError
from brainage.nn.attention import SelfAttention
from brainage.nn.registry import MoELayer, make_moe
from brainage.nn.routing import RoutingRecord

Context = Literal["attention_mean", "attention_output"]
CONTEXTS = ("attention_mean", "attention_output")


class FeedForward(nn.Sequential):
    """Dense two-layer feed-forward network with GELU, (..., D) to (..., D) through width H."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__(nn.Linear(dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, dim))


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training drops a residual branch for whole samples."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch_BND: Tensor) -> Tensor:
        """The branch, 0 for dropped samples and scaled by 1 / (1 - rate) for the others."""
        if not self.training or self.rate == 0:
            return branch_BND
        kept = branch_BND.new_empty(branch_BND.shape[0], 1, 1).bernoulli_(1 - self.rate)
        return branch_BND * (kept / (1 - self.rate))


class LayerScale(nn.Module):
    """Learned gain by channel on a residual branch (Touvron et al. 2021, arXiv 2103.17239).

    From a small start, a deep or untrained encoder hands its tokens on almost as they are.
    """

    def __init__(self, dim: int, start: float) -> None:
        super().__init__()
        self.gain_D = nn.Parameter(torch.full((dim,), start))

    def forward(self, branch_BND: Tensor) -> Tensor:
        """The branch, each channel times its gain."""
        return branch_BND * self.gain_D


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a dense feed-forward network or a mixture of experts.

    Args:
        dim: width D.
        num_heads: heads of the attention.
        feed_forward: the second sublayer. A :class:`MoELayer` is given its tokens' contexts.
        context: what an ERMoE compares a token with: ``"attention_mean"``, the head-averaged attention
            applied to the same normalised tokens that are routed, or ``"attention_output"``, the attention
            sublayer's output, which needs no explicit attention matrix.
        drop_path: rate of stochastic depth on both residual branches.
        dropout: dropout rate on the outputs of both sublayers.
        norm_eps: added to the variance in the layer norms.
        layer_scale: where the gains of both residual branches start, see :class:`LayerScale`; None for none.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        feed_forward: FeedForward | MoELayer,
        context: Context = "attention_mean",
        drop_path: float = 0.0,
        dropout: float = 0.0,
        norm_eps: float = 1e-5,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        if context not in CONTEXTS:
            raise ConfigError("context", context, f"must be one of {CONTEXTS}")
        self.context = context
        self.norm_attention = nn.LayerNorm(dim, norm_eps)
        self.attention = SelfAttention(dim, num_heads)
        self.norm_feed_forward = nn.LayerNorm(dim, norm_eps)
        self.feed_forward = feed_forward
        self.regularise = nn.Sequential(nn.Dropout(dropout), DropPath(drop_path))
        self.scale_attention, self.scale_feed_forward = (
            nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale) for _ in range(2)
        )

    def forward(
        self, x_BND: Tensor, prior_NE: Tensor | None = None, present_BN: Tensor | None = None
    ) -> tuple[Tensor, RoutingRecord | None]:
        """The transformed tokens, and the routing record of a mixture (None in a dense block)."""
        feed_forward = self.feed_forward
        mean_attention_BNN = None
        normed_BND = self.norm_attention(x_BND)
        compared = not isinstance(feed_forward, FeedForward) and feed_forward.uses_context
        if compared and self.context == "attention_mean":
            attended_BND, mean_attention_BNN = self.attention.with_mean_attention(normed_BND, present_BN)
        else:
            attended_BND = self.attention(normed_BND, present_BN)
        x_BND = x_BND + self.regularise(self.scale_attention(attended_BND))

        normed_BND = self.norm_feed_forward(x_BND)
        if isinstance(feed_forward, FeedForward):
            return x_BND + self.regularise(self.scale_feed_forward(feed_forward(normed_BND))), None
        context_BND = attended_BND if mean_attention_BNN is None else mean_attention_BNN @ normed_BND
        y_BND, record = feed_forward(normed_BND, context_BND, prior_NE, return_routing=True)
        return x_BND + self.regularise(self.scale_feed_forward(y_BND)), record


class VisionTransformer(nn.Module):
    """Vision transformer (arXiv 2010.11929) on token embeddings, without patch embedding or head.

    Args:
        num_tokens: length N of the sequence, for the learned position embedding (N, D).
        dim: width D.
        depth: number of blocks.
        num_heads: heads of each attention.
        hidden_dim: hidden width of the dense blocks, and of an expert unless ``moe`` says otherwise.
        moe_blocks: indices of the blocks that hold a mixture, from 0 to ``depth - 1``.
        moe: the mixture: ``router``, a name known to :func:`~brainage.nn.registry.make_moe` (``"ermoe"``
            where it is not given), ``num_experts``, and the other settings of that layer without ``dim``.
        context: see :class:`Block`.
        drop_path: stochastic depth of the last block; it grows linearly from 0 at the first.
        dropout: dropout on the sum of tokens and positions, and on the sublayers' outputs.
        norm_eps: added to the variance in every layer norm.
        layer_scale: see :class:`Block`.

    Raises:
        ConfigError: naming field, value and rule.
    """

    def __init__(
        self,
        num_tokens: int,
        dim: int,
        depth: int,
        num_heads: int,
        hidden_dim: int,
        moe_blocks: Sequence[int] = (),
        moe: Mapping[str, Any] | None = None,
        context: Context = "attention_mean",
        drop_path: float = 0.0,
        dropout: float = 0.0,
        norm_eps: float = 1e-5,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        if any(not 0 <= index < depth for index in moe_blocks):
            raise ConfigError(
                "moe_blocks", tuple(moe_blocks), f"must lie between 0 and depth - 1 ({depth - 1})"
            )
        if moe_blocks and "num_experts" not in (moe or {}):
            raise ConfigError("moe", moe, "must give at least num_experts when moe_blocks names a block")
        for name, rate in (("drop_path", drop_path), ("dropout", dropout)):
            if not 0 <= rate < 1:
                raise ConfigError(name, rate, "must lie in [0, 1)")
        settings = {"router": "ermoe", "hidden_dim": hidden_dim, **(moe or {})}
        self.position_ND = nn.Parameter(nn.init.trunc_normal_(torch.empty(num_tokens, dim), std=0.02))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                dim,
                num_heads,
                make_moe(dim=dim, **settings) if index in moe_blocks else FeedForward(dim, hidden_dim),
                context,
                drop_path * index / max(depth - 1, 1),
                dropout,
                norm_eps,
                layer_scale,
            )
            for index in range(depth)
        )
        self.norm = nn.LayerNorm(dim, norm_eps)

    def forward(
        self,
        tokens_BND: Tensor,
        prior_NE: Tensor | None = None,
        return_routing: bool = False,
        present_BN: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, list[RoutingRecord]]:
        """Encode tokens.

        Args:
            tokens_BND: token embeddings, N as given at construction.
            prior_NE: prior of tokens on experts, handed to every mixture (see :class:`MoELayer`).
            return_routing: also return the routing records.
            present_BN: False for padding, which no other token reads. A prior (B, N, E) of 0 also keeps it
                from the experts; what is returned at its place means nothing.

        Returns:
            Tokens (B, N, D) after the final norm; or these and one record for each MoE block, in order.

        Raises:
            ConfigError: if the shapes of tokens or prior do not fit.
        """
        if tokens_BND.shape[1:] != self.position_ND.shape:
            rule = f"must have the shape (batch, {', '.join(map(str, self.position_ND.shape))})"
            raise ConfigError("tokens_BND", tuple(tokens_BND.shape), rule)
        x_BND = self.dropout(tokens_BND + self.position_ND)
        records = []
        for block in self.blocks:
            x_BND, record = block(x_BND, prior_NE, present_BN)
            if record is not None:
                records.append(record)
        tokens = self.norm(x_BND)
        return (tokens, records) if return_routing else tokens
