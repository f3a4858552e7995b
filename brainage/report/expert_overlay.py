"""Images with the expert of each patch laid over them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from brainage.errors import ConfigError

PAPER, INK, QUIET = (255, 255, 255), (20, 24, 32), (96, 104, 116)
GAP, LINE, OPACITY = 10, 18, 0.5


def expert_overlay(
    images: Sequence[np.ndarray], maps: Sequence[np.ndarray], names: Sequence[str], tile: int = 192
) -> Image.Image:
    """Draw each image, and below it the same with its patches in the colours of their experts.

    Args:
        images: (H, W, 3) uint8 each.
        maps: expert of each patch (rows, columns), -1 for none, which stays uncoloured.
        names: of the images.
        tile: edge of a drawn image, pixels.

    Raises:
        ConfigError: not as many maps and names as images.
    """
    if not len(images) == len(maps) == len(names):
        raise ConfigError("maps", len(maps), f"must be as many as the {len(images)} images and their names")
    colours = expert_colours(1 + max(int(m.max()) for m in maps))
    font = ImageFont.load_default(13)
    height = 2 * tile + 2 * GAP + 2 * LINE + GAP
    sheet = Image.new("RGB", (GAP + len(images) * (tile + GAP), height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, (pixels, experts, name) in enumerate(zip(images, maps, names, strict=True)):
        left = GAP + column * (tile + GAP)
        picture = Image.fromarray(pixels).resize((tile, tile), Image.Resampling.BICUBIC)
        sheet.paste(picture, (left, GAP))
        painted = np.where(experts[..., None] >= 0, colours[experts], 0).astype(np.uint8)
        alpha = np.where(experts >= 0, round(255 * OPACITY), 0).astype(np.uint8)
        cover, mask = (
            Image.fromarray(values).resize((tile, tile), Image.Resampling.NEAREST)
            for values in (painted, alpha)
        )
        laid = picture.copy()
        laid.paste(cover, mask=mask)
        sheet.paste(laid, (left, 2 * GAP + tile))
        draw.text((left, 2 * GAP + 2 * tile + 2), name[:28], QUIET, font)
    left = GAP
    for expert in sorted({int(e) for m in maps for e in np.unique(m) if e >= 0}):
        top = height - LINE - 2
        draw.rectangle((left, top + 2, left + 12, top + 14), fill=tuple(map(int, colours[expert])))
        draw.text((left + 16, top), str(expert + 1), INK, font)
        left += 46
    return sheet


def expert_colours(count: int) -> np.ndarray:
    """Colours (E, 3) uint8 that can be told apart."""
    palette = colormaps["tab20"](np.r_[0:20:2, 1:20:2])[:, :3]
    return (255 * palette[np.arange(max(count, 1)) % len(palette)]).round().astype(np.uint8)
