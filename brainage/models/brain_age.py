"""ERMoE-ba: brain age from the tokens of a T1 volume, as a sum of the tokens' contributions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from brainage.config import ModelRecipe
from brainage.errors import ConfigError
from brainage.nn import RoutingRecord, VisionTransformer
from brainage.vision_config import TransformerRecipe

# What each router takes from the recipe.
SETTINGS = {
    "ermoe": ("rank", "top_k", "threshold", "coupling", "orthogonalization", "scores", "fallback"),
    "emoe": ("rank", "top_k", "orthogonalization"),
    "vmoe": ("top_k",),
    "cosine": ("top_k",),
    "soft": (),
    "dense": ("top_k",),
}


@dataclass(frozen=True)
class TokenLayout:
    """Which patches of the model grid are tokens, and which experts each may use.

    Attributes:
        index_N: positions of the N tokens among the patches of the grid, in C order (int64).
        prior_NE: share of each token's patch in the region group of each regional expert, followed by ones
            for the free experts; float32 in [0, 1].
        expert_names: E names, regional experts first.
        grid: patches along x, y and z.
    """

    index_N: Tensor
    prior_NE: Tensor
    expert_names: tuple[str, ...]
    grid: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class BrainAgeOutput:
    """A prediction with what it is made of.

    Attributes:
        age_B: years.
        contributions_BN: years by token; each row sums to ``age_B - baseline``.
        baseline: years, the same for every scan.
        routing: one record for each mixture block, in order.
    """

    age_B: Tensor
    contributions_BN: Tensor
    baseline: float
    routing: list[RoutingRecord]


def mixture_of(recipe: ModelRecipe | TransformerRecipe, num_tokens: int, num_experts: int) -> dict[str, Any]:
    """Settings of the mixture blocks, for :func:`brainage.nn.make_moe`."""
    settings: dict[str, Any] = {name: getattr(recipe, name) for name in SETTINGS[recipe.router]}
    settings |= recipe.router_settings.given() if recipe.router_settings else {}
    if recipe.router == "soft":
        # As many slots as the others compute pairs of token and expert.
        settings["slots_per_expert"] = math.ceil(num_tokens * recipe.top_k / num_experts)
    return {"router": recipe.router, "num_experts": num_experts, **settings}


class HistogramStem(nn.Module):
    """Token embeddings from the tissue shares in a patch.

    A patch is described by the soft intensity histogram of the whole, or of each of the ``cells`` ** 3 blocks
    that it is cut into: a voxel is shared linearly between the two nearest of ``bins`` intensities. On
    normalised volumes that is the share of fluid, of grey and of white matter and of their mixtures, which is
    what age changes. Square roots of the shares are embedded (the Hellinger transform, which gives histograms
    unit length), so that rare tissue counts for more. A gain by position lets the same tissue mean different
    things in different places, as it does in a voxelwise regression.

    Args:
        num_tokens: N.
        dim: width D.
        cells: blocks along an edge of the patch, which it divides.
        bins: intensities, evenly spaced over [0, ``CEILING``].
    """

    CEILING = 1.25

    def __init__(self, num_tokens: int, dim: int, cells: int = 1, bins: int = 10) -> None:
        super().__init__()
        self.cells, self.bins = cells, bins
        self.embed = nn.Linear(cells**3 * bins, dim)
        self.norm = nn.LayerNorm(dim)
        self.gain_ND = nn.Parameter(torch.ones(num_tokens, dim))

    def histograms(self, patches_BNXYZ: Tensor) -> Tensor:
        """Soft histograms (B, N, cells ** 3 * bins) of patches (B, N, P, P, P), each summing to 1."""
        edge = (self.cells, patches_BNXYZ.shape[2] // self.cells)
        blocks = patches_BNXYZ.unflatten(4, edge).unflatten(3, edge).unflatten(2, edge)
        voxels = blocks.permute(0, 1, 2, 4, 6, 3, 5, 7).flatten(5).flatten(2, 4)
        position = voxels.float().clamp(0, self.CEILING) * ((self.bins - 1) / self.CEILING)
        shares = [(1 - (position - centre).abs()).clamp_min_(0).mean(-1) for centre in range(self.bins)]
        return torch.stack(shares, -1).flatten(2)

    def forward(self, histograms_BNF: Tensor) -> Tensor:
        """Embeddings (B, N, D) of histograms (B, N, F)."""
        # Kept from 0, where the root has no gradient.
        return self.norm(self.embed(histograms_BNF.clamp_min(1e-6).sqrt())) * self.gain_ND


def token_distances(histograms: Tensor, mean_NF: Tensor, std_NF: Tensor) -> Tensor:
    """Root mean square z-scores (..., N) of tissue histograms (..., N, F) against the training scans'."""
    return ((histograms - mean_NF) / std_NF).square().mean(-1).sqrt()


def scan_distance(distances: Tensor) -> Tensor:
    """Root mean square z-scores (...) of whole scans, from their tokens' (..., N)."""
    return distances.square().mean(-1).sqrt()


