"""What the two tracks of images share: varied batches to learn from, and images that routing is probed on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from lightning.fabric import Fabric
from torch import Tensor

from brainage.config import TrainRecipe
from brainage.data.image_augment import augment
from brainage.data.image_stream import StreamedPixels
from brainage.data.squares import MemoryPixels
from brainage.errors import InputError
from brainage.train.batches import epoch_batches, epoch_seed
from brainage.vision_config import ImageAugmentRecipe

PROBE_IMAGES = 64


def varied_batches(
    pixels: MemoryPixels | StreamedPixels,
    recipe: TrainRecipe,
    augmentation: ImageAugmentRecipe,
    mean: Sequence[float],
    fabric: Fabric,
    epoch: int,
) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
    """This process's batches of an epoch, the same for seed, epoch and rank.

    Args:
        pixels: of the images to learn from.
        recipe: of the optimisation.
        augmentation: of the images; mixing is left to the caller.
        mean: colour in [0, 1] that fills what is blanked.
        fabric: whose device gets the batches.
        epoch: from 0.

    Yields:
        Varied images (B, 3, H, W) in [0, 255], their indices (B,), and the generator to go on drawing from.

    Raises:
        InputError: none of a batch's images can be read.
    """
    draw = torch.Generator().manual_seed(epoch_seed(recipe, epoch, fabric.global_rank))
    colour = 255 * torch.tensor(mean)
    left = augmentation
    if pixels.cropped:
        # Cropped when they were decoded.
        left = left.model_copy(update={"scale": 1.0, "aspect": 1.0})
    chunks = epoch_batches(len(pixels), recipe, epoch, fabric)
    for pixels_BCHW, index_B in pixels.batches(chunks, augmentation, epoch_seed(recipe, epoch)):
        if not len(index_B):
            found = f"no readable image in a batch, and {len(pixels.skipped)} unreadable ones so far"
            raise InputError(pixels.skipped[0], found, "images", "look at the disk, or delete such files")
        yield augment(fabric.to_device(pixels_BCHW).float(), left, draw, colour), index_B, draw


def probe_batch(pixels: MemoryPixels | StreamedPixels, fabric: Fabric) -> tuple[Tensor, Tensor]:
    """At most 64 images (B, 3, H, W) uint8 spread evenly over all, on the device, and their indices (B,)."""
    step = max(1, len(pixels) // PROBE_IMAGES)
    chosen = list(range(0, len(pixels), step))[:PROBE_IMAGES]
    pixels_BCHW, index_B = next(pixels.batches([chosen]))
    return fabric.to_device(pixels_BCHW), index_B
