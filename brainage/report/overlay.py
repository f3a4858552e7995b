"""Maps of one scan over its anatomy or over the template, drawn by nilearn; no display is needed.

Every picture has a colour bar or a legend, the subject's left and right, and the place of each slice in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nibabel as nib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from brainage.errors import ConfigError, InputError
from brainage.files import replacing
from brainage.report.mosaic import EXPERT_COLOURS

PAPER, INK, QUIET = "#0b0e13", "#f2f4f7", "#c3ccd7"
KINDS = ("mosaic", "slices", "glass")
FORMATS = (".png", ".svg")
LABELS = {"contribution": "years per block", "alignment": "cosine", "expert": "expert"}
_NOTE = "Research use only. Where the estimate comes from, not where disease is."


@dataclass(frozen=True)
class Layer:
    """A map to draw: its name, which decides the colours, its voxels, and the names behind its labels."""

    name: str
    image: nib.Nifti1Image
    experts: tuple[str, ...] = ()
    limit: float | None = None  # years at which the colours of contributions end


def save_overlay(
    path: str | PathLike[str],
    layer: Layer,
    background: nib.Nifti1Image,
    *,
    kind: str = "mosaic",
    axis: str = "z",
    at: Sequence[float] | None = None,
    space: str = "MNI",
    title: str = "",
) -> None:
    """Draw a map and write it as PNG or SVG.

    Args:
        path: by its suffix.
        layer: the map; NaN, and 0 of experts, are transparent.
        background: T1-weighted anatomy in the same world.
        kind: "mosaic" (slices along all three axes), "slices" (along one), or "glass" (projections of the
            largest contributions through the whole brain; MNI space only).
        axis: "x", "y" or "z", of "slices".
        at: positions of "slices" in mm; None spreads seven over the map.
        space: named beside the coordinates.
        title: heading.

    Raises:
        ConfigError: an unknown kind, axis or suffix, or a glass brain of something else than contributions.
    """
    path = Path(path)
    check_format(path)
    if kind not in KINDS:
        raise ConfigError("kind", kind, f"must be one of {', '.join(KINDS)}")
    if axis not in ("x", "y", "z"):
        raise ConfigError("axis", axis, "must be x, y or z")
    if kind == "glass" and layer.name != "contribution":
        raise ConfigError("kind", kind, "needs the map of contributions, which have a sign and a size")
    figure = Figure(figsize=(12, 7.6 if kind == "mosaic" else 3.6), facecolor=PAPER)
    draw_layer(figure, (0.01, 0.09, 0.86, 0.78), layer, background, kind, axis, at)
    caption(
        figure,
        title,
        f"{space} coordinates in mm. Radiological: the subject's right (R) is on the left. {_NOTE}",
    )
    key(figure, (0.885, 0.14, 0.016, 0.66), layer)
    save_figure(figure, path)


def draw_layer(
    figure: Figure,
    place: tuple[float, float, float, float],
    layer: Layer,
    background: nib.Nifti1Image,
    kind: str,
    axis: str = "z",
    at: Sequence[float] | None = None,
) -> None:
    """Draw a map in a part of a figure: left, bottom, width and height as shares of it."""
    mpl.use("Agg", force=False)
    from nilearn import plotting

    image = drawable(layer.image)
    colours, low, high = scale(layer)
    options: dict[str, Any] = {
        "figure": figure, "axes": place, "colorbar": False, "annotate": True, "radiological": True,
        "vmin": low, "vmax": high,
    }  # fmt: skip
    if kind == "glass":
        plotting.plot_glass_brain(
            image, display_mode="lyrz", cmap=colours, plot_abs=False, black_bg=True, threshold=0.15 * high,
            symmetric_cbar=False, **options,
        )  # fmt: skip
    else:
        mosaic = kind == "mosaic"
        cuts: Any = positions(image, axis, 7) if at is None else list(at)
        if mosaic:
            cuts = {name: positions(image, name, 6) for name in "xyz"}
        plotting.plot_stat_map(
            image, bg_img=_windowed(background), display_mode="mosaic" if mosaic else axis,
            cut_coords=cuts, cmap=colours, black_bg=True,
            threshold=1e-9, symmetric_cbar=False, resampling_interpolation="nearest", draw_cross=False, dim=0,
            transparency=_strength(image, layer.name, high), **options,
        )  # fmt: skip


def masked(image: nib.Nifti1Image, mask: nib.Nifti1Image) -> nib.Nifti1Image:
    """A map within a mask on its own grid; blocks reach beyond the brain."""
    data = np.asarray(image.dataobj, dtype=np.float32)
    return nib.Nifti1Image(np.where(np.asarray(mask.dataobj) > 0, data, np.nan), image.affine)


def _strength(image: nib.Nifti1Image, name: str, high: float) -> float | nib.Nifti1Image:
    """Opacity: small contributions are fainter, so that the anatomy is seen where little is said."""
    if name != "contribution":
        return 0.7
    size = np.clip(np.abs(np.asarray(image.dataobj)) / high, 0, 1)
    return nib.Nifti1Image((0.3 + 0.6 * size).astype(np.float32), image.affine)


def _windowed(background: nib.Nifti1Image) -> nib.Nifti1Image:
    """Cut at the 99.5th percentile of what is bright, since vessels and fat would leave the brain dark."""
    data = np.nan_to_num(np.asarray(background.dataobj, dtype=np.float32))
    bright = data[data > 0.2 * data.mean()]
    top = float(np.percentile(bright, 99.5)) if bright.size else 1.0
    return nib.Nifti1Image(np.clip(data, 0, top), background.affine)


def drawable(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Without NaN, which become 0: transparent."""
    data = np.nan_to_num(np.asarray(image.dataobj, dtype=np.float32))
    if not data.any():
        raise ConfigError("map", "no values", "must hold a value somewhere")
    return nib.Nifti1Image(data, image.affine)


