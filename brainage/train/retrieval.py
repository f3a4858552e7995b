"""Image-text retrieval as a task of the training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.distributed
import torch.distributed.nn.functional as collective
import torch.nn.functional as F
from lightning.fabric import Fabric
from tokenizers import Tokenizer
from torch import Tensor, nn

from brainage.data.captioned_images import CaptionedImages
from brainage.data.image_stream import StreamedPixels
from brainage.data.squares import MemoryPixels
from brainage.data.tokenizer import encode, encode_with_warning
from brainage.errors import InputError
from brainage.models.dual_encoder import DualEncoder, of_words
from brainage.nn import RoutingRecord, balancing_loss
from brainage.retrieval_config import RetrievalRecipe
from brainage.train.batches import epoch_seed, steps_per_epoch
from brainage.train.image_batches import probe_batch, varied_batches
from brainage.train.initial_weights import start_from
from brainage.train.task import StepResult, Task

Batch = tuple[Tensor, Tensor]

Measure = Callable[[np.ndarray, np.ndarray, list[int]], dict[str, Any]]
"""Vectors of images and captions, and each caption's image, to figures of which recalls are logged."""


class RetrievalTask(Task):
    """Training of a dual encoder by symmetric InfoNCE (arXiv 2103.00020).

    Every epoch shows each image once, with one of its captions drawn at random.

    Args:
        model: freshly made.
        tokenizer: of the captions.
        images: to learn from.
        recipe: of augmentation and optimisation.
        validation: images to report the recall on, never to learn or choose from.
        measure: the recall; without it there is no validation.
    """

    model: DualEncoder

    def __init__(
        self,
        model: DualEncoder,
        tokenizer: Tokenizer,
        images: CaptionedImages,
        recipe: RetrievalRecipe,
        validation: CaptionedImages | None = None,
        measure: Measure | None = None,
    ) -> None:
        self.model, self.tokenizer, self.images = model, tokenizer, images
        self.recipe, self.validation, self.measure = recipe, validation, measure
        self.steps_per_epoch = steps_per_epoch(len(images), recipe.train)
        self.ids_CN = encode_with_warning(tokenizer, images.captions, recipe.text.length, "to learn from")
        self.count_I = torch.tensor([len(texts) for texts in images.texts])
        self.first_I = self.count_I.cumsum(0) - self.count_I

    def start(self, fabric: Fabric) -> None:
        """Trained weights of the image tower where the recipe names a file; all else begins at random."""
        if self.recipe.init is not None:
            start_from(self.model.image, self.recipe.init)

    def finish(self, model: nn.Module, fabric: Fabric) -> None:
        """Nothing: the averaged weights are the model."""

    def batches(self, fabric: Fabric, epoch: int) -> Iterator[Batch]:
        """Varied images (B, 3, H, W) and token ids (B, N), the same for seed, epoch and rank.

        Which caption an image comes with depends on seed and epoch alone.
        """
        recipe = self.recipe
        together = torch.Generator().manual_seed(epoch_seed(recipe.train, epoch))
        drawn_I = (torch.rand(len(self.images), generator=together) * self.count_I).long()
        caption_I = self.first_I + drawn_I.clamp(max=self.count_I - 1)
        batches = varied_batches(
            self.images.pixels, recipe.train, recipe.augment, recipe.image.mean, fabric, epoch
        )
        for varied_BCHW, index_B, _ in batches:
            yield varied_BCHW, fabric.to_device(self.ids_CN[caption_I[index_B]])

    def loss(self, model: nn.Module, batch: Batch) -> StepResult:
        """InfoNCE over the batches of all devices, and balancing losses with the recipe's weights."""
        images_BCHW, ids_BN = batch
        output = model(images_BCHW, ids_BN)
        loss, correct = contrast(output.image_BD, output.text_BD, ids_BN, output.scale, self.recipe.same_text)
        for tower, routing in (
            (self.recipe.image, output.image_routing),
            (self.recipe.text, output.text_routing),
        ):
            if tower.balancing and routing:
                loss = loss + tower.balancing * torch.stack([balancing_loss(r) for r in routing]).mean()
        figures = {"train_top1": correct, "scale": output.scale}
        return StepResult(loss, figures, output.image_routing)

    def validate(self, model: nn.Module, fabric: Fabric) -> dict[str, float]:
        """Recall both ways on the validation images, all at once."""
        if self.validation is None or self.measure is None:
            return {}
        images_ID = embed_images(model, self.validation.pixels, self.recipe.train.batch_size, fabric)
        captions_CD = embed_captions(
            model, self.tokenizer, self.validation.captions, self.recipe.train.batch_size, fabric
        )
        table = self.measure(images_ID, captions_CD, self.validation.owners)
        kept = {name: value for name, value in table.items() if name.endswith(("_r1", "_r5", "_r10"))}
        return {f"validation_{name}": float(value) for name, value in kept.items()}

    def probe(self, model: nn.Module, fabric: Fabric) -> list[RoutingRecord]:
        """Routing of images spread evenly over those to learn from, then of the first caption of each."""
        pixels_BCHW, index_B = probe_batch(self.images.pixels, fabric)
        ids_BN = fabric.to_device(self.ids_CN[self.first_I[index_B]])
        output = model(pixels_BCHW, ids_BN)
        return [*output.image_routing, *of_words(output.text_routing, ids_BN)]


