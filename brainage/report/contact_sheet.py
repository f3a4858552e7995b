"""Images found for a text, side by side with their similarity."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from brainage.data.image_decoding import UNREADABLE, to_rgb

PAPER, INK, QUIET = (255, 255, 255), (20, 24, 32), (96, 104, 116)
GAP, LINE = 12, 18


def contact_sheet(
    title: str, found: Sequence[tuple[Path, str]], tile: int = 160, columns: int = 5
) -> Image.Image:
    """Draw images in the order given, row by row, each with a line of text below it.

    Args:
        title: above all.
        found: image files and their lines. One that is gone or damaged leaves its place empty, and says so.
        tile: edge of an image, pixels; images are fitted into it whole.
        columns: images in a row.
    """
    font, bold = ImageFont.load_default(13), ImageFont.load_default(16)
    columns = max(1, min(columns, len(found)))
    width = GAP + columns * (tile + GAP)
    heading = textwrap.wrap(title, max(10, (width - 2 * GAP) // 8))[:4]
    top = GAP + len(heading) * (LINE + 4) + GAP // 2
    rows = -(-len(found) // columns)
    sheet = Image.new("RGB", (width, top + rows * (tile + LINE + GAP) + GAP // 2), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(heading):
        draw.text((GAP, GAP + number * (LINE + 4)), line, INK, bold)
    for place, (path, line) in enumerate(found):
        left = GAP + place % columns * (tile + GAP)
        upper = top + place // columns * (tile + LINE + GAP)
        try:
            with Image.open(path) as opened:
                picture = to_rgb(ImageOps.exif_transpose(opened))
                picture = ImageOps.contain(picture, (tile, tile))
            sheet.paste(picture, (left + (tile - picture.width) // 2, upper + (tile - picture.height) // 2))
        except UNREADABLE:
            draw.rectangle((left, upper, left + tile - 1, upper + tile - 1), outline=QUIET)
            said = "no readable image" if path.is_file() else "file is gone"
            draw.text((left + 6, upper + tile // 2 - 8), said, QUIET, font)
        draw.text((left, upper + tile + 2), fitting(line, tile, font), QUIET, font)
    return sheet


def fitting(line: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of a line from its beginning as is no wider than ``width`` pixels."""
    while line and font.getlength(line) > width:
        line = line[:-2].rstrip("…") + "…" if len(line) > 2 else ""
    return line
