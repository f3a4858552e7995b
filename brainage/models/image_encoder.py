"""From square images to one vector each: the package's vision transformer behind a patch embedding."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainage.errors import ConfigError
from brainage.models.brain_age import mixture_of
from brainage.nn import RoutingRecord, VisionTransformer
from brainage.vision_config import ImageModelRecipe, TransformerRecipe


class Encoding(NamedTuple):
    """Vectors (B, D) of images or texts, and one routing record for each mixture block, in order."""

    pooled_BD: Tensor
    routing: list[RoutingRecord]


def transformer_of(recipe: TransformerRecipe, num_tokens: int) -> VisionTransformer:
    """The transformer of a recipe, for sequences of ``num_tokens``."""
    mixture = mixture_of(recipe, num_tokens, recipe.num_experts)
    if recipe.expert_hidden_dim is not None:
        mixture["hidden_dim"] = recipe.expert_hidden_dim
    return VisionTransformer(
        num_tokens,
        recipe.dim,
        recipe.depth,
        recipe.num_heads,
        recipe.hidden_dim,
        recipe.moe_blocks,
        mixture,
        recipe.context,
        recipe.drop_path,
        recipe.dropout,
        recipe.norm_eps,
        recipe.layer_scale,
    )


class PatchStem(nn.Linear):
    """Tokens (B, N, D) as one linear map of each patch."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__(3 * patch**2, dim)
        self.patch = patch

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Tokens of normalised images, row by row."""
        return super().forward(patches_of(images_BCHW, self.patch))


class ConvStem(nn.Sequential):
    """Tokens (B, N, D) through overlapping convolutions of stride 2 (arXiv 2106.14881).

    Channels and tokens are normalised over the batch, as there. Normalised over each image apart they keep a
    part that is the same in all images: a third of the tokens, and 88 % of their mean behind an untrained
    transformer, which then learns very slowly (docs/images.md). In training each device takes the statistics
    of its own share of a batch; for prediction the first device's running ones are kept.
    """

    def __init__(self, patch: int, dim: int) -> None:
        stages = patch.bit_length() - 1
        widths = [3, *(max(8, dim >> (stages - 1 - stage)) for stage in range(stages))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.GELU()]
        super().__init__(*layers, nn.Conv2d(widths[-1], dim, 1, bias=False), nn.BatchNorm2d(dim))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Tokens of normalised images, row by row."""
        tokens_BDHW: Tensor = super().forward(images_BCHW)
        return tokens_BDHW.flatten(2).mT


class ImageEncoder(nn.Module):
    """A vision transformer (arXiv 2010.11929) from square images to vectors.

    Args:
        recipe: sizes and router.

    Raises:
        ConfigError: naming field, value and rule.
    """

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(self, recipe: ImageModelRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        patches = (recipe.image_size // recipe.patch) ** 2
        # Not stored: the recipe holds them.
        self.register_buffer("mean_C11", torch.tensor(recipe.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std_C11", torch.tensor(recipe.std).view(3, 1, 1), persistent=False)
        stem = ConvStem if recipe.stem == "conv" else PatchStem
        self.embed = stem(recipe.patch, recipe.dim)
        self.class_token_D: nn.Parameter | None = None
        if recipe.pooling == "cls":
            self.class_token_D = nn.Parameter(nn.init.trunc_normal_(torch.empty(recipe.dim), std=0.02))
        self.transformer = transformer_of(recipe, patches + (recipe.pooling == "cls"))
        self.pooled_norm = nn.BatchNorm1d(recipe.dim, affine=False) if recipe.pooled_norm else nn.Identity()

    def forward(self, images_BCHW: Tensor) -> Encoding:
        """Encode images.

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
        tokens_BND = self.embed(normed_BCHW)
        if self.class_token_D is not None:
            first = self.class_token_D.to(tokens_BND.dtype).expand(len(tokens_BND), 1, -1)
            tokens_BND = torch.cat((first, tokens_BND), dim=1)
        hidden_BND, routing = self.transformer(tokens_BND, return_routing=True)
        pooled_BD = hidden_BND.mean(dim=1) if self.class_token_D is None else hidden_BND[:, 0]
        return Encoding(self.pooled_norm(pooled_BD), routing)


def patches_of(images_BCHW: Tensor, patch: int) -> Tensor:
    """Non-overlapping patches (B, N, C P P), row by row; within one channel by channel, then row by row."""
    return F.pixel_unshuffle(images_BCHW, patch).flatten(2).mT
