"""How evenly the experts of a model of images are loaded."""

from __future__ import annotations

import torch

from brainage.nn import RoutingRecord, expert_load
from brainage.nn.routing_stats import load_statistics
from brainage.vision_config import TransformerRecipe


def routing_rows(batches: list[list[RoutingRecord]], router: str) -> list[dict[str, float]]:
    """For each mixture layer the statistics of its load, and the share of tokens below the threshold.

    The load of a Soft MoE counts the weight that tokens give to its experts, of which none is chosen. A dense
    layer has none.

    Args:
        batches: records of the mixture layers, batch by batch.
        router: of the layers.
    """
    layers = []
    # Nothing is routed in a dense layer.
    for records in zip(*batches, strict=True) if router != "dense" else ():
        if router == "soft":
            load_E = torch.stack([record.gates_BNE.flatten(0, 1).sum(0) for record in records]).sum(0)
        else:
            load_E = torch.stack([expert_load(record) for record in records]).sum(0)
        below = torch.cat([record.fallback_BN.flatten() for record in records])
        layers.append(
            {**load_statistics(load_E.double().cpu()), "below_threshold": float(below.double().mean())}
        )
    return layers


def rows_by_block(batches: list[list[RoutingRecord]], recipe: TransformerRecipe) -> list[dict[str, float]]:
    """:func:`routing_rows`, each with the ``block`` that it is about, as ``moe_blocks`` counts them."""
    rows = routing_rows(batches, recipe.router)
    # Not strict: a dense model has blocks and no rows.
    return [{"block": block, **row} for block, row in zip(sorted(set(recipe.moe_blocks)), rows, strict=False)]
