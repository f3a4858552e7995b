"""RandAugment (arXiv 1909.13719): two random distortions of an image, all of one strength."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

OPERATIONS_PER_IMAGE = 2
GREY = (124, 116, 104)
"""Of what is turned or shifted in from outside: the mean of ImageNet."""


def rand_augment(image: Image.Image, magnitude: float, draw: np.random.Generator) -> Image.Image:
    """Apply two operations drawn at random.

    As in timm's ``rand-m9-inc1`` the colour operations lead away from the original in either direction.

    Args:
        image: RGB.
        magnitude: strength M from 0 (hardly anything) to 10.
        draw: of all that is random.
    """
    for _ in range(OPERATIONS_PER_IMAGE):
        operation = OPERATIONS[draw.integers(len(OPERATIONS))]
        signed = magnitude / 10 * (1 if draw.random() < 0.5 else -1)
        image = operation(image, signed)
    return image


Operation = Callable[[Image.Image, float], Image.Image]


def _affine(matrix: Callable[[float, int, int], tuple[float, ...]]) -> Operation:
    def apply(image: Image.Image, strength: float) -> Image.Image:
        return image.transform(
            image.size,
            Image.Transform.AFFINE,
            matrix(strength, *image.size),
            Image.Resampling.BILINEAR,
            fillcolor=GREY,
        )

    return apply


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda image, strength: kind(image).enhance(1 + 0.9 * strength)


OPERATIONS: tuple[Operation, ...] = (
    lambda image, strength: ImageOps.autocontrast(image),
    lambda image, strength: ImageOps.equalize(image),
    lambda image, strength: ImageOps.invert(image),
    lambda image, strength: ImageOps.posterize(image, 8 - round(4 * abs(strength))),
    lambda image, strength: ImageOps.solarize(image, round(256 * (1 - abs(strength)))),
    lambda image, strength: image.rotate(30 * strength, Image.Resampling.BILINEAR, fillcolor=GREY),
    _enhance(ImageEnhance.Color),
    _enhance(ImageEnhance.Contrast),
    _enhance(ImageEnhance.Brightness),
    _enhance(ImageEnhance.Sharpness),
    _affine(lambda strength, width, height: (1, 0.3 * strength, 0, 0, 1, 0)),
    _affine(lambda strength, width, height: (1, 0, 0, 0.3 * strength, 1, 0)),
    _affine(lambda strength, width, height: (1, 0, 0.45 * strength * width, 0, 1, 0)),
    _affine(lambda strength, width, height: (1, 0, 0, 0, 1, 0.45 * strength * height)),
)
"""Tones, then rotation, then colour, contrast, brightness and sharpness, then shears and shifts."""
