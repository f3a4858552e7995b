"""One picture of a scan to judge its preprocessing by: where the mask lies, and how the brain was aligned.

Above, slices of the scan itself with the contour of its brain mask; below, slices of the aligned brain with
the contours of the template's brain and ventricles. Radiological convention, as in ``slices``.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from nilearn.datasets import load_mni152_brain_mask
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from brainage.anatomy.atlas import built_in
from brainage.anatomy.grid import MODEL_GRID

PAPER, INK, QUIET = (11, 14, 19), (242, 244, 247), (170, 180, 192)
MASK, BRAIN, VENTRICLES = (255, 209, 102), (78, 201, 240), (239, 90, 160)
VERDICTS = {"ok": (122, 204, 122), "warning": (255, 209, 102), "failed": (255, 120, 110)}
# Edges of a tile and margins, pixels.
TILE, GAP, SIDE = (176, 196), 6, 12
# Slices of the aligned brain: axis and MNI mm. Through cerebellum, deep nuclei, ventricles and vertex.
MNI_SLICES = ((2, -38.0), (2, -4.0), (2, 22.0), (2, 48.0), (1, -56.0), (1, -14.0), (0, -28.0))
# Of the scan: axis and share of the extent of its mask.
SCAN_SLICES = ((2, 0.12), (2, 0.4), (2, 0.62), (2, 0.86), (1, 0.35), (1, 0.65), (0, 0.4))
SCAN_MARGIN_MM = 25.0  # of the scan around its mask
GREYS = 64  # of the file; more only make it larger


@dataclass(frozen=True, eq=False)
class Layer:
    """A region whose outline is drawn: (X, Y, Z) bool on the image's grid, and its colour."""

    region: np.ndarray
    colour: tuple[int, int, int]


def qc_picture(
    *,
    title: str,
    status: str,
    reasons: str,
    scan: tuple[np.ndarray, np.ndarray] | None = None,
    mask: np.ndarray | None = None,
    volume: np.ndarray | None = None,
) -> Image.Image:
    """Draw what there is.

    Args:
        title: the scan's name.
        status: ``ok``, ``warning`` or ``failed``.
        reasons: for it, in words.
        scan: intensities (X, Y, Z) and voxel -> world RAS mm (4, 4), axes in the order of RAS; None where the
            scan is not at hand.
        mask: of its brain, (X, Y, Z) bool; None after a failure.
        volume: (80, 96, 80) on ``MODEL_GRID``; None after a failure.
    """
    rows: list[tuple[str, list[Image.Image]]] = []
    if scan is not None:
        if mask is not None and mask.any():
            image, affine, mask = _near(mask, *scan)
            tiles = _row(image, affine, [Layer(mask, MASK)], _by_extent(mask))
            rows.append(("scan, with the contour of its brain mask", tiles))
        else:
            tiles = _row(*scan, [], _by_extent(np.ones(scan[0].shape, bool)))
            rows.append(("scan; it has no brain mask", tiles))
    if volume is not None:
        layers = _template_layers()
        cuts = [(axis, _nearest_layer(axis, mm)) for axis, mm in MNI_SLICES]
        name = "aligned to MNI152, with the template's brain (blue) and ventricles (pink)"
        rows.append((name, _row(volume, MODEL_GRID.affine, layers, cuts)))
    return _page(title, status, reasons, rows)


def png_of(picture: Image.Image) -> bytes:
    """The picture as a PNG of few colours, about 100 kB."""
    file = io.BytesIO()
    picture.quantize(palette=_palette(), dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


@lru_cache(maxsize=1)
def _palette() -> Image.Image:
    """Greys, and every other colour at several strengths: counting pixels would lose thin lines."""
    entries: list[tuple[int, ...]] = [(round(255 * i / (GREYS - 1)),) * 3 for i in range(GREYS)]
    for colour in (PAPER, MASK, BRAIN, VENTRICLES, *VERDICTS.values()):
        entries += [tuple(round(part * share) for part in colour) for share in (0.35, 0.6, 0.8, 1.0)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for entry in entries for part in entry])
    return palette


