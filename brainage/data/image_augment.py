"""Augmentation of whole batches of images as tensors, every image on its own draw."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from brainage.vision_config import ImageAugmentRecipe


def augment(
    images_BCHW: Tensor, recipe: ImageAugmentRecipe, generator: torch.Generator, fill_C: Tensor
) -> Tensor:
    """Randomly cropped, flipped and erased images.

    Args:
        images_BCHW: float, values in any range.
        recipe: what to do.
        generator: of all draws, on the CPU, so that they are the same on every device.
        fill_C: colour of erased rectangles.
    """
    images_BCHW = _crop_and_flip(images_BCHW, recipe, generator)
    return _erase(images_BCHW, recipe, generator, fill_C) if recipe.erasing else images_BCHW


def mix(
    images_BCHW: Tensor, target_BC: Tensor, recipe: ImageAugmentRecipe, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Images and targets mixed with those of another image, with one weight a batch.

    Mixup (arXiv 1710.09412) adds the images up; CutMix (arXiv 1905.04899) pastes a part of the other.

    Args:
        images_BCHW: float.
        target_BC: probabilities of the classes.
        recipe: ``mixup`` and ``cutmix`` are the alphas of the weights' Beta distributions; with 0 for both
            nothing is mixed, with neither 0 each batch gets one of the two by chance.
        generator: of all draws.
    """
    if not recipe.mixup and not recipe.cutmix:
        return images_BCHW, target_BC
    cuts = bool(recipe.cutmix)
    if recipe.mixup and recipe.cutmix:
        cuts = torch.rand((), generator=generator).item() < 0.5
    alpha = torch.full((2,), recipe.cutmix if cuts else recipe.mixup)
    first, second = torch._standard_gamma(alpha, generator=generator).tolist()
    weight = first / (first + second) if first + second > 0 else 1.0
    other = torch.randperm(len(images_BCHW), generator=generator).to(images_BCHW.device)
    if cuts:
        height, width = images_BCHW.shape[2:]
        side = math.sqrt(1 - weight)
        middle = torch.rand(2, generator=generator)
        top, left = ((middle - side / 2).clamp(min=0) * torch.tensor([height, width])).round().int().tolist()
        bottom, right = (
            ((middle + side / 2).clamp(max=1) * torch.tensor([height, width])).round().int().tolist()
        )
        pasted_BCHW = images_BCHW.clone()
        pasted_BCHW[:, :, top:bottom, left:right] = images_BCHW[other, :, top:bottom, left:right]
        weight = 1 - (bottom - top) * (right - left) / (height * width)
        return pasted_BCHW, weight * target_BC + (1 - weight) * target_BC[other]
    mixed = (weight * batch + (1 - weight) * batch[other] for batch in (images_BCHW, target_BC))
    return next(mixed), next(mixed)


def _crop_and_flip(images_BCHW: Tensor, recipe: ImageAugmentRecipe, generator: torch.Generator) -> Tensor:
    """Random resized crops (area and aspect ratio as in Inception's preprocessing), flips and turns.

    One bilinear sampling does all. Crops lie within the image.
    """
    batch = len(images_BCHW)
    area, aspect, x, y, flip = torch.rand(5, batch, generator=generator)
    area = recipe.scale + (1 - recipe.scale) * area
    aspect = torch.exp((2 * aspect - 1) * math.log(recipe.aspect))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    mirrored = torch.where(flip < recipe.flip, -1.0, 1.0)
    theta_B23 = torch.zeros(batch, 2, 3)
    theta_B23[:, 0, 0], theta_B23[:, 0, 2] = width * mirrored, (2 * x - 1) * (1 - width)
    theta_B23[:, 1, 1], theta_B23[:, 1, 2] = height, (2 * y - 1) * (1 - height)
    if recipe.turns:
        angle_B = torch.randint(4, (batch,), generator=generator) * (math.pi / 2)
        cosine, sine = angle_B.cos(), angle_B.sin()
        turn_B22 = torch.stack((cosine, -sine, sine, cosine), dim=1).view(batch, 2, 2)
        theta_B23 = turn_B22 @ theta_B23
    theta_B23 = theta_B23.to(images_BCHW)
    grid = F.affine_grid(theta_B23, list(images_BCHW.shape), align_corners=False)
    return F.grid_sample(images_BCHW, grid, padding_mode="border", align_corners=False)


def _erase(
    images_BCHW: Tensor, recipe: ImageAugmentRecipe, generator: torch.Generator, fill_C: Tensor
) -> Tensor:
    """Random erasing (arXiv 1708.04896): one rectangle of 2 to 33 % of the area, sides 0.3 to 3.3."""
    batch, _, rows, columns = images_BCHW.shape
    chosen, area, aspect, x, y = torch.rand(5, batch, 1, 1, generator=generator)
    area, aspect = 0.02 + 0.31 * area, torch.exp((2 * aspect - 1) * math.log(3.3))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    left, top = x * (1 - width), y * (1 - height)
    across = ((torch.arange(columns) + 0.5) / columns).view(1, 1, -1)
    down = ((torch.arange(rows) + 0.5) / rows).view(1, -1, 1)
    inside = (across >= left) & (across < left + width) & (down >= top) & (down < top + height)
    inside = inside & (chosen < recipe.erasing)
    erased = inside.unsqueeze(1).to(images_BCHW.device)
    return torch.where(erased, fill_C.to(images_BCHW).view(1, -1, 1, 1), images_BCHW)
