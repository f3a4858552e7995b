"""What the training loop asks of a track: brain age, image classification, retrieval."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from lightning.fabric import Fabric
from torch import Tensor, nn

from brainage.nn import RoutingRecord


@dataclass(frozen=True, eq=False)
class StepResult:
    """What a micro-batch gave.

    Attributes:
        loss: scalar, a mean over the micro-batch.
        figures: scalars to average over the epoch, the same names in every step; columns of ``log.csv``.
        routing: of the mixture layers, in order.
    """

    loss: Tensor
    figures: dict[str, Tensor] = field(default_factory=dict)
    routing: list[RoutingRecord] = field(default_factory=list)


class Task(Protocol):
    """A model, what it learns from and how it is measured; :func:`brainage.train.fit.fit` does the rest.

    Every method is called by every process, with the same arguments. Under ``fsdp`` a forward pass gathers
    the weights from all processes, so all must call the model equally often.

    Attributes:
        model: on any device; ``fit`` moves it.
        steps_per_epoch: optimiser steps.
    """

    model: nn.Module
    steps_per_epoch: int

    def start(self, fabric: Fabric) -> None:
        """Prepare ``model``, by now on its device; not called when a training resumes."""

    def batches(self, fabric: Fabric, epoch: int) -> Iterator[Any]:
        """This process's ``steps_per_epoch * accumulate`` micro-batches, on the device.

        Tuples, lists or dicts of tensors. What is random in them comes from generators of the task's own,
        seeded by recipe, epoch and rank: torch's global one belongs to the model.
        """
        ...

    def loss(self, model: nn.Module, batch: Any) -> StepResult:
        """Of one micro-batch, under autocast; calls ``model(...)`` once, and none of its other methods."""
        ...

    def validate(self, model: nn.Module, fabric: Fabric) -> dict[str, float]:
        """Columns of ``log.csv`` from the averaged model, in evaluation mode and without gradients."""
        return {}

    def probe(self, model: nn.Module, fabric: Fabric) -> list[RoutingRecord]:
        """How the averaged model routes a small set of inputs, always the same; none to save no snapshots."""
        return []

    def finish(self, model: nn.Module, fabric: Fabric) -> None:
        """Change the averaged model before ``fit`` returns it."""
