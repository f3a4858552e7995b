"""Which expert takes which patch of an image, and which classes go to which experts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from brainage.errors import ConfigError
from brainage.models.image_encoder import ImageEncoder
from brainage.nn import RoutingRecord


@torch.no_grad()
def expert_maps(encoder: ImageEncoder, pixels_NCHW: Tensor, layer: int = -1) -> np.ndarray:
    """The expert with the largest gate in each patch, (N, rows, columns) int64; -1 where none took it.

    Args:
        encoder: with at least one mixture block.
        pixels_NCHW: images in [0, 255] at the model's size.
        layer: of the mixture blocks, from 0; -1 is the last.

    Raises:
        ConfigError: there is no such mixture block, or none at all.
    """
    encoder.eval()
    records = encoder(pixels_NCHW).routing
    if encoder.recipe.router == "dense" or not -len(records) <= layer < len(records):
        count = 0 if encoder.recipe.router == "dense" else len(records)
        raise ConfigError("layer", layer, f"must be one of the {count} mixture blocks with experts")
    gates_BNE = _patches(records[layer], encoder).gates_BNE
    side = encoder.recipe.image_size // encoder.recipe.patch
    strongest = gates_BNE.max(dim=-1)
    chosen = torch.where(strongest.values > 0, strongest.indices, -1)
    return chosen.unflatten(1, (side, side)).cpu().numpy()


def experts_by_class(
    batches: Sequence[Sequence[RoutingRecord]], label_N: Tensor, num_classes: int
) -> list[np.ndarray]:
    """For each mixture layer the share of a class's gates that each expert takes, (C, E); rows sum to 1.

    Args:
        batches: records of the mixture layers, batch by batch.
        label_N: classes of the images of all batches, in order.
        num_classes: C.
    """
    tables = []
    for records in zip(*batches, strict=True):
        weight_NE = torch.cat([record.gates_BNE.sum(dim=1).double().cpu() for record in records])
        table = torch.zeros(num_classes, weight_NE.shape[1], dtype=torch.float64)
        table.index_add_(0, label_N, weight_NE)
        tables.append((table / table.sum(dim=1, keepdim=True).clamp(min=1e-12)).numpy())
    return tables


def _patches(record: RoutingRecord, encoder: ImageEncoder) -> RoutingRecord:
    """The record without the class token."""
    if encoder.class_token_D is None:
        return record
    return RoutingRecord(
        record.scores_BNE[:, 1:],
        record.experts_BNK[:, 1:],
        record.gates_BNK[:, 1:],
        record.eligible_BNE[:, 1:],
        record.fallback_BN[:, 1:],
    )
