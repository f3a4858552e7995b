"""One image file to red, green and blue at a given size."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for files that are no image, are cut short or claim absurd sizes."""


def decode(file: Path | IO[bytes], size: int, crop_pct: float = 1.0) -> np.ndarray:
    """The image upright, (3, size, size) uint8: shorter side resized (bicubic), centre cropped.

    The shorter side becomes ``size / crop_pct``, as in timm: with 0.875 an eighth of it is cropped away.

    EXIF rotation is applied. Transparency is laid on white; palettes, CMYK and grey become RGB; 16-bit grey
    is scaled from its full range, 65535 to 255; of an animation the first frame is taken.

    Raises:
        OSError, ValueError, SyntaxError: one of :data:`UNREADABLE`.
    """
    resized = round(size / crop_pct)
    with Image.open(file) as opened:
        opened.draft("RGB", (resized, resized))
        image = to_rgb(ImageOps.exif_transpose(opened))
    image = ImageOps.fit(image, (resized, resized), Image.Resampling.BICUBIC)
    first = (resized - size) // 2
    return np.asarray(image.crop((first, first, first + size, first + size))).transpose(2, 0, 1)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow to 8-bit RGB."""
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion clips at 255.
        values = np.asarray(image).astype(np.float64) / 257
        return Image.fromarray(np.clip(values.round(), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured).convert("RGB")
    return image.convert("RGB")


def readable(path: Path) -> bool:
    """Whether a file begins as an image does. One that is cut short later does too."""
    try:
        with Image.open(path):
            return True
    except UNREADABLE:
        return False
