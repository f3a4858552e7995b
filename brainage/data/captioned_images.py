"""Images with their captions, read from a folder and a caption file."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from brainage.data.captions import Captions, read_captions
from brainage.data.squares import Progress, read_squares, shorten
from brainage.errors import InputError

logger = logging.getLogger("brainage")


@dataclass(frozen=True, eq=False)
class CaptionedImages:
    """Decoded images of one split with their captions, in memory.

    Attributes:
        pixels_NCHW: uint8, red, green and blue.
        texts: for each image its captions, at least one.
        files: path of each image below the folder of images.
        skipped: files that the captions name and that are missing or no readable image.
    """

    pixels_NCHW: Tensor
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
    captions: Path, images: Path, split: str | None, size: int, progress: Progress | None = None
) -> CaptionedImages:
    """Decode the images of a split to squares of ``size`` pixels.

    Images that are missing or cannot be decoded are left out with their captions, counted in a warning and
    named in ``skipped``.

    Args:
        captions: file of one of the forms of :mod:`brainage.data.captions`.
        images: folder that the names in it start from.
        split: of a file with splits.
        size: edge, pixels; the shorter side is resized to it and the centre cropped.
        progress: shows how far the reading is.

    Raises:
        InputError: the file or the folder cannot be used, or fewer than two images can be read.
        ConfigError: the images would need more than 8 GiB of memory.
    """
    listed = read_captions(captions, split)
    paths = _found(listed, images)
    squares = read_squares(paths, size, f"Reading {split or 'images'}", progress)
    missing = {path: "missing" for path in squares.skipped if not path.is_file()}
    skipped = tuple(listed.files[paths.index(path)] for path in squares.skipped)
    if skipped:
        logger.warning(
            "%d of %d images are left out with their captions, %d missing and %d no readable images: %s",
            len(skipped), len(paths), len(missing), len(skipped) - len(missing), shorten(skipped, 5),
        )  # fmt: skip
    if len(squares.kept) < 2:
        raise InputError(
            images,
            f"{len(squares.kept)} of the {len(paths)} images that {captions.name} names",
            "at least two",
            "give the folder that its names start from",
        )
    return CaptionedImages(
        squares.pixels_NCHW,
        tuple(listed.texts[index] for index in squares.kept),
        tuple(listed.files[index] for index in squares.kept),
        skipped,
    )


def _found(listed: Captions, images: Path) -> list[Path]:
    """Where each image is: below the folder as named, or in the folder itself."""
    if not images.is_dir():
        raise InputError(images, "no such folder", "a folder of images", "check the path")
    named = [images / name for name in listed.files]
    if any(path.is_file() for path in named[:100]):
        return named
    flat = [images / Path(name).name for name in listed.files]
    if len(set(flat)) == len(flat) and any(path.is_file() for path in flat[:100]):
        return flat
    return named
