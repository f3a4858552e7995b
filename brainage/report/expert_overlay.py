"""Images with the expert of each patch laid over them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from brainage.errors import ConfigError
from brainage.report.contact_sheet import INK, PAPER, QUIET, fitting

GAP, LINE, KEY, OPACITY = 10, 18, 46, 0.5


def expert_overlay(
    images: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    names: Sequence[str],
    tile: int = 192,
    title: str = "",
    columns: int = 6,
) -> Image.Image:
    """Draw each image, and below it the same with its patches in the colours of their experts.

    Args:
        images: (H, W, 3) uint8 each.
        maps: expert of each patch (rows, columns), -1 for none, which stays uncoloured.
        names: of the images.
        tile: edge of a drawn image, pixels.
        title: above all; none where empty.
        columns: images side by side.

    Raises:
        ConfigError: not as many maps and names as images.
    """
    if not len(images) == len(maps) == len(names):
        raise ConfigError("maps", len(maps), f"must be as many as the {len(images)} images and their names")
    colours = expert_colours(1 + max(int(m.max()) for m in maps))
    shown = sorted({int(e) for m in maps for e in np.unique(m) if e >= 0})
    font = ImageFont.load_default(13)
    columns = min(columns, len(images))
    width = GAP + columns * (tile + GAP)
    heading = textwrap.wrap(title, max(10, (width - 2 * GAP) // 7))
    top = GAP + len(heading) * LINE
    pair = 2 * tile + GAP + LINE + GAP
    keys = max(1, (width - GAP) // KEY)
    below = top + -(-len(images) // columns) * pair
    sheet = Image.new("RGB", (width, below + (1 + -(-len(shown) // keys)) * LINE + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(heading):
        draw.text((GAP, GAP + number * LINE - 4), line, INK, font)
    for place, (pixels, experts, name) in enumerate(zip(images, maps, names, strict=True)):
        left, upper = GAP + place % columns * (tile + GAP), top + place // columns * pair
        picture = Image.fromarray(pixels).resize((tile, tile), Image.Resampling.BICUBIC)
        sheet.paste(picture, (left, upper))
        sheet.paste(_laid(picture, experts, colours), (left, upper + tile + GAP))
        draw.text((left, upper + 2 * tile + GAP + 2), fitting(name, tile, font), QUIET, font)
    draw.text((GAP, below - 2), "expert of a patch:", INK, font)
    for place, expert in enumerate(shown):
        left, upper = GAP + place % keys * KEY, below + (1 + place // keys) * LINE
        draw.rectangle((left, upper + 2, left + 12, upper + 14), fill=tuple(map(int, colours[expert])))
        draw.text((left + 16, upper), str(expert + 1), INK, font)
    return sheet


def _laid(picture: Image.Image, experts: np.ndarray, colours: np.ndarray) -> Image.Image:
    """The picture under the colours of its patches' experts."""
    painted = np.where(experts[..., None] >= 0, colours[experts], 0).astype(np.uint8)
    alpha = np.where(experts >= 0, round(255 * OPACITY), 0).astype(np.uint8)
    cover, mask = (
        Image.fromarray(values).resize(picture.size, Image.Resampling.NEAREST) for values in (painted, alpha)
    )
    laid = picture.copy()
    laid.paste(cover, mask=mask)
    return laid


def expert_colours(count: int) -> np.ndarray:
    """Colours (E, 3) uint8 that can be told apart."""
    palette = colormaps["tab20"](np.r_[0:20:2, 1:20:2])[:, :3]
    return (255 * palette[np.arange(max(count, 1)) % len(palette)]).round().astype(np.uint8)
