"""Image files and WebDataset shards that are decoded when they are needed, by worker processes."""

from __future__ import annotations

import logging
import tarfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from brainage.data.image_decoding import UNREADABLE, decode, to_rgb
from brainage.data.located import LocatedFiles
from brainage.data.rand_augment import rand_augment
from brainage.data.squares import shorten
from brainage.errors import InputError
from brainage.vision_config import ImageAugmentRecipe

logger = logging.getLogger("brainage")


def read_shards(shards: Sequence[Path], suffixes: frozenset[str]) -> tuple[LocatedFiles, list[str]]:
    """Images of WebDataset shards of one folder, and the texts of their ``.cls`` members, in order.

    A shard is an uncompressed tar; its members are read in place, so any order and any part of them can be
    read.

    Raises:
        InputError: a shard is no uncompressed tar, or has two images of one name.
    """
    names: list[str] = []
    labels: list[str] = []
    holders: list[str] = []
    places: list[tuple[int, int]] = []
    for shard in shards:
        label_of: dict[str, str] = {}
        images: dict[str, tarfile.TarInfo] = {}
        twins: list[str] = []
        try:
            with tarfile.open(shard, "r:") as tar:
                for member in tar:
                    stem, _, ending = member.name.rpartition(".")
                    if ending == "cls":
                        content = tar.extractfile(member)
                        label_of[stem] = "" if content is None else content.read().decode("utf-8").strip()
                    elif f".{ending.lower()}" in suffixes:
                        twins += [stem] if stem in images else []
                        images[stem] = member
        except (tarfile.TarError, UnicodeDecodeError, OSError) as error:
            remedy = "give WebDataset shards that are not compressed"
            raise InputError(shard, "no uncompressed tar", "a shard of images", remedy) from error
        if twins:
            found = f"two images of the name {shorten(twins)}"
            raise InputError(shard, found, "a name for each image and its .cls", "rename one in the shard")
        for stem, member in images.items():
            if stem in label_of:
                names.append(member.name)
                labels.append(label_of[stem])
                holders.append(shard.name)
                places.append((member.offset_data, member.size))
            else:
                logger.warning("%s/%s has no label (.cls) and is left out", shard.name, member.name)
    return LocatedFiles(names, shards[0].parent, holders, places), labels


class _Decoded(Dataset[tuple[Tensor, bool]]):
    """Pixels (3, S, S) uint8 of one file, and whether it could be read."""

    def __init__(
        self,
        files: LocatedFiles,
        size: int,
        crop_pct: float,
        recipe: ImageAugmentRecipe | None,
        seed: int,
    ) -> None:
        self.files, self.size, self.crop_pct = files, size, crop_pct
        self.recipe, self.seed = recipe, seed

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, bool]:
        try:
            with warnings.catch_warnings(), self.files[index].open() as file:
                warnings.simplefilter("ignore")
                if self.recipe is None:
                    pixels = decode(file, self.size, self.crop_pct)
                else:
                    draw = np.random.default_rng((self.seed, index))
                    pixels = random_crop(file, self.size, self.recipe, draw)
        except UNREADABLE:
            return torch.zeros(3, self.size, self.size, dtype=torch.uint8), False
        return torch.from_numpy(np.ascontiguousarray(pixels)), True


def random_crop(file: Any, size: int, recipe: ImageAugmentRecipe, draw: np.random.Generator) -> np.ndarray:
    """A random part of an image as a square (3, S, S) uint8, varied by RandAugment if the recipe says so.

    Area and aspect ratio as in Inception's preprocessing, from the image at its full resolution.
    """
    with Image.open(file) as opened:
        image = to_rgb(ImageOps.exif_transpose(opened))
    width, height = image.size
    area = width * height * draw.uniform(recipe.scale, 1)
    ratio = np.exp(draw.uniform(-1, 1) * np.log(recipe.aspect))
    across, down = min(width, (area * ratio) ** 0.5), min(height, (area / ratio) ** 0.5)
    left, top = draw.uniform(0, width - across), draw.uniform(0, height - down)
    # Rounding may lead a hair beyond the edge, which Pillow refuses.
    box = (left, top, min(left + across, width), min(top + down, height))
    image = image.resize((size, size), Image.Resampling.BICUBIC, box)
    if recipe.rand_augment:
        image = rand_augment(image, recipe.rand_augment, draw)
    return np.asarray(image).transpose(2, 0, 1)


@dataclass(frozen=True, eq=False)
class StreamedPixels:
    """Images that are decoded when they are asked for.

    Attributes:
        files: where they lie.
        size: edge, pixels.
        crop_pct: share of the resized image's edge that evaluation keeps.
        workers: processes that decode.
        unreadable: names of the files that turned out to be no readable image, filled as they are met.
        cropped: training crops are taken while decoding.
    """

    cropped: ClassVar[bool] = True

    files: LocatedFiles
    size: int
    crop_pct: float
    workers: int
    unreadable: set[str]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def skipped(self) -> tuple[str, ...]:
        """The unreadable files met so far, sorted."""
        return tuple(sorted(self.unreadable))

    def batches(
        self, chunks: Sequence[Sequence[int]], recipe: ImageAugmentRecipe | None = None, seed: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels (B, 3, S, S) uint8 and indices (B,) of each chunk of indices, in order.

        For evaluation (no recipe) unreadable images are left out; for training others of the chunk take
        their place, so that all chunks keep their size. A chunk of unreadable images alone is empty.

        Args:
            chunks: indices, batch by batch.
            recipe: for random crops and RandAugment; without it the centre is taken.
            seed: of what is random, with the index of the image.
        """
        dataset = _Decoded(self.files, self.size, self.crop_pct, recipe, seed)
        lists = [list(chunk) for chunk in chunks]
        before = len(self.unreadable)
        loader = DataLoader(dataset, batch_sampler=lists, num_workers=self.workers)
        for chunk, (pixels_BCHW, readable_B) in zip(lists, loader, strict=True):
            index_B = torch.tensor(chunk)
            good = readable_B.nonzero()[:, 0]
            if len(good) < len(chunk):
                self.unreadable.update(self.files[i].name for i in index_B[~readable_B].tolist())
                if recipe is not None and len(good):
                    good = good[torch.arange(len(chunk)) % len(good)]
                pixels_BCHW, index_B = pixels_BCHW[good], index_B[good]
            yield pixels_BCHW, index_B
        if len(self.unreadable) > before:
            logger.warning(
                "%d of %d files are no readable images and are left out, so far",
                len(self.unreadable),
                len(self),
            )