def positions(image: nib.Nifti1Image, axis: str, count: int) -> list[float]:
    """Places in mm along an axis of the world, spread over what the map covers."""
    where = np.argwhere(np.asarray(image.dataobj) != 0)
    along = nib.affines.apply_affine(image.affine, where)[:, "xyz".index(axis)]
    low, high = np.percentile(along, [6, 94])
    return [float(round(value)) for value in np.linspace(low, high, count)]


def scale(layer: Layer) -> tuple[Any, float, float]:
    """Colour map and bounds: blue to red about zero, viridis, or a colour an expert."""
    data = np.asarray(layer.image.dataobj, dtype=np.float32)
    held = data[np.isfinite(data) & (data != 0)]
    if layer.name == "expert":
        count = max(len(layer.experts), int(held.max()) if held.size else 1)
        colours = [EXPERT_COLOURS[place % len(EXPERT_COLOURS)] for place in range(count)]
        return ListedColormap(colours), 0.5, count + 0.5
    if layer.name == "contribution":
        found = float(np.percentile(np.abs(held), 99)) if held.size else 1.0
        limit = layer.limit or max(found, 1e-3)
        return mpl.colormaps["RdBu_r"], -limit, limit
    low, high = np.percentile(held, [1, 99]) if held.size else (0.0, 1.0)
    return mpl.colormaps["viridis"], float(low), float(max(high, low + 1e-3))


def key(figure: Figure, place: tuple[float, float, float, float], layer: Layer) -> None:
    """A colour bar with its unit, or the names of the experts that are seen."""
    colours, low, high = scale(layer)
    if layer.name == "expert":
        seen = np.unique(np.asarray(layer.image.dataobj))
        handles = [
            Patch(color=colours(place - 1), label=name.replace("_", " "))
            for place, name in enumerate(layer.experts, 1)
            if place in seen
        ]
        figure.legend(
            handles=handles, loc="center left", bbox_to_anchor=(place[0] - 0.01, 0.5), frameon=False,
            labelcolor=INK, fontsize=8.5, handlelength=1, handleheight=1,
        )  # fmt: skip
        return
    axes = figure.add_axes(place)
    bar = figure.colorbar(mpl.cm.ScalarMappable(mpl.colors.Normalize(low, high), colours), cax=axes)
    bar.set_label(LABELS.get(layer.name, layer.name), color=INK, fontsize=10)
    axes.tick_params(colors=QUIET, labelsize=9)
    bar.outline.set_visible(False)
    if layer.name == "contribution":
        for y, word in ((1.05, "older"), (-0.07, "younger")):
            axes.text(
                0.5, y, word, transform=axes.transAxes, color=QUIET, fontsize=9, ha="center", va="center"
            )


def caption(figure: Figure, title: str, note: str) -> None:
    """The heading above and the note below."""
    inch = 1 / figure.get_figheight()
    figure.text(0.012, 1 - 0.24 * inch, title, color=INK, fontsize=14, weight="bold", va="center")
    figure.text(0.012, 0.17 * inch, note, color=QUIET, fontsize=9, va="center")


def check_format(path: Path) -> None:
    """Refuse a suffix that is neither PNG nor SVG."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError("output", path.name, f"must end with {' or '.join(FORMATS)}")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure by its suffix, without the date, so that equal pictures are equal files."""
    kind = path.suffix.lower().removeprefix(".")
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
    with replacing(path) as partial:
        figure.savefig(partial, format=kind, dpi=120, facecolor=PAPER, metadata=metadata)


def read_map(path: Path) -> nib.Nifti1Image:
    """A map that ``predict --maps`` wrote.

    Raises:
        InputError: missing or unreadable.
    """
    from brainage.report.scan_files import read_image

    image = read_image(path, "a map of brainage predict --maps")
    if len(image.shape) not in (3, 4):
        raise InputError(path, f"{len(image.shape)} dimensions", "a map of brainage predict", "predict again")
    return image
