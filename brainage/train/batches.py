"""Which items each process sees, in which order."""

from __future__ import annotations

import torch
from lightning.fabric import Fabric

from brainage.config import TrainRecipe
from brainage.errors import ConfigError


def epoch_seed(recipe: TrainRecipe, epoch: int, rank: int = 0) -> int:
    """The seed of what is random in an epoch of one process."""
    return recipe.seed * 100_003 + epoch + rank * 1_000_000_007


def steps_per_epoch(num_items: int, recipe: TrainRecipe) -> int:
    """Optimiser steps of an epoch; the items that fill no whole batch wait for another epoch."""
    # A lone item left over would weigh as much as a whole batch.
    return max(1, num_items // recipe.batch_size)


def epoch_batches(num_items: int, recipe: TrainRecipe, epoch: int, fabric: Fabric) -> list[list[int]]:
    """This process's micro-batches of item indices.

    The items are shuffled by seed and epoch alone and cut into batches; a batch is cut into one share for
    each micro-batch and process. So the optimiser's steps see the same items on any number of devices.

    Raises:
        ConfigError: fewer items than shares of a batch.
    """
    generator = torch.Generator().manual_seed(epoch_seed(recipe, epoch))
    # torch's DataLoader draws a number before it shuffles; drawn here too, so that the orders of earlier
    # trainings can be repeated.
    torch.empty((), dtype=torch.int64).random_(generator=generator)
    order = torch.randperm(num_items, generator=generator).tolist()
    shares = fabric.world_size * recipe.accumulate
    share = min(recipe.batch_size, num_items) // shares
    if not share:
        rule = (
            f"must not exceed the {num_items} training items, of which every device and micro-batch needs one"
        )
        raise ConfigError("devices x num_nodes x accumulate", shares, rule)
    size = share * shares
    stride = size if num_items < recipe.batch_size else recipe.batch_size
    micro_batches = []
    for step in range(steps_per_epoch(num_items, recipe)):
        batch = order[step * stride : step * stride + size]
        for micro in range(recipe.accumulate):
            first = (micro * fabric.world_size + fabric.global_rank) * share
            micro_batches.append(batch[first : first + share])
    return micro_batches