def contrast(
    image_BD: Tensor, text_BD: Tensor, ids_BN: Tensor, scale: Tensor, same_text: bool
) -> tuple[Tensor, Tensor]:
    """Symmetric InfoNCE of this process's pairs among the pairs of all processes.

    The mean over the processes, which is what their averaged gradients belong to, is the loss of one process
    that holds all pairs.

    Args:
        image_BD, text_BD: unit vectors; row b of either belongs to the same pair.
        ids_BN: token ids of the captions.
        scale: that cosines are multiplied by.
        same_text: whether pairs whose captions read the same share their targets evenly.

    Returns:
        The loss, and the share of images whose nearest caption is a right one.
    """
    rank, images_AD, texts_AD, ids_AN = 0, image_BD, text_BD, ids_BN
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rank = torch.distributed.get_rank()
        images_AD, texts_AD = (torch.cat(collective.all_gather(part)) for part in (image_BD, text_BD))
        everyone = [torch.empty_like(ids_BN) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(everyone, ids_BN.contiguous())
        ids_AN = torch.cat(everyone)
    own_B = rank * len(ids_BN) + torch.arange(len(ids_BN), device=ids_BN.device)
    right_BA = torch.zeros(len(ids_BN), len(ids_AN), device=ids_BN.device)
    if same_text:
        right_BA = (ids_BN[:, None] == ids_AN[None]).all(dim=-1).float()
    right_BA[torch.arange(len(own_B)), own_B] = 1
    target_BA = right_BA / right_BA.sum(dim=1, keepdim=True)
    by_image_BA, by_text_BA = scale * image_BD @ texts_AD.T, scale * text_BD @ images_AD.T
    loss = (F.cross_entropy(by_image_BA, target_BA) + F.cross_entropy(by_text_BA, target_BA)) / 2
    nearest_B1 = by_image_BA.argmax(dim=1, keepdim=True)
    return loss, right_BA.gather(1, nearest_B1).mean()


@torch.no_grad()
def embed_images(
    model: nn.Module,
    pixels: MemoryPixels | StreamedPixels,
    batch_size: int,
    fabric: Fabric | None = None,
    routing: list[list[RoutingRecord]] | None = None,
) -> np.ndarray:
    """Unit vectors (N, D) float32 of images, in evaluation mode; records of batches go to ``routing``."""
    fabric = fabric or Fabric(accelerator="auto", devices=1)
    parts = []
    was_training = model.training
    model.eval()
    chunks = [part.tolist() for part in torch.arange(len(pixels)).split(batch_size)]
    for chunk, (part, index_B) in zip(chunks, pixels.batches(chunks), strict=True):
        if len(index_B) < len(chunk):
            lost = sorted(pixels.skipped)[0]
            raise InputError(lost, "an image that is cut short", "whole images", "delete it, or get it again")
        with fabric.autocast():
            output = model(fabric.to_device(part))
        parts.append(output.image_BD.float().cpu())
        if routing is not None:
            routing.append([record.detach() for record in output.image_routing])
    model.train(was_training)
    return torch.cat(parts).numpy()


@torch.no_grad()
def embed_captions(
    model: nn.Module,
    tokenizer: Tokenizer,
    captions: Sequence[str],
    batch_size: int,
    fabric: Fabric | None = None,
) -> np.ndarray:
    """Unit vectors (captions, D) float32, in evaluation mode; equal captions get equal ones."""
    fabric = fabric or Fabric(accelerator="auto", devices=1)
    different = list(dict.fromkeys(captions))
    place = {text: index for index, text in enumerate(different)}
    length = cast(DualEncoder, model).text.recipe.length
    ids_CN = encode(tokenizer, different, length)[0]
    parts = []
    was_training = model.training
    model.eval()
    for part in ids_CN.split(batch_size):
        with fabric.autocast():
            output = model(ids_BN=fabric.to_device(part))
        parts.append(output.text_BD.float().cpu())
    model.train(was_training)
    vectors = torch.cat(parts).numpy()
    return vectors[[place[text] for text in captions]]
