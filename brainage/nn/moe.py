"""The ERMoE layer: eigen-reparameterized experts, routed by alignment with their own bases."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from brainage.errors import ConfigError
from brainage.nn.experts import LowRankExperts, SharedBasisExperts
from brainage.nn.routers import Fallback, ThresholdTopK, aligned_energy_scores, eigenbasis_scores
from brainage.nn.routing import RoutingRecord
from brainage.nn.softmax_routing import LinearRouter, SoftmaxTopK
from brainage.nn.stiefel import Orthogonalization, check_routing_rank

Coupling = Literal["shared", "joint", "independent"]
COUPLINGS = ("shared", "joint", "independent")
Scores = Literal["eigenbasis", "aligned_energy", "learned"]
SCORES = ("eigenbasis", "aligned_energy", "learned")


class ERMoE(nn.Module):
    """Eigen-Reparameterized Mixture of Experts (arXiv 2511.10971), in place of a feed-forward sublayer.

    A token x with context c goes to the experts in whose basis the two align: by each expert's share in their
    alignment, or by the cosine ``cos(V_e^T x, V_e^T c)`` of the paper. There is no router weight besides the
    experts' own bases, and no balancing loss.

    Args:
        dim: width D.
        num_experts: number of experts E.
        rank: columns R of a routing basis, R < D, and E R <= D for ``shared`` and ``joint``.
        hidden_dim: hidden width H of one expert.
        top_k: experts per token K.
        threshold: T in [-1, 1); only experts that score above it are eligible.
        coupling: ``"shared"`` (full-rank experts in one D x D basis, each routing by its own block of it),
            ``"joint"`` (experts that see only their own block) or ``"independent"`` (separate bases).
        orthogonalization: ``"cayley"``, ``"qr"``, or the ablation ``"none"``, whose U and V are free.
        fallback: for tokens without an eligible expert, ``"best"`` expert alone or ``"skip"``.
        scores: ``"eigenbasis"``, the paper's cosine; ``"aligned_energy"``, which also weighs how much of
            token and context lies in a basis (:func:`~brainage.nn.routers.aligned_energy_scores`; better
            where experts can own subspaces, and loaded less evenly on images, docs/routers.md); or the
            ablation ``"learned"``: the same experts, chosen by
            learned linear logits, softmax and top-k with gates that sum to 1 (for ``top_k = 1`` the
            probability itself, or the logits would not learn). Then context, threshold and fallback have no
            part.

    Raises:
        ConfigError: naming field, value and rule.
    """

    def __init__(
        self,
        dim: int,
        num_experts: int,
        rank: int,
        hidden_dim: int,
        top_k: int = 2,
        threshold: float = 0.0,
        coupling: Coupling = "shared",
        orthogonalization: Orthogonalization = "cayley",
        fallback: Fallback = "best",
        scores: Scores = "eigenbasis",
    ) -> None:
        super().__init__()
        if coupling not in COUPLINGS:
            raise ConfigError("coupling", coupling, f"must be one of {COUPLINGS}")
        if scores not in SCORES:
            raise ConfigError("scores", scores, f"must be one of {SCORES}")
        if hidden_dim < 1:
            raise ConfigError("hidden_dim", hidden_dim, "must be at least 1")
        check_routing_rank(num_experts, dim, rank, orthogonal_blocks=coupling != "independent")
        # Checked in either case, so that a bad threshold is an error also where it has no part.
        by_threshold = ThresholdTopK(num_experts, top_k, threshold, fallback)
        self.uses_context = scores != "learned"
        self.score = aligned_energy_scores if scores == "aligned_energy" else eigenbasis_scores
        self.router = None if self.uses_context else LinearRouter(dim, num_experts)
        self.select: ThresholdTopK | SoftmaxTopK
        if self.uses_context:
            self.select = by_threshold
        else:
            self.select = SoftmaxTopK(num_experts, top_k, normalize_gates=top_k > 1)
        self.experts: SharedBasisExperts | LowRankExperts
        if coupling == "shared":
            self.experts = SharedBasisExperts(num_experts, dim, rank, hidden_dim, orthogonalization)
        else:
            self.experts = LowRankExperts(num_experts, dim, rank, hidden_dim, coupling, orthogonalization)

    def routing_bases(self) -> Tensor:
        """The experts' routing bases (E, D, R), orthonormal columns unless they are free."""
        return self.experts.routing_bases()

    def forward(
        self,
        x_BND: Tensor,
        context_BND: Tensor,
        prior_NE: Tensor | None = None,
        return_routing: bool = False,
    ) -> Tensor | tuple[Tensor, RoutingRecord]:
        """Route and transform tokens; the caller adds the residual.

        Args:
            x_BND: normalised tokens.
            context_BND: their contexts, for instance the mean attention applied to ``x_BND``.
            prior_NE: (N, E) or (B, N, E) in [0, 1]; 0 closes an expert to a token, a positive value weights
                its score (the exact rule is that of :class:`~brainage.nn.routers.ThresholdTopK`).
            return_routing: also return the :class:`RoutingRecord`.

        Returns:
            y_BND in the dtype of ``x_BND``, 0 for tokens that no expert takes; or (y_BND, record).

        Raises:
            ConfigError: if the shapes of tokens, contexts and prior do not fit together.
        """
        if context_BND.shape != x_BND.shape:
            raise ConfigError(
                "context_BND", tuple(context_BND.shape), f"must have x's shape {tuple(x_BND.shape)}"
            )
        batch, tokens, _ = x_BND.shape
        x_TD, context_TD = x_BND.flatten(0, 1), context_BND.flatten(0, 1)
        if self.router is None:
            coordinates, x_TER, context_TER = self.experts.project(x_TD, context_TD)
            scores_BNE = self.score(x_TER, context_TER).unflatten(0, (batch, tokens))
        else:
            coordinates, scores_BNE = self.experts.coordinates(x_TD), self.router(x_BND)
        record = self.select(scores_BNE, prior_NE)
        y_TD = self.experts(coordinates, record)
        y_BND = y_TD.to(x_BND.dtype).unflatten(0, (batch, tokens))
        return (y_BND, record) if return_routing else y_BND