class AdditiveHead(nn.Module):
    """One number a token: ``w_n . h_n + c_n``, with weights of each position's own.

    Weights by position make the head of an untrained encoder a voxelwise regression, from which training
    starts (see ``brainage.train.probe``). The offsets c_n are set so that every token gives 0 on average over
    the training scans: what a token gives is its difference from the average subject.
    """

    def __init__(self, num_tokens: int, dim: int) -> None:
        super().__init__()
        self.weight_ND = nn.Parameter(torch.zeros(num_tokens, dim))
        self.bias_N = nn.Parameter(torch.zeros(num_tokens))

    def forward(self, hidden_BND: Tensor) -> Tensor:
        """(B, N) in float32 whatever the autocast, since the tokens' values have to sum to the age."""
        with torch.autocast(hidden_BND.device.type, enabled=False):
            return torch.einsum("bnd,nd->bn", hidden_BND.float(), self.weight_ND) + self.bias_N


class BrainAgeModel(nn.Module):
    """3-D vision transformer with ERMoE blocks and an additive head.

    ``age = baseline + mean over tokens of scale * (w_n . LN(h_n) + c_n)``: the baseline is the predicted age
    of the average training subject, so the contributions of tokens, and of the regions they lie in, sum
    exactly to what is predicted above or below it.

    Args:
        recipe: sizes and routing.
        layout: tokens and their prior over experts.
        mean_age, std_age: of the training subjects, years.

    Raises:
        ConfigError: naming field, value and rule.
    """

    index_N: Tensor
    prior_NE: Tensor
    baseline: Tensor
    scale: Tensor

    def __init__(self, recipe: ModelRecipe, layout: TokenLayout, mean_age: float, std_age: float) -> None:
        super().__init__()
        if recipe.patch % recipe.cells:
            raise ConfigError("cells", recipe.cells, f"must divide patch ({recipe.patch})")
        self.recipe, self.grid, self.expert_names = recipe, layout.grid, layout.expert_names
        self.register_buffer("index_N", layout.index_N)
        self.register_buffer("prior_NE", layout.prior_NE)
        self.register_buffer("baseline", torch.tensor(float(mean_age)))
        self.register_buffer("scale", torch.tensor(float(std_age)))
        self.stem = HistogramStem(len(layout.index_N), recipe.dim, recipe.cells)
        self.encoder = VisionTransformer(
            num_tokens=len(layout.index_N),
            dim=recipe.dim,
            depth=recipe.depth,
            num_heads=recipe.num_heads,
            hidden_dim=recipe.hidden_dim,
            moe_blocks=recipe.moe_blocks,
            moe=mixture_of(recipe, len(layout.index_N), len(layout.expert_names)),
            context=recipe.context,
            drop_path=recipe.drop_path,
            dropout=recipe.dropout,
            layer_scale=recipe.layer_scale,
        )
        self.head = AdditiveHead(len(layout.index_N), recipe.dim)

    @property
    def routed_names(self) -> tuple[str, ...]:
        """Names of the experts in the routing records; the dense control is one network for all."""
        return ("dense",) if self.recipe.router == "dense" else self.expert_names

    def patches(self, volume_B1XYZ: Tensor) -> Tensor:
        """The tokens' voxels (B, N, P, P, P) of volumes (B, 1, X, Y, Z) on the model grid."""
        size = self.recipe.patch
        x, y, z = self.grid
        if volume_B1XYZ.shape[1:] != (1, x * size, y * size, z * size):
            expected = (1, x * size, y * size, z * size)
            raise ConfigError("volume_B1XYZ", tuple(volume_B1XYZ.shape), f"must be (batch, *{expected})")
        blocks = volume_B1XYZ[:, 0].unflatten(3, (z, size)).unflatten(2, (y, size)).unflatten(1, (x, size))
        # (B, x, P, y, P, z, P) -> (B, x y z, P, P, P), then the tokens among them.
        return blocks.permute(0, 1, 3, 5, 2, 4, 6).flatten(1, 3)[:, self.index_N]

    def prior(self) -> Tensor | None:
        """The prior over experts (N, E) as the recipe wants it used."""
        if self.recipe.prior == "none":
            return None
        return (self.prior_NE > 0).float() if self.recipe.prior == "hard" else self.prior_NE

    def encode(self, volume_B1XYZ: Tensor) -> tuple[Tensor, list[RoutingRecord]]:
        """Encoded tokens (B, N, D) after the final norm, and the routing of each mixture block."""
        return self._encode_histograms(self.histograms(volume_B1XYZ))

    def histograms(self, volume_B1XYZ: Tensor) -> Tensor:
        """All that the model sees of volumes: the tokens' tissue histograms (B, N, F)."""
        return self.stem.histograms(self.patches(volume_B1XYZ))

    def forward(self, volume_B1XYZ: Tensor) -> BrainAgeOutput:
        """Predict from normalised volumes (B, 1, X, Y, Z) on the model grid."""
        return self.from_histograms(self.histograms(volume_B1XYZ))

    def from_histograms(self, histograms_BNF: Tensor) -> BrainAgeOutput:
        """Predict from what :meth:`histograms` gives, or from what it was replaced by."""
        hidden_BND, routing = self._encode_histograms(histograms_BNF)
        values_BN = self.head(hidden_BND)
        contributions_BN = self.scale * values_BN / values_BN.shape[1]
        age_B = self.baseline + contributions_BN.sum(1)
        return BrainAgeOutput(age_B, contributions_BN, float(self.baseline), routing)

    def _encode_histograms(self, histograms_BNF: Tensor) -> tuple[Tensor, list[RoutingRecord]]:
        return self.encoder(self.stem(histograms_BNF), self.prior(), return_routing=True)
