"""Processes and devices of a training."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard

from brainage.config import TrainRecipe
from brainage.errors import ConfigError
from brainage.nn.vit import Block

logger = logging.getLogger("brainage")


def start_fabric(recipe: TrainRecipe) -> Fabric:
    """The processes that the recipe asks for, started and connected; only the first one keeps logging.

    On one node without a launcher, this program is started once more for every further device. Under
    ``torchrun`` and SLURM's ``srun`` the processes are there already and are only connected.

    Raises:
        ConfigError: the machine lacks the devices.
    """
    world = recipe.devices * recipe.num_nodes
    strategy: Any = recipe.strategy
    if strategy == "fsdp":
        strategy = ModelParallelStrategy(shard, data_parallel_size=world, tensor_parallel_size=1)
    try:
        fabric = Fabric(
            accelerator=recipe.accelerator,
            strategy=strategy,
            devices=recipe.devices,
            num_nodes=recipe.num_nodes,
            precision=recipe.precision,
        )
    except (RuntimeError, ValueError) as error:
        # Fabric's exceptions for a device that is not there.
        raise ConfigError("devices", recipe.devices, f"cannot be used here: {error}") from error
    fabric.launch()
    if not fabric.is_global_zero:
        logger.setLevel(logging.ERROR)
    return fabric


def shard(module: nn.Module, mesh: Any) -> nn.Module:
    """Spread the parameters over the processes, in place: transformer blocks one by one, then the rest.

    Raises:
        ConfigError: a parameter is a single number, which cannot be shared out.
    """
    for name, parameter in module.named_parameters():
        if parameter.ndim == 0:
            rule = f"cannot share out the scalar parameter {name} of this model; use ddp"
            raise ConfigError("strategy", "fsdp", rule)
    for part in module.modules():
        if isinstance(part, Block):
            fully_shard(part, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Restrict torch to algorithms that give the same bits every time, if wanted, and release it after."""
    if not wanted:
        yield
        return
    # cuBLAS reads it when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
