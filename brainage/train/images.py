"""Image classification as a task of the training loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor, nn

from brainage.data.image_augment import mix
from brainage.data.images import ImageSource
from brainage.models.image_classifier import ImageClassifier
from brainage.nn import RoutingRecord, balancing_loss
from brainage.train.batches import steps_per_epoch
from brainage.train.image_batches import probe_batch, varied_batches
from brainage.train.initial_weights import start_from
from brainage.train.log import logger
from brainage.train.task import StepResult, Task
from brainage.vision_config import VisionRecipe

Batch = tuple[Tensor, Tensor, Tensor]


class ImageTask(Task):
    """Training of a classifier, from scratch or from trained weights.

    Args:
        model: freshly made.
        images: to learn from.
        recipe: of augmentation and optimisation.
        validation: images to report the accuracy on, never to learn or choose from.
    """

    model: ImageClassifier

    def __init__(
        self,
        model: ImageClassifier,
        images: ImageSource,
        recipe: VisionRecipe,
        validation: ImageSource | None = None,
    ) -> None:
        self.model, self.images, self.recipe, self.validation = model, images, recipe, validation
        self.steps_per_epoch = steps_per_epoch(len(images), recipe.train)

    def start(self, fabric: Fabric) -> None:
        """Trained weights where the recipe names a file; else the model begins at random."""
        if self.recipe.init is not None:
            start_classifier(self.model, self.recipe.init)

    def finish(self, model: nn.Module, fabric: Fabric) -> None:
        """Nothing: the averaged weights are the model."""

    def batches(self, fabric: Fabric, epoch: int) -> Iterator[Batch]:
        """Varied images (B, 3, H, W), targets (B, C) and labels (B,), the same for seed, epoch and rank."""
        recipe = self.recipe
        batches = varied_batches(
            self.images.source, recipe.train, recipe.augment, recipe.model.mean, fabric, epoch
        )
        for varied_BCHW, index_B, draw in batches:
            label_B = fabric.to_device(self.images.label_N[index_B])
            target_BC = F.one_hot(label_B, len(self.images.classes)).float()
            yield (*mix(varied_BCHW, target_BC, recipe.augment, draw), label_B)

    def loss(self, model: nn.Module, batch: Batch) -> StepResult:
        """Cross-entropy with label smoothing, and the balancing loss where the recipe gives it a weight."""
        images_BCHW, target_BC, label_B = batch
        output = model(images_BCHW)
        loss = F.cross_entropy(output.logits_BC, target_BC, label_smoothing=self.recipe.label_smoothing)
        if self.recipe.model.balancing and output.routing:
            extra = torch.stack([balancing_loss(record) for record in output.routing]).mean()
            loss = loss + self.recipe.model.balancing * extra
        top1 = (output.logits_BC.argmax(dim=-1) == label_B).float().mean()
        return StepResult(loss, {"train_top1": top1}, output.routing)

    def validate(self, model: nn.Module, fabric: Fabric) -> dict[str, float]:
        """Top-1 and top-5 accuracy on the validation images."""
        if self.validation is None:
            return {}
        logits_NC, label_N = predict_logits(model, self.validation, self.recipe.train.batch_size, fabric)
        return {
            f"validation_top{k}": float(top_k_hits(logits_NC, label_N, k).float().mean())
            for k in (1, min(5, logits_NC.shape[-1]))
        }

    def probe(self, model: nn.Module, fabric: Fabric) -> list[RoutingRecord]:
        """Routing of images spread evenly over those to learn from."""
        routing: list[RoutingRecord] = model(probe_batch(self.images.source, fabric)[0]).routing
        return routing


def start_classifier(model: ImageClassifier, path: Path) -> None:
    """Give a classifier the weights of a trained one; its head too, if it is for as many classes.

    Raises:
        CheckpointError: the file is no vision transformer.
        ConfigError: the recipe's sizes or router are not the file's.
    """
    head = start_from(model.encoder, path)
    if head is not None and head[0].shape == model.head.weight.shape:
        model.head.load_state_dict(dict(zip(("weight", "bias"), head, strict=True)))
    elif head is not None:
        count, wanted = len(head[1]), len(model.head.bias)
        logger.warning("The head of %s is for %d classes, not %d: it begins anew", path.name, count, wanted)


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    images: ImageSource,
    batch_size: int,
    fabric: Fabric | None = None,
    routing: list[list[RoutingRecord]] | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits (N, C) and labels (N,) of the readable images, in evaluation mode.

    The records of each batch are appended to ``routing``.
    """
    fabric = fabric or Fabric(accelerator="auto", devices=1)
    was_training = model.training
    model.eval()
    logits: list[Any] = []
    labels = []
    chunks = [part.tolist() for part in torch.arange(len(images)).split(batch_size)]
    for pixels_BCHW, index_B in images.source.batches(chunks):
        if not len(index_B):
            continue
        labels.append(images.label_N[index_B])
        with fabric.autocast():
            output = model(fabric.to_device(pixels_BCHW))
        logits.append(output.logits_BC.cpu())
        if routing is not None:
            routing.append([record.detach() for record in output.routing])
    model.train(was_training)
    return torch.cat(logits), torch.cat(labels)


def top_k_hits(logits_NC: Tensor, label_N: Tensor, k: int) -> Tensor:
    """Whether the label is among the ``k`` largest logits, (N,) bool; a label's ties count against it."""
    own_N1 = logits_NC.gather(1, label_N[:, None])
    others = (logits_NC >= own_N1).sum(dim=1) - 1
    return others < k
