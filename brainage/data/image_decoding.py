"""One image file to red, green and blue at a given size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for files that are no image, are cut short or claim absurd sizes."""


def decode(path: Path, size: int) -> np.ndarray:
    """The image upright, (3, size, size) uint8: shorter side resized to ``size`` (bicubic), centre cropped.

    EXIF rotation is applied. Transparency is laid on white; palettes, CMYK and grey become RGB; 16-bit grey
    is scaled from its full range, 65535 to 255; of an animation the first frame is taken.

    Raises:
        OSError, ValueError, SyntaxError: one of :data:`UNREADABLE`.
    """
    with Image.open(path) as opened:
        opened.draft("RGB", (size, size))
        image = to_rgb(ImageOps.exif_transpose(opened))
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


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
