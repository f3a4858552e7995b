"""Image folders in ImageNet's layout: ``train/<class>/*`` and ``val/<class>/*``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from brainage.data.image_stream import StreamedPixels, read_shards
from brainage.data.located import LocatedFiles
from brainage.data.squares import MEMORY_LIMIT, MemoryPixels, Progress, read_squares, shorten
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

    @property
    def source(self) -> MemoryPixels:
        """Its pixels batch by batch."""
        return MemoryPixels(self.pixels_NCHW)


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """Images of one split that are decoded when they are needed.

    Attributes:
        source: of their pixels.
        label_N: index of each image's class in ``classes`` (int64).
        classes: names of the classes.
    """

    source: StreamedPixels
    label_N: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.label_N)

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of the files that turned out to be no readable image so far."""
        return self.source.skipped


ImageSource = Images | StreamedImages


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
    crop_pct: float = 1.0,
    workers: int = 0,
) -> ImageSource:
    """The images of a split as squares of ``size`` pixels: decoded now if memory holds all, else when needed.

    The split is a folder of one folder a class, or WebDataset shards ``<split>*.tar`` in ``data``, whose
    ``.cls`` members give class names or numbers. Files that cannot be decoded are left out, counted in a
    warning and named in ``skipped``.

    Args:
        data: folder that holds the split's folder.
        split: ``"train"`` or ``"val"``.
        size: edge, pixels; the shorter side is resized to it and the centre cropped.
        classes: that the split must have, all and no others; by default those that it has.
        per_class: read only the first images of each class, by name.
        progress: shows how far the reading is.
        crop_pct: share of the resized image's edge that is kept.
        workers: processes that decode images when they are needed.

    Raises:
        InputError: the folders do not fit the classes, or a class has no (readable) image.
    """
    folder = data / split
    shards = sorted(data.glob(f"{split}*.tar"))
    if shards and not folder.is_dir():
        return _from_shards(shards, size, classes, crop_pct, workers)
    found = find_classes(folder)
    classes = found if classes is None else tuple(classes)
    _check_classes(folder, found, classes)
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = [path.name for path in (folder / name).iterdir() if path.suffix.lower() in SUFFIXES]
        names += [f"{name}/{file}" for file in sorted(files)[:per_class]]
        labels += [label] * (len(names) - len(labels))
    if len(names) * 3 * size**2 > MEMORY_LIMIT:
        return _streamed(LocatedFiles(names, folder), labels, classes, folder, size, crop_pct, workers)
    paths = [folder / name for name in names]
    squares = read_squares(paths, size, f"Reading {split}", progress, crop_pct)
    kept = [labels[index] for index in squares.kept]
    skipped = [f"{path.parent.name}/{path.name}" for path in squares.skipped]
    if skipped:
        logger.warning("%d of %d files in %s are no readable images and are left out: %s",
                       len(skipped), len(names), split, shorten(skipped, 5))  # fmt: skip
    label_N = torch.tensor(kept, dtype=torch.int64)
    _check_filled(label_N, classes, folder)
    return Images(squares.pixels_NCHW, label_N, tuple(classes), tuple(skipped))


def _from_shards(
    shards: Sequence[Path], size: int, classes: Sequence[str] | None, crop_pct: float, workers: int
) -> StreamedImages:
    located, labels = read_shards(shards, SUFFIXES)
    found = sorted(
        set(labels),
        key=lambda label: (len(label), label) if label.isdigit() else (0, label),
    )
    if len(found) < 2:
        raise InputError(shards[0], f"{len(found)} classes", "at least two", "give shards with .cls members")
    known = tuple(found if classes is None else classes)
    _check_classes(shards[0], found, known)
    place = {name: index for index, name in enumerate(known)}
    return _streamed(located, [place[label] for label in labels], known, shards[0], size, crop_pct, workers)


def _streamed(
    files: LocatedFiles,
    labels: Sequence[int],
    classes: Sequence[str],
    folder: Path,
    size: int,
    crop_pct: float,
    workers: int,
) -> StreamedImages:
    label_N = torch.tensor(labels, dtype=torch.int64)
    _check_filled(label_N, classes, folder)
    logger.info("%d images are decoded when they are needed, by %d workers", len(files), workers)
    return StreamedImages(StreamedPixels(files, size, crop_pct, workers, set()), label_N, tuple(classes))


def _check_filled(label_N: Tensor, classes: Sequence[str], folder: Path) -> None:
    counts = label_N.bincount(minlength=len(classes))
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        remedy = "add images to it, or delete the folder in train and val"
        raise InputError(folder / empty[0], "no readable image", "at least one image of every class", remedy)


def _check_classes(folder: Path, found: Sequence[str], classes: Sequence[str]) -> None:
    missing, unknown = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
    # Shards have labels, by which a model may know its classes or not.
    one, many = ("label", "labels") if folder.suffix == ".tar" else ("folder", "folders")
    if missing:
        raise InputError(
            folder,
            f"no {one} for {shorten(missing)}",
            f"a {one} for each of the {len(classes)} classes that the model learns",
            f"add the {many}, or delete those classes from train",
        )
    if unknown:
        raise InputError(
            folder,
            f"{many} of unknown classes: {shorten(unknown)}",
            f"the {len(classes)} classes that the model learns and no others",
            "delete them, or give a model that was trained with them",
        )
