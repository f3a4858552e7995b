"""Which regions a token's patch covers.

T tokens, R regions, G groups of regions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brainage.anatomy.atlas import GROUPS, Atlas, built_in
from brainage.anatomy.grid import MODEL_GRID
from brainage.errors import ConfigError


@dataclass(frozen=True)
class TokenRegions:
    """Shares of each patch's volume, tokens in C order of the token grid.

    Attributes:
        brain_T: bool, the tokens whose patch holds brain of the template.
        region_share_TR: float32, share of the patch in each region.
        region_names: R names, as in the atlas's table.
        group_share_TG: float32, share of the patch in each group.
        group_names: G names; the built-in groups come first, in the order of ``GROUPS``.
    """

    brain_T: np.ndarray
    region_share_TR: np.ndarray
    region_names: tuple[str, ...]
    group_share_TG: np.ndarray
    group_names: tuple[str, ...]


def token_overlap(atlas: Atlas, patch: int = 8, min_brain: float = 0.02) -> TokenRegions:
    """Overlap of the patches of ``patch``^3 voxels with the atlas's regions and their groups.

    Args:
        atlas: labels on the model grid.
        patch: edge of a token's patch, voxels; divides 80 and 96.
        min_brain: least share of brain in a patch that counts as a brain token.

    Raises:
        ConfigError: ``patch`` does not tile the model grid.
    """
    if patch < 1 or any(size % patch for size in MODEL_GRID.shape):
        raise ConfigError("patch", patch, f"must divide each side of the model grid {MODEL_GRID.shape}")
    labels_TP = to_patches(atlas.labels, patch)
    tokens, voxels = labels_TP.shape
    size = max(int(atlas.regions["index"].max()), int(labels_TP.max())) + 1
    flat = labels_TP.astype(np.int64) + size * np.arange(tokens)[:, None]
    counts_TL = np.bincount(flat.ravel(), minlength=tokens * size).reshape(tokens, size)
    region_share_TR = (counts_TL[:, atlas.regions["index"].to_numpy()] / voxels).astype(np.float32)
    present = list(dict.fromkeys(atlas.regions["group"]))
    names = [group for group in GROUPS if group in present] + [g for g in present if g not in GROUPS]
    member_RG = (atlas.regions["group"].to_numpy()[:, None] == np.array(names)[None]).astype(np.float32)
    return TokenRegions(
        brain_T=to_patches(built_in().labels > 0, patch).mean(axis=1) >= min_brain,
        region_share_TR=region_share_TR,
        region_names=tuple(atlas.regions["name"]),
        group_share_TG=region_share_TR @ member_RG,
        group_names=tuple(names),
    )


def to_patches(volume: np.ndarray, patch: int) -> np.ndarray:
    """(X, Y, Z) -> (T, patch^3), tokens and voxels in C order."""
    x, y, z = (size // patch for size in volume.shape)
    blocks = volume.reshape(x, patch, y, patch, z, patch).transpose(0, 2, 4, 1, 3, 5)
    return blocks.reshape(x * y * z, patch**3)


def divide_tokens(share_NR: np.ndarray) -> np.ndarray:
    """How each token's contribution is divided among regions: (N, R + 1), rows sum to 1.

    By the volumes of the regions in its patch; the last column takes the tokens that hold no region.
    """
    total_N = share_NR.sum(1)
    unlabelled_N = (total_N <= 0).astype(share_NR.dtype)
    return np.column_stack([share_NR / np.where(total_N > 0, total_N, 1)[:, None], unlabelled_N])
