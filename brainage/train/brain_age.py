"""Brain age as a task of the training loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from monai.data import DataLoader, Dataset
from monai.utils import convert_to_tensor
from torch import Tensor, nn

from brainage.config import TrainRecipe
from brainage.data.augment import augmentation
from brainage.data.datasets import AgedScan
from brainage.models.brain_age import BrainAgeModel
from brainage.nn import RoutingRecord, balancing_loss
from brainage.train.batches import epoch_batches, epoch_seed, steps_per_epoch
from brainage.train.probe import (
    as_they_are_and_mirrored,
    centre_contributions,
    in_order,
    linear_probe,
    volume_batches,
)
from brainage.train.task import StepResult, Task

PROBE_SCANS = 8

Batch = tuple[Tensor, Tensor]


class BrainAgeTask(Task):
    """Linear probe, fine-tuning, and a second probe of the encoder that came of it.

    Gradients shape the encoder; the head that they leave errs more than one in closed form on augmented
    copies (last-layer retraining, Kirichenko et al. 2023, arXiv 2204.02937; measured in
    ``docs/experiments.md``). At the end the contributions are centred on the training scans.

    Args:
        model: freshly made.
        scans: to learn from.
        recipe: of the optimisation.
        validation: scans to report the error of, never to learn or choose from.
        probe_copies: augmented copies of the scans that the second probe learns from too.
    """

    model: BrainAgeModel

    def __init__(
        self,
        model: BrainAgeModel,
        scans: Sequence[AgedScan],
        recipe: TrainRecipe,
        validation: Sequence[AgedScan] = (),
        probe_copies: int = 0,
    ) -> None:
        self.model, self.scans, self.recipe, self.validation = model, scans, recipe, validation
        self.probe_copies = probe_copies
        self.steps_per_epoch = steps_per_epoch(len(scans), recipe)

    def start(self, fabric: Fabric) -> None:
        """Fit the head in closed form, to the scans and their mirror images."""
        self._probe(self.model, as_they_are_and_mirrored(self.scans, self.recipe.batch_size), fabric)

    def _probe(self, model: BrainAgeModel, copies: Iterable[Iterable[Tensor]], fabric: Fabric) -> None:
        linear_probe(model, [scan.age for scan in self.scans], copies, fabric)

    def _with_augmented(self) -> Iterator[Iterator[Tensor]]:
        yield from as_they_are_and_mirrored(self.scans, self.recipe.batch_size)
        for copy in range(self.probe_copies):
            # After those of the epochs; every process makes the same copies.
            seed = epoch_seed(self.recipe, self.recipe.epochs + copy)
            loader = self._augmented(in_order(self.scans, self.recipe.batch_size), seed)
            yield (convert_to_tensor(batch["volume"], track_meta=False) for batch in loader)

    def batches(self, fabric: Fabric, epoch: int) -> Iterator[Batch]:
        """Augmented volumes (B, 1, X, Y, Z) and ages (B,); the same for the same seed, epoch and rank."""
        indices = epoch_batches(len(self.scans), self.recipe, epoch, fabric)
        loader = self._augmented(indices, epoch_seed(self.recipe, epoch, fabric.global_rank))
        for batch in loader:
            volume = convert_to_tensor(batch["volume"], track_meta=False)
            yield fabric.to_device(volume), fabric.to_device(batch["age"].float())

    def _augmented(self, batches: Iterable[Sequence[int]], seed: int) -> DataLoader:
        """Loader of augmented scans, batch by batch."""
        return DataLoader(
            Dataset([{"volume": scan.volume, "age": scan.age} for scan in self.scans], augmentation()),
            batch_sampler=batches,
            num_workers=self.recipe.workers,
            generator=torch.Generator().manual_seed(seed),
        )

    def loss(self, model: nn.Module, batch: Batch) -> StepResult:
        """Smooth L1 distance of predicted and true ages on the model's scale, and any balancing loss."""
        volume_B1XYZ, age_B = batch
        output = model(volume_B1XYZ)
        scale = self.model.scale
        loss = F.smooth_l1_loss(output.age_B / scale, age_B / scale, beta=0.25)
        figures = {"train_mae": (output.age_B - age_B).abs().mean()}
        weight = self.model.recipe.balancing
        if weight and output.routing:
            figures["balancing"] = torch.stack([balancing_loss(record) for record in output.routing]).mean()
            loss = loss + weight * figures["balancing"]
        return StepResult(loss, figures, output.routing)

    def validate(self, model: nn.Module, fabric: Fabric) -> dict[str, float]:
        """Mean absolute error on the validation scans, years."""
        if not self.validation:
            return {}
        predicted = predict_ages(model, self.validation, self.recipe.batch_size, fabric)
        truth = torch.tensor([scan.age for scan in self.validation])
        return {"validation_mae": float((predicted - truth).abs().mean())}

    def probe(self, model: nn.Module, fabric: Fabric) -> list[RoutingRecord]:
        """Routing of the first scans to learn from."""
        volumes = torch.stack([scan.volume.float() for scan in self.scans[:PROBE_SCANS]])
        return model(fabric.to_device(volumes)).routing

    def finish(self, model: nn.Module, fabric: Fabric) -> None:
        """Fit the head again, to augmented copies too; a contribution of 0 is that of the average scan."""
        trained = cast(BrainAgeModel, model)
        self._probe(trained, self._with_augmented(), fabric)
        centre_contributions(trained, volume_batches(self.scans, self.recipe.batch_size), fabric)


@torch.no_grad()
def predict_tokens(
    model: nn.Module, scans: Sequence[AgedScan], batch_size: int, fabric: Fabric | None = None
) -> tuple[Tensor, Tensor]:
    """Predicted ages (S,) and contributions of the tokens (S, N), years, in evaluation mode."""
    fabric = fabric or Fabric(accelerator="auto", devices=1)
    was_training = model.training
    model.eval()
    outputs = []
    for volumes in volume_batches(scans, batch_size):
        with fabric.autocast():
            output = model(fabric.to_device(volumes))
        outputs.append((output.age_B.cpu(), output.contributions_BN.cpu()))
    model.train(was_training)
    ages, contributions = zip(*outputs, strict=True)
    return torch.cat(ages), torch.cat(contributions)


def predict_ages(
    model: nn.Module, scans: Sequence[AgedScan], batch_size: int, fabric: Fabric | None = None
) -> Tensor:
    """Predicted ages (S,) of scans, years, with the model in evaluation mode."""
    return predict_tokens(model, scans, batch_size, fabric)[0]