def thumbnail(scan: tuple[np.ndarray, np.ndarray] | None, volume: np.ndarray | None) -> bytes | None:
    """A JPEG of a few kB: three slices of the aligned brain, or of the scan if there is none."""
    if volume is not None:
        cuts = [(axis, _nearest_layer(axis, mm)) for axis, mm in ((2, 22.0), (1, -14.0), (0, -28.0))]
        tiles = _tiles(volume, MODEL_GRID.affine, _template_layers(), cuts, (72, 80), False)
    elif scan is not None:
        cuts = [(axis, scan[0].shape[axis] // 2) for axis in (2, 1, 0)]
        tiles = _tiles(scan[0], scan[1], [], cuts, (72, 80), False)
    else:
        return None
    strip = Image.new("RGB", (72 * len(tiles), 80))
    for index, tile in enumerate(tiles):
        strip.paste(tile, (72 * index, 0))
    file = io.BytesIO()
    strip.save(file, "JPEG", quality=55, optimize=True)
    return file.getvalue()


@lru_cache(maxsize=1)
def _template() -> tuple[np.ndarray, np.ndarray]:
    """The template's brain and its ventricles on ``MODEL_GRID``, (80, 96, 80) bool."""
    image = load_mni152_brain_mask(resolution=2)
    to_mask = np.linalg.inv(image.affine) @ MODEL_GRID.affine
    brain = ndimage.affine_transform(
        np.asarray(image.dataobj, np.float32), to_mask, output_shape=MODEL_GRID.shape, order=1
    )
    atlas = built_in()
    ventricles = atlas.regions.loc[atlas.regions["group"] == "ventricles", "index"]
    return brain > 0.5, np.isin(atlas.labels, ventricles)


def _template_layers() -> list[Layer]:
    return [Layer(region, colour) for region, colour in zip(_template(), (BRAIN, VENTRICLES), strict=True)]


def _nearest_layer(axis: int, mm: float) -> int:
    return round((mm - MODEL_GRID.origin[axis]) / MODEL_GRID.spacing)


def _near(
    mask: np.ndarray, image: np.ndarray, affine: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, affine and mask of the neighbourhood of the mask."""
    margin = np.ceil(SCAN_MARGIN_MM / np.linalg.norm(affine[:3, :3], axis=0)).astype(int)
    (found,) = ndimage.find_objects(mask.astype(np.uint8))
    box = tuple(
        slice(max(0, part.start - room), part.stop + room) for part, room in zip(found, margin, strict=True)
    )
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    return image[box], moved, mask[box]


def _by_extent(shown: np.ndarray) -> list[tuple[int, int]]:
    where = np.argwhere(shown)
    low, high = where.min(axis=0), where.max(axis=0)
    return [(axis, round(float(low[axis] + share * (high[axis] - low[axis])))) for axis, share in SCAN_SLICES]


def _row(
    image: np.ndarray, affine: np.ndarray, layers: Sequence[Layer], cuts: Sequence[tuple[int, int]]
) -> list[Image.Image]:
    return _tiles(image, affine, layers, cuts, TILE, True)


def _tiles(
    image: np.ndarray,
    affine: np.ndarray,
    layers: Sequence[Layer],
    cuts: Sequence[tuple[int, int]],
    size: tuple[int, int],
    lettered: bool,
) -> list[Image.Image]:
    """Slices in grey, all at one scale, with outlines and letters."""
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    extent = np.array(image.shape) * zooms
    # Width and height in mm of axial, coronal and sagittal slices.
    scale = min(size[0] / max(extent[0], extent[1]), size[1] / max(extent[1], extent[2]))
    values = np.nan_to_num(image[:: max(1, image.shape[0] // 64)])
    seen = values[values > 0.05 * float(values.max())] if values.max() > 0 else values
    top = float(np.percentile(seen, 99)) or 1.0
    tiles = []
    for axis, voxel in cuts:
        across, up = (other for other in range(3) if other != axis)
        pixels = (max(1, round(extent[across] * scale)), max(1, round(extent[up] * scale)))
        grey = _resized(np.take(image, voxel, axis), pixels) / top
        rgb = np.repeat(np.clip(grey * 255, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        for layer in layers:
            inside = _resized(np.take(layer.region, voxel, axis), pixels) > 0.5
            rgb[inside & ~ndimage.binary_erosion(inside)] = layer.colour
        tile = Image.new("RGB", size)
        tile.paste(Image.fromarray(rgb), ((size[0] - pixels[0]) // 2, (size[1] - pixels[1]) // 2))
        if lettered:
            middle = np.array([(n - 1) / 2 for n in image.shape])
            middle[axis] = voxel
            world = float((affine[:3, :3] @ middle + affine[:3, 3])[axis])
            _letter(tile, "AP" if axis == 0 else "RL", f"{'xyz'[axis]} {world:+.0f} mm")
        tiles.append(tile)
    return tiles


def _resized(flat: np.ndarray, pixels: tuple[int, int]) -> np.ndarray:
    """A slice with its second axis upwards and its first to the left, (height, width) float32."""
    picture = Image.fromarray(np.ascontiguousarray(flat[::-1, ::-1].T, dtype=np.float32))
    return np.asarray(picture.resize(pixels, Image.Resampling.BILINEAR))


def _letter(tile: Image.Image, sides: str, place: str) -> None:
    pen = ImageDraw.Draw(tile)
    width, height = tile.size
    black = (0, 0, 0)
    pen.text((5, 3), sides[0], INK, _font(15), "la", stroke_width=2, stroke_fill=black)
    pen.text((width - 5, 3), sides[1], INK, _font(15), "ra", stroke_width=2, stroke_fill=black)
    pen.text((width / 2, height - 4), place, QUIET, _font(12), "md", stroke_width=2, stroke_fill=black)


def _page(
    title: str, status: str, reasons: str, rows: Sequence[tuple[str, list[Image.Image]]]
) -> Image.Image:
    width = 2 * SIDE + len(SCAN_SLICES) * (TILE[0] + GAP) - GAP
    words = textwrap.wrap(reasons, 190)[:4] if reasons else []
    top = 40 + 18 * len(words)
    page = Image.new("RGB", (width, top + len(rows) * (TILE[1] + 26) + 28), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((SIDE, 10), title, INK, _font(18), "la")
    pen.text((width - SIDE, 10), status, VERDICTS.get(status, INK), _font(18), "ra")
    for index, line in enumerate(words):
        pen.text((SIDE, 36 + 18 * index), line, VERDICTS.get(status, INK), _font(13), "la")
    for index, (name, tiles) in enumerate(rows):
        y = top + index * (TILE[1] + 26)
        pen.text((SIDE, y), name, QUIET, _font(13), "la")
        for column, tile in enumerate(tiles):
            page.paste(tile, (SIDE + column * (TILE[0] + GAP), y + 18))
    foot = "The subject's right (R) is on the left of the picture.   Research use only; not for diagnosis."
    pen.text((SIDE, page.height - 22), foot, QUIET, _font(12), "la")
    return page


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
