"""Image folders in ImageNet's layout: ``train/<class>/*`` and ``val/<class>/*``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from brainage.data.squares import Progress, read_squares, shorten
from brainage.errors import InputError

logger = logging.getLogger("brainage")

SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"})


@dataclass(frozen=True, eq=False)
class Images:
    """Decoded images of one split, in memory.

    Attributes:
        pixels_NCHW: uint8, red, green and blue.
        label_N: index of each image's class in ``classes`` (int64).
        classes: names of the class folders, sorted.
        skipped: names of the files that are no readable image, as ``class/file``.
    """

    pixels_NCHW: Tensor
    label_N: Tensor
    classes: tuple[str, ...]
    skipped: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.label_N)


def find_classes(folder: Path) -> tuple[str, ...]:
    """Names of the class folders in a split, sorted.

    Raises:
        InputError: no such folder, or fewer than two class folders in it.
    """
    remedy = "give the folder that holds train/<class>/ and val/<class>/"
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "a folder of one folder a class", remedy)
    classes = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if len(classes) < 2:
        raise InputError(folder, f"{len(classes)} class folders", "at least two", remedy)
    return classes


def load_images(
    data: Path,
    split: str,
    size: int,
    classes: Sequence[str] | None = None,
    per_class: int | None = None,
    progress: Progress | None = None,
) -> Images:
    """Decode the images of a split to squares of ``size`` pixels.

    Files that cannot be decoded are left out, counted in a warning and named in ``skipped``.

    Args:
        data: folder that holds the split's folder.
        split: ``"train"`` or ``"val"``.
        size: edge, pixels; the shorter side is resized to it and the centre cropped.
        classes: that the split must have, all and no others; by default those that it has.
        per_class: read only the first images of each class, by name.
        progress: shows how far the reading is.

    Raises:
        InputError: the folders do not fit the classes, or a class has no readable image.
        ConfigError: the images would need more than 8 GiB of memory.
    """
    folder = data / split
    found = find_classes(folder)
    classes = found if classes is None else tuple(classes)
    _check_classes(folder, found, classes)
    files, labels = [], []
    for label, name in enumerate(classes):
        paths = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in SUFFIXES)
        files += paths[:per_class]
        labels += [label] * len(paths[:per_class])
    squares = read_squares(files, size, f"Reading {split}", progress)
    kept = [labels[index] for index in squares.kept]
    skipped = [f"{path.parent.name}/{path.name}" for path in squares.skipped]
    if skipped:
        logger.warning("%d of %d files in %s are no readable images and are left out: %s",
                       len(skipped), len(files), split, shorten(skipped, 5))  # fmt: skip
    label_N = torch.tensor(kept, dtype=torch.int64)
    empty = [name for name, n in zip(classes, label_N.bincount(minlength=len(classes)), strict=True) if not n]
    if empty:
        remedy = "add images to it, or delete the folder in train and val"
        raise InputError(folder / empty[0], "no readable image", "at least one image of every class", remedy)
    return Images(squares.pixels_NCHW, label_N, tuple(classes), tuple(skipped))


def _check_classes(folder: Path, found: Sequence[str], classes: Sequence[str]) -> None:
    missing, unknown = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
    if missing:
        raise InputError(
            folder,
            f"no folder for {shorten(missing)}",
            f"a folder for each of the {len(classes)} classes that the model learns",
            "add the folders, or delete those classes from train",
        )
    if unknown:
        raise InputError(
            folder,
            f"folders of unknown classes: {shorten(unknown)}",
            f"the {len(classes)} classes that the model learns and no others",
            "delete them, or give a model that was trained with them",
        )
