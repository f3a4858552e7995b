"""Options that training commands share; they take the place of the recipe's settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from brainage.errors import BrainageError

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from brainage.config import Recipe

RecipeT = TypeVar("RecipeT", bound="Recipe")


class Strategy(StrEnum):
    """How several devices share a model."""

    auto = "auto"
    ddp = "ddp"
    fsdp = "fsdp"


class Precision(StrEnum):
    """Numbers that are calculated with."""

    full = "32-true"
    mixed = "bf16-mixed"


Devices = Annotated[
    int | None, typer.Option("--devices", min=1, help="Devices of each node that train together.")
]
Init = Annotated[
    Path | None,
    typer.Option("--init", help="Begin from this model.safetensors of vision train, or a published ViT."),
]
NumNodes = Annotated[int | None, typer.Option("--num-nodes", min=1, help="Nodes that train.")]
StrategyChoice = Annotated[
    Strategy | None,
    typer.Option("--strategy", help="ddp: the whole model on every device; fsdp: a share of it."),
]
PrecisionChoice = Annotated[
    Precision | None, typer.Option("--precision", help="bf16-mixed is faster on recent hardware.")
]
Accumulate = Annotated[
    int | None,
    typer.Option("--accumulate", min=1, help="Micro-batches a device's share of a batch is split into."),
]
Deterministic = Annotated[
    bool | None,
    typer.Option("--deterministic/--no-deterministic", help="Only algorithms that repeat bit by bit."),
]


def with_options(recipe: RecipeT, init: Path | None = None, **given: Any) -> RecipeT:
    """The recipe with the first weights and those settings of ``train`` that were given on the command line.

    Raises:
        ConfigError: a setting breaks a rule.
    """
    from brainage.config import parse_recipe

    content = recipe.model_dump(mode="json")
    content["train"] |= {name: value for name, value in given.items() if value is not None}
    if init is not None:
        content["init"] = str(init)
    return parse_recipe(content, type(recipe))


@contextmanager
def one_voice(fabric: Fabric) -> Iterator[None]:
    """What all processes of a training do: a fault that each of them finds is told by the first alone."""
    try:
        yield
    except BrainageError as error:
        if fabric.is_global_zero:
            raise
        raise typer.Exit(error.exit_code) from error
