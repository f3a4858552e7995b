"""Weights of published vision transformers (timm's and Hugging Face's names) in this package's.

The networks of blocks that are mixtures here become their experts ("upcycling", arXiv 2212.05055):
those of an ERMoE by singular value decomposition, see :mod:`brainage.nn.pretrained`; those of a router with
ordinary experts by copying. Router and head stay as they began where the file has none.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from brainage.errors import CheckpointError, ConfigError
from brainage.models.image_encoder import ImageEncoder, PatchStem
from brainage.nn import ERMoE, load_dense_weights
from brainage.nn.dense_experts import DenseExperts
from brainage.nn.vit import Block, FeedForward

EXPECTED = "a ViT or DeiT with timm's or Hugging Face's names of weights"
REMEDY = "give such a model.safetensors"

# Hugging Face's names to timm's.
_RENAMED = (
    (r"^(vit|deit|model)\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
)
_OURS = (
    (r"^cls_token$", "class_token_D"),
    (r"^pos_embed$", "transformer.position_ND"),
    (r"^patch_embed\.proj\.", "embed."),
    (r"^blocks\.", "transformer.blocks."),
    (r"\.attn\.qkv\.", ".attention.query_key_value."),
    (r"\.attn\.proj\.", ".attention.output."),
    (r"\.mlp\.fc1\.", ".feed_forward.0."),
    (r"\.mlp\.fc2\.", ".feed_forward.2."),
    (r"\.norm1\.", ".norm_attention."),
    (r"\.norm2\.", ".norm_feed_forward."),
    (r"^norm\.", "transformer.norm."),
)


@dataclass(frozen=True, eq=False)
class Loaded:
    """What became of a file's weights.

    Attributes:
        resampled: grid of positions in the file, where it differs from the model's.
        head: weight and bias of the file's classifier, (C, D) and (C,); None where it has none.
        upcycled: for each mixture block the largest relative error of its experts' weights.
        unused: names in the file that the model has no place for.
    """

    resampled: tuple[int, int] | None = None
    head: tuple[Tensor, Tensor] | None = None
    upcycled: dict[int, float] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


@torch.no_grad()
def load_published(encoder: ImageEncoder, path: str | PathLike[str]) -> Loaded:
    """Give an encoder the weights of a published vision transformer. Reading the file runs no code.

    A model that pools by the mean leaves the file's class token out; its positions are those of the patches.

    Args:
        encoder: of the sizes of the file, with the stem ``patch``; its image size may differ, positions are
            then resampled (bicubic; smoothed before where the grid shrinks).
        path: safetensors file.

    Raises:
        CheckpointError: no such file, or none of a vision transformer.
        ConfigError: the recipe's sizes are not the file's.
    """
    path = Path(path)
    weights = _read(path)
    head = weights.pop("head.weight", None), weights.pop("head.bias", None)
    _check_sizes(encoder, weights, path)
    recipe = encoder.recipe
    resampled = None
    if recipe.pooling == "mean":
        weights.pop("cls_token", None)
    else:
        weights["cls_token"] = weights["cls_token"].flatten()
    position_ND, old, new = _positions(weights["pos_embed"], recipe.image_size // recipe.patch, path)
    if old != new:
        resampled = (old, old)
    weights["pos_embed"] = position_ND if recipe.pooling == "cls" else position_ND[1:]
    weights["patch_embed.proj.weight"] = weights["patch_embed.proj.weight"].flatten(1)

    upcycled = {}
    for index in recipe.moe_blocks:
        parts = [weights.pop(f"blocks.{index}.mlp.{name}") for name in _MLP]
        block = cast(Block, encoder.transformer.blocks[index])
        upcycled[index] = _upcycle(cast(nn.Module, block.feed_forward), parts, index)
    ours = {_renamed(name, _OURS): value for name, value in weights.items()}
    places = dict(encoder.named_parameters())
    unused = tuple(sorted(set(ours) - set(places)))
    for name, value in ours.items():
        if name in places:
            places[name].copy_(value)
    known = cast(tuple[Tensor, Tensor], head) if all(part is not None for part in head) else None
    return Loaded(resampled, known, upcycled, unused)


_MLP = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")


def _read(path: Path) -> dict[str, Tensor]:
    """Weights by timm's names, queries, keys and values together."""
    if not path.is_file():
        raise CheckpointError(path, "no such file", EXPECTED, REMEDY)
    try:
        raw = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(path, "no safetensors file, or a damaged one", EXPECTED, REMEDY) from error
    weights = {_renamed(name, _RENAMED): value.float() for name, value in raw.items()}
    if "dist_token" in weights:
        raise CheckpointError(path, "a distilled DeiT with two class tokens", EXPECTED, "give the plain one")
    if "blocks.0.norm1.weight" not in weights or "pos_embed" not in weights:
        raise CheckpointError(path, "other weights", EXPECTED, REMEDY)
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    for index in range(depth):
        for kind in ("weight", "bias"):
            parts = [
                weights.pop(f"blocks.{index}.attn.{name}.{kind}", None) for name in ("query", "key", "value")
            ]
            if all(part is not None for part in parts):
                weights[f"blocks.{index}.attn.qkv.{kind}"] = torch.cat(cast(list[Tensor], parts))
    needed = [f"blocks.{index}.{name}" for index in range(depth) for name in _BLOCK]
    needed += ["cls_token", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias"]
    missing = [name for name in needed if name not in weights]
    if missing:
        raise CheckpointError(path, f"no weight {missing[0]}", EXPECTED, REMEDY)
    return weights


_BLOCK = tuple(
    f"{part}.{kind}"
    for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    for kind in ("weight", "bias")
)


def _check_sizes(encoder: ImageEncoder, weights: dict[str, Tensor], path: Path) -> None:
    recipe = encoder.recipe
    if not isinstance(encoder.embed, PatchStem):
        raise ConfigError("stem", recipe.stem, f"must be patch to take the weights of {path.name}")
    dim, _, patch, _ = weights["patch_embed.proj.weight"].shape
    found = {
        "dim": dim,
        "patch": patch,
        "depth": 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks.")),
        "hidden_dim": len(weights["blocks.0.mlp.fc1.bias"]),
    }
    for name, value in found.items():
        if getattr(recipe, name) != value:
            raise ConfigError(name, getattr(recipe, name), f"must be {value}, as in {path.name}")


def _positions(position_1ND: Tensor, grid: int, path: Path) -> tuple[Tensor, int, int]:
    """Positions of class token and patches on the model's grid, (1 + grid^2, D), and both grids."""
    first_1D, patches_ND = position_1ND[0, :1], position_1ND[0, 1:]
    old = math.isqrt(len(patches_ND))
    if old**2 != len(patches_ND):
        raise CheckpointError(path, f"{len(patches_ND)} positions, no square", EXPECTED, REMEDY)
    return torch.cat((first_1D, resample_positions(patches_ND, grid))), old, grid


def resample_positions(patches_ND: Tensor, grid: int) -> Tensor:
    """Positions of a square of patches, row by row, for one of ``grid`` x ``grid`` patches (bicubic)."""
    old = math.isqrt(len(patches_ND))
    if old == grid:
        return patches_ND
    square = patches_ND.T.reshape(1, -1, old, old)
    # As timm where the grid shrinks; enlarged, antialiasing would only swap the bicubic kernel.
    square = F.interpolate(square, (grid, grid), mode="bicubic", antialias=grid < old)
    return square.flatten(2)[0].T


def _upcycle(layer: nn.Module, parts: list[Tensor], index: int) -> float:
    first_HD, first_bias_H, second_DH, second_bias_D = parts
    if isinstance(layer, ERMoE):
        errors = load_dense_weights(layer, first_HD, first_bias_H, second_DH, second_bias_D)
        return float(torch.stack(errors).max())
    experts = getattr(layer, "experts", None)
    if isinstance(layer, FeedForward) or not isinstance(experts, DenseExperts):
        raise ConfigError(
            "router", type(layer).__name__, f"has no experts to make of the network of block {index}"
        )
    if experts.bias_EH.shape[1] != len(first_bias_H):
        rule = f"must be {len(first_bias_H)}, the width of the file's networks"
        raise ConfigError("expert_hidden_dim", experts.bias_EH.shape[1], rule)
    for held, given in zip(
        (experts.first_EHD, experts.bias_EH, experts.second_EDH, experts.bias_ED), parts, strict=True
    ):
        held.copy_(given.expand_as(held))
    return 0.0


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
