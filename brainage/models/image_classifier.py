"""Image classification: the package's vision transformer between a patch embedding and a linear head."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainage.errors import ConfigError
from brainage.models.brain_age import SETTINGS
from brainage.nn import RoutingRecord, VisionTransformer
from brainage.vision_config import ImageModelRecipe


@dataclass(frozen=True, eq=False)
class Classification:
    """Logits (B, C) of the classes, and one routing record for each mixture block, in order."""

    logits_BC: Tensor
    routing: list[RoutingRecord]


def _mixture(recipe: ImageModelRecipe, num_tokens: int) -> dict[str, Any]:
    """Settings of the mixture blocks, for :func:`brainage.nn.make_moe`."""
    settings = {name: getattr(recipe, name) for name in SETTINGS[recipe.router]}
    if recipe.router == "soft":
        # As many slots as the others compute pairs of token and expert.
        settings["slots_per_expert"] = math.ceil(num_tokens * recipe.top_k / recipe.num_experts)
    if recipe.expert_hidden_dim is not None:
        settings["hidden_dim"] = recipe.expert_hidden_dim
    return {"router": recipe.router, "num_experts": recipe.num_experts, **settings}


class ImageClassifier(nn.Module):
    """A vision transformer (arXiv 2010.11929) from square images to classes.

    Args:
        recipe: sizes and router.
        num_classes: number of classes C.

    Raises:
        ConfigError: naming field, value and rule.
    """

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(self, recipe: ImageModelRecipe, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ConfigError("num_classes", num_classes, "must be at least 2")
        self.recipe = recipe
        patches = (recipe.image_size // recipe.patch) ** 2
        tokens = patches + (recipe.pooling == "cls")
        # Not stored: the recipe holds them.
        self.register_buffer("mean_C11", torch.tensor(recipe.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std_C11", torch.tensor(recipe.std).view(3, 1, 1), persistent=False)
        self.embed = nn.Linear(3 * recipe.patch**2, recipe.dim)
        self.class_token_D: nn.Parameter | None = None
        if recipe.pooling == "cls":
            self.class_token_D = nn.Parameter(nn.init.trunc_normal_(torch.empty(recipe.dim), std=0.02))
        self.transformer = VisionTransformer(
            tokens,
            recipe.dim,
            recipe.depth,
            recipe.num_heads,
            recipe.hidden_dim,
            recipe.moe_blocks,
            _mixture(recipe, tokens),
            recipe.context,
            recipe.drop_path,
            recipe.dropout,
        )
        self.head = nn.Linear(recipe.dim, num_classes)
        # All classes are equally likely at the start.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images_BCHW: Tensor) -> Classification:
        """Classify images.

        Args:
            images_BCHW: red, green and blue in [0, 255], of any dtype, at the model's size.

        Raises:
            ConfigError: for images of another shape.
        """
        size = self.recipe.image_size
        if images_BCHW.shape[1:] != (3, size, size):
            rule = f"must have the shape (batch, 3, {size}, {size})"
            raise ConfigError("images_BCHW", tuple(images_BCHW.shape), rule)
        normed_BCHW = (images_BCHW / 255 - self.mean_C11) / self.std_C11
        tokens_BND = self.embed(patches_of(normed_BCHW, self.recipe.patch))
        if self.class_token_D is not None:
            first = self.class_token_D.to(tokens_BND.dtype).expand(len(tokens_BND), 1, -1)
            tokens_BND = torch.cat((first, tokens_BND), dim=1)
        hidden_BND, routing = self.transformer(tokens_BND, return_routing=True)
        pooled_BD = hidden_BND.mean(dim=1) if self.class_token_D is None else hidden_BND[:, 0]
        return Classification(self.head(pooled_BD).float(), routing)


def patches_of(images_BCHW: Tensor, patch: int) -> Tensor:
    """Non-overlapping patches (B, N, C P P), row by row; within one channel by channel, then row by row."""
    return F.pixel_unshuffle(images_BCHW, patch).flatten(2).mT
