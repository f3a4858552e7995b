"""Tokens and experts of a model from a parcellation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from brainage.anatomy.atlas import Atlas, load_atlas
from brainage.anatomy.grid import MODEL_GRID
from brainage.anatomy.regions import token_overlap
from brainage.config import BrainAgeRecipe
from brainage.errors import InputError
from brainage.models.brain_age import TokenLayout
from brainage.models.weights import TrainedModel

MIN_BRAIN = 0.05  # of a patch; tokens with less of the template's brain are never computed
MIN_SHARE = 0.1  # of a patch in a group of regions; with less, the group's expert is closed to the token


@dataclass(frozen=True, eq=False)
class Regions:
    """The R regions of the atlas, and the share of each of the N tokens' patches in them."""

    names: tuple[str, ...]
    groups: tuple[str, ...]
    hemispheres: tuple[str, ...]
    share_NR: Tensor


def lay_out(recipe: BrainAgeRecipe) -> tuple[TokenLayout, Regions]:
    """The tokens that hold brain, one regional expert for each group of the atlas, then the free experts.

    Raises:
        InputError: the atlas cannot be used.
        ConfigError: the patches do not tile the model grid.
    """
    atlas = load_atlas(recipe.atlas.path, recipe.atlas.table)
    overlap = token_overlap(atlas, recipe.model.patch, min_brain=MIN_BRAIN)
    index = np.flatnonzero(overlap.brain_T)
    share = overlap.group_share_TG[index]
    free = np.ones((len(index), recipe.model.free_experts), dtype=np.float32)
    layout = TokenLayout(
        index_N=torch.from_numpy(index),
        prior_NE=torch.from_numpy(np.concatenate([np.where(share < MIN_SHARE, 0, share), free], axis=1)),
        expert_names=(
            *overlap.group_names,
            *(f"free {number}" for number in range(1, recipe.model.free_experts + 1)),
        ),
        grid=MODEL_GRID.coarsen(recipe.model.patch).shape,
    )
    regions = Regions(
        names=overlap.region_names,
        groups=tuple(atlas.regions["group"]),
        hemispheres=tuple(atlas.regions["hemisphere"]),
        share_NR=torch.from_numpy(overlap.region_share_TR[index]),
    )
    return layout, regions


@lru_cache(maxsize=1)
def atlas_of(trained: TrainedModel) -> Atlas | None:
    """The atlas that a model was trained with; None if its file is gone or has changed since."""
    try:
        atlas = load_atlas(trained.recipe.atlas.path, trained.recipe.atlas.table)
    except InputError:
        return None
    if tuple(atlas.regions["name"]) != trained.region_names:
        return None
    share_TR = token_overlap(atlas, trained.recipe.model.patch).region_share_TR
    share_NR = share_TR[trained.model.index_N.cpu().numpy()]
    # The model's file holds them in half precision.
    return atlas if np.allclose(share_NR, trained.region_share_NR.numpy(), atol=2e-3) else None
