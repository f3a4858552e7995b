"""The networks of a comparison as tasks of the training loop, on copies that were augmented before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import cast

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from brainage.config import TrainRecipe
from brainage.data.datasets import AgedScan
from brainage.models.brain_age import BrainAgeModel
from brainage.models.sfcn import Sfcn, soft_label_loss, soft_labels
from brainage.nn import RoutingRecord
from brainage.train.batches import epoch_batches, steps_per_epoch
from brainage.train.brain_age import Batch, BrainAgeTask
from brainage.train.probe import as_they_are_and_mirrored, in_order, volume_batches
from brainage.train.task import StepResult, Task


class Copies:
    """Batches of the scans to learn from, in the order of the training loop.

    Args:
        copies_CSXYZ: augmented copies of all scans; epoch e reads copy e modulo C.
        rows: of the scans to learn from.
        ages: of these, years.
        recipe: of the training.
    """

    def __init__(
        self, copies_CSXYZ: np.ndarray, rows: np.ndarray, ages: Sequence[float], recipe: TrainRecipe
    ) -> None:
        self.copies, self.rows, self.recipe = copies_CSXYZ, rows, recipe
        self.ages = torch.tensor(ages, dtype=torch.float32)

    def batches(self, fabric: Fabric, epoch: int) -> Iterator[Batch]:
        """Volumes (B, 1, X, Y, Z) and ages (B,)."""
        copy = self.copies[epoch % len(self.copies)]
        for chosen in epoch_batches(len(self.rows), self.recipe, epoch, fabric):
            volumes = torch.from_numpy(copy[self.rows[chosen]]).float()[:, None]
            yield fabric.to_device(volumes), fabric.to_device(self.ages[chosen])

    def in_order(self) -> Iterator[Iterator[Tensor]]:
        """Of each copy the volumes (B, 1, X, Y, Z), batch by batch in the order of the scans."""
        batches = in_order(self.rows, self.recipe.batch_size)
        for copy_SXYZ in self.copies:
            yield (torch.from_numpy(copy_SXYZ[self.rows[chosen]]).float()[:, None] for chosen in batches)


class TransformerTask(BrainAgeTask):
    """ERMoE-ba or an opponent in its frame: the same start from a linear probe, the same loss.

    With ``last_probe`` the same end as well: the head of ``brainage train``, fitted to the copies too.
    """

    def __init__(
        self,
        model: BrainAgeModel,
        scans: Sequence[AgedScan],
        recipe: TrainRecipe,
        copies: Copies,
        last_probe: bool = False,
    ) -> None:
        super().__init__(model, scans, recipe)
        self.copies, self.last_probe = copies, last_probe

    def batches(self, fabric: Fabric, epoch: int) -> Iterator[Batch]:
        """See :class:`Copies`."""
        return self.copies.batches(fabric, epoch)

    def probe(self, model: nn.Module, fabric: Fabric) -> list[RoutingRecord]:
        """None: a comparison keeps no snapshots."""
        return []

    def finish(self, model: nn.Module, fabric: Fabric) -> None:
        """The last probe, if there is one. Contributions are not looked at, so their zero is not set."""
        if self.last_probe:
            mirrored = as_they_are_and_mirrored(self.scans, self.recipe.batch_size)
            self._probe(cast(BrainAgeModel, model), chain(mirrored, self.copies.in_order()), fabric)


class SfcnTask(Task):
    """SFCN from scratch, by the divergence from soft age labels."""

    model: Sfcn

    def __init__(self, model: Sfcn, scans: Sequence[AgedScan], recipe: TrainRecipe, copies: Copies) -> None:
        self.model, self.scans, self.recipe, self.copies = model, scans, recipe, copies
        self.steps_per_epoch = steps_per_epoch(len(scans), recipe)

    def batches(self, fabric: Fabric, epoch: int) -> Iterator[Batch]:
        """See :class:`Copies`."""
        return self.copies.batches(fabric, epoch)

    def start(self, fabric: Fabric) -> None:
        """Nothing: an SFCN starts from random weights."""

    def loss(self, model: nn.Module, batch: Batch) -> StepResult:
        """Divergence of the predicted from the soft labels."""
        volume_B1XYZ, age_B = batch
        bins = self.model.recipe
        log_probabilities = model(volume_B1XYZ)
        labels = soft_labels(age_B, self.model.centres, bins.bin_years, bins.sigma)
        loss = soft_label_loss(log_probabilities, labels)
        mae = (self.model.ages(log_probabilities.detach()) - age_B).abs().mean()
        return StepResult(loss, {"train_mae": mae})

    def finish(self, model: nn.Module, fabric: Fabric) -> None:
        """Measure the batch statistics of the averaged weights, which no batch has gone through."""
        batches = volume_batches(self.scans, self.recipe.batch_size)
        update_bn((fabric.to_device(volumes) for volumes in batches), model)


def stack(scans: Sequence[AgedScan], fabric: Fabric) -> Tensor:
    """Volumes (B, 1, X, Y, Z) of scans, on the device."""
    return fabric.to_device(torch.stack([scan.volume.float() for scan in scans]))
