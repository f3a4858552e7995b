"""Images with their captions, read from a folder and a caption file."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from brainage.data.captions import Captions, read_captions
from brainage.data.image_decoding import readable
from brainage.data.image_stream import StreamedPixels
from brainage.data.located import LocatedFiles
from brainage.data.squares import MEMORY_LIMIT, MemoryPixels, Progress, read_squares, shorten
from brainage.errors import InputError

logger = logging.getLogger("brainage")


@dataclass(frozen=True, eq=False)
class CaptionedImages:
    """Images of one split with their captions.

    Attributes:
        pixels: decoded, or decoded when they are needed.
        texts: for each image its captions, at least one.
        files: path of each image below the folder of images.
        skipped: files that the captions name and that are missing or no readable image.
    """

    pixels: MemoryPixels | StreamedPixels
    texts: tuple[tuple[str, ...], ...]
    files: tuple[str, ...]
    skipped: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def captions(self) -> list[str]:
        """All captions, image by image."""
        return [text for texts in self.texts for text in texts]

    @property
    def owners(self) -> list[int]:
        """For each of ``captions`` the index of its image."""
        return [index for index, texts in enumerate(self.texts) for _ in texts]


def load_captioned(
    captions: Path,
    images: Path,
    split: str | None,
    size: int,
    progress: Progress | None = None,
    workers: int = 0,
    limit: int | None = None,
) -> CaptionedImages:
    """The images of a split as squares of ``size`` pixels: decoded now if memory holds all, else when needed.

    Images that are missing or cannot be decoded are left out with their captions, counted in a warning and
    named in ``skipped``.

    Args:
        captions: file of one of the forms of :mod:`brainage.data.captions`.
        images: folder that the names in it start from.
        split: of a file with splits.
        size: edge, pixels; the shorter side is resized to it and the centre cropped.
        progress: shows how far the reading is.
        workers: processes that decode images when they are needed.
        limit: read only about so many images, spread evenly over the split.

    Raises:
        InputError: the file or the folder cannot be used, or fewer than two images can be read.
    """
    listed = read_captions(captions, split)
    if limit is not None:
        step = -(-len(listed.files) // limit)
        listed = replace(listed, files=listed.files[::step], texts=listed.texts[::step])
    names = _found(listed, images)
    paths = [images / name for name in names]
    pixels: MemoryPixels | StreamedPixels
    if len(paths) * 3 * size**2 > MEMORY_LIMIT:
        kept = tuple(index for index, path in enumerate(paths) if readable(path))
        located = LocatedFiles((names[index] for index in kept), images)
        pixels = StreamedPixels(located, size, 1.0, workers, set())
        logger.info("%d images are decoded when they are needed, by %d workers", len(kept), workers)
    else:
        squares = read_squares(paths, size, f"Reading {split or 'images'}", progress)
        kept, pixels = squares.kept, MemoryPixels(squares.pixels_NCHW)
    left_out = sorted(set(range(len(paths))) - set(kept))
    missing = [index for index in left_out if not paths[index].is_file()]
    skipped = tuple(listed.files[index] for index in left_out)
    if skipped:
        logger.warning(
            "%d of %d images are left out with their captions, %d missing and %d no readable images: %s",
            len(skipped), len(paths), len(missing), len(skipped) - len(missing), shorten(skipped, 5),
        )  # fmt: skip
    if len(kept) < 2:
        raise InputError(
            images,
            f"{len(kept)} of the {len(paths)} images that {captions.name} names",
            "at least two",
            "give the folder that its names start from",
        )
    return CaptionedImages(
        pixels,
        tuple(listed.texts[index] for index in kept),
        tuple(listed.files[index] for index in kept),
        skipped,
    )


def _found(listed: Captions, images: Path) -> list[str]:
    """The names of the files below the folder: those of the captions, or without the folders in them."""
    if not images.is_dir():
        raise InputError(images, "no such folder", "a folder of images", "check the path")
    named = list(listed.files)
    if any((images / name).is_file() for name in named[:100]):
        return named
    flat = [Path(name).name for name in named]
    if len(set(flat)) == len(flat) and any((images / name).is_file() for name in flat[:100]):
        return flat
    return named


def image_file(images: Path, name: str) -> Path:
    """The file of one name of a caption file: below the folder, or in it without the folders of the name."""
    below, flat = images / name, images / Path(name).name
    return flat if flat.is_file() and not below.is_file() else below
