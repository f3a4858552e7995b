"""Image and text towers into one space (CLIP, arXiv 2103.00020), with mixtures of experts in either."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainage.errors import ConfigError
from brainage.models.image_encoder import Encoding, ImageEncoder, transformer_of
from brainage.nn import RoutingRecord
from brainage.retrieval_config import RetrievalRecipe, TextModelRecipe

PAD = 0
"""Token id that fills short captions up."""
HIGHEST_SCALE = 100.0


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Unit vectors of what was given to the encoder; None for what was not.

    Attributes:
        image_BD, text_BD: of length 1, so that their products are cosines.
        scale: inverse of the learned temperature, at most 100 as in CLIP.
        image_routing, text_routing: one record for each mixture block of the tower, in order. In the
            records of text, padding is computed by no expert.
    """

    image_BD: Tensor | None
    text_BD: Tensor | None
    scale: Tensor
    image_routing: list[RoutingRecord]
    text_routing: list[RoutingRecord]


class TextEncoder(nn.Module):
    """The package's transformer on token ids; a caption's vector is the mean of its own tokens.

    Padding is read by no token and computed by no expert, so a caption's vector does not depend on it. Only a
    Soft MoE sees it: the number of its slots is that of the whole length.

    Args:
        recipe: sizes and router.
        vocabulary: number of token ids V.
    """

    def __init__(self, recipe: TextModelRecipe, vocabulary: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.embed = nn.Embedding(vocabulary, recipe.dim)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.transformer = transformer_of(recipe, recipe.length)

    def forward(self, ids_BN: Tensor) -> Encoding:
        """Encode captions.

        Args:
            ids_BN: token ids (int64), filled up with ``PAD``; at least one other id in each row.

        Raises:
            ConfigError: for another length than the recipe's.
        """
        if ids_BN.shape[1:] != (self.recipe.length,):
            rule = f"must have the shape (batch, {self.recipe.length})"
            raise ConfigError("ids_BN", tuple(ids_BN.shape), rule)
        present_BN = ids_BN != PAD
        weight_BN1 = present_BN.unsqueeze(-1).to(self.embed.weight.dtype)
        prior_BNE = weight_BN1.expand(-1, -1, self.recipe.num_experts)
        hidden_BND, routing = self.transformer(self.embed(ids_BN), prior_BNE, True, present_BN)
        return Encoding((hidden_BND * weight_BN1).sum(1) / weight_BN1.sum(1).clamp(min=1), routing)


class DualEncoder(nn.Module):
    """Embeds images and captions in one space.

    Args:
        recipe: of both towers.
        vocabulary: number of token ids.
    """

    def __init__(self, recipe: RetrievalRecipe, vocabulary: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.image = ImageEncoder(recipe.image)
        self.text = TextEncoder(recipe.text, vocabulary)
        self.image_projection = nn.Linear(recipe.image.dim, recipe.embed_dim, bias=False)
        self.text_projection = nn.Linear(recipe.text.dim, recipe.embed_dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(recipe.temperature)))

    def forward(self, images_BCHW: Tensor | None = None, ids_BN: Tensor | None = None) -> Embeddings:
        """Embed images (in [0, 255]), token ids, or both.

        Raises:
            ConfigError: for images or captions of another size.
        """
        image_BD = text_BD = None
        image_routing: list[RoutingRecord] = []
        text_routing: list[RoutingRecord] = []
        if images_BCHW is not None:
            pooled_BD, image_routing = self.image(images_BCHW)
            image_BD = F.normalize(self.image_projection(pooled_BD).float(), dim=-1)
        if ids_BN is not None:
            pooled_BD, text_routing = self.text(ids_BN)
            text_BD = F.normalize(self.text_projection(pooled_BD).float(), dim=-1)
        scale = self.log_scale.exp().clamp(max=HIGHEST_SCALE)
        return Embeddings(image_BD, text_BD, scale, image_routing, text_routing)


def of_words(records: Sequence[RoutingRecord], ids_BN: Tensor) -> list[RoutingRecord]:
    """Records of text without its padding, all words in one sequence (1, W): what the figures should count.

    Padding is closed to every expert, so it would look like words that none is eligible for, and like words
    whose routing never changes.
    """
    present_BN = ids_BN != PAD
    return [
        replace(
            record,
            scores_BNE=record.scores_BNE[present_BN][None],
            experts_BNK=record.experts_BNK[present_BN][None],
            gates_BNK=record.gates_BNK[present_BN][None],
            eligible_BNE=record.eligible_BNE[present_BN][None],
            fallback_BN=record.fallback_BN[present_BN][None],
            open_BNE=None if record.open_BNE is None else record.open_BNE[present_BN][None],
        )
        for record in records
    ]
