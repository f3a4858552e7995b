"""Image files as equal squares in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from brainage.data.image_decoding import UNREADABLE, decode
from brainage.data.rand_augment import rand_augment
from brainage.errors import ConfigError
from brainage.vision_config import ImageAugmentRecipe

MEMORY_LIMIT = 8 * 2**30
"""Bytes of decoded images that are kept at most."""

Progress = Callable[[Sequence[Path], str], Iterable[Path]]


@dataclass(frozen=True, eq=False)
class Squares:
    """What of a list of files could be decoded.

    Attributes:
        pixels_NCHW: uint8, red, green and blue.
        kept: index in the list of each of the N images.
        skipped: files that are no readable image.
    """

    pixels_NCHW: Tensor
    kept: tuple[int, ...]
    skipped: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class MemoryPixels:
    """Decoded images, with the interface of :class:`brainage.data.image_stream.StreamedPixels`.

    Attributes:
        pixels_NCHW: uint8, red, green and blue.
        cropped: training crops are left to the device.
        skipped: none is met later.
    """

    pixels_NCHW: Tensor

    cropped: ClassVar[bool] = False
    skipped: ClassVar[tuple[str, ...]] = ()

    def __len__(self) -> int:
        return len(self.pixels_NCHW)

    def batches(
        self, chunks: Sequence[Sequence[int]], recipe: ImageAugmentRecipe | None = None, seed: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels (B, 3, S, S) uint8 and indices (B,) of each chunk of indices, in order.

        Args:
            chunks: indices, batch by batch.
            recipe: for RandAugment.
            seed: of what is random, with the index of the image.
        """
        for chunk in chunks:
            index_B = torch.tensor(chunk, dtype=torch.int64)
            pixels_BCHW = self.pixels_NCHW[index_B]
            if recipe is not None and recipe.rand_augment:
                pixels_BCHW = torch.stack(
                    [
                        _varied(pixels_CHW, recipe.rand_augment, np.random.default_rng((seed, index)))
                        for pixels_CHW, index in zip(pixels_BCHW, chunk, strict=True)
                    ]
                )
            yield pixels_BCHW, index_B


def read_squares(
    files: Sequence[Path],
    size: int,
    title: str,
    progress: Progress | None = None,
    crop_pct: float = 1.0,
) -> Squares:
    """Decode files to squares of ``size`` pixels; what cannot be decoded is left out.

    Args:
        files: to decode.
        size: edge, pixels; the shorter side is resized to it and the centre cropped.
        title: of the progress.
        progress: shows how far the reading is.
        crop_pct: share of the resized image's edge that is kept.

    Raises:
        ConfigError: the images would need more than 8 GiB of memory.
    """
    needed = len(files) * 3 * size**2
    if needed > MEMORY_LIMIT:
        limit = f"{MEMORY_LIMIT / 2**30:.0f} is the limit"
        rule = f"makes {len(files)} images fill {needed / 2**30:.0f} GiB; {limit}"
        raise ConfigError("image_size", size, rule)
    pixels = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    kept: list[int] = []
    skipped: list[Path] = []
    with warnings.catch_warnings():
        # Pillow's remarks on damaged EXIF blocks and the like: the image itself can be read.
        warnings.simplefilter("ignore")
        for index, path in enumerate(progress(files, title) if progress else files):
            try:
                pixels[len(kept)] = torch.from_numpy(decode(path, size, crop_pct))
            except UNREADABLE:
                skipped.append(path)
            else:
                kept.append(index)
    return Squares(pixels[: len(kept)], tuple(kept), tuple(skipped))


def _varied(pixels_CHW: Tensor, magnitude: float, draw: np.random.Generator) -> Tensor:
    image = Image.fromarray(pixels_CHW.permute(1, 2, 0).numpy())
    return torch.from_numpy(np.array(rand_augment(image, magnitude, draw))).permute(2, 0, 1)


def shorten(names: Sequence[str], shown: int = 3) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
