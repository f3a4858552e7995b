"""Image files as equal squares in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from brainage.data.image_decoding import UNREADABLE, decode
from brainage.errors import ConfigError

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


def read_squares(files: Sequence[Path], size: int, title: str, progress: Progress | None = None) -> Squares:
    """Decode files to squares of ``size`` pixels; what cannot be decoded is left out.

    Args:
        files: to decode.
        size: edge, pixels; the shorter side is resized to it and the centre cropped.
        title: of the progress.
        progress: shows how far the reading is.

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
                pixels[len(kept)] = torch.from_numpy(decode(path, size))
            except UNREADABLE:
                skipped.append(path)
            else:
                kept.append(index)
    return Squares(pixels[: len(kept)], tuple(kept), tuple(skipped))


def shorten(names: Sequence[str], shown: int = 3) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
