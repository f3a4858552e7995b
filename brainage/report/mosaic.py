"""One picture of a scan: its own anatomy, with where its predicted age came from.

Rows are the T1 alone and the three maps over it; columns are axial, coronal and sagittal slices in the
radiological convention, with the subject's left and right marked on each.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Patch
from PIL import Image
from scipy import ndimage

from brainage.errors import ConfigError
from brainage.files import replacing
from brainage.report.page import data_uri
from brainage.report.slices import (
    Slice,
    choose_slices,
    draw_overlay,
    draw_slice,
    plane_name,
    shown_box,
    upright,
    windowed,
)

_DPI = 120
_STRIP = "brainage:contribution"  # key of the PNG's text that says where the contributions lie, in pixels
_PAPER, _INK, _QUIET, _BADGE = "#0b0e13", "#f2f4f7", "#aab4c0", "#ffd166"
# For the regional experts, in the order of the groups, and then the free ones. The first twelve were found by
# search: in CIELAB any two are at least 25 apart to protan and deutan readers, and 40 to others.
EXPERT_COLOURS = (
    *("#4e9de6", "#ffec1a", "#ec9f79", "#532dff", "#b21a40", "#53ffc6", "#9f2d8c", "#8c8c8c", "#1a66ec"),
    *("#ff1a1a", "#40ecff", "#b2ff79", "#e8e8e8", "#7a4a1e", "#3f7f3f", "#c9a27e"),
)

_CONVENTION = (
    "Research use only; not a medical device, not for diagnosis.    Radiological convention: the subject's "
    "right (R) is on the left of the picture."
)
_EXPLANATION = (
    "Each block is one patch of the model. Contribution: years that the patch adds to or takes from the "
    "prediction. Expert: the one with the largest weight in the patch; where experts work is not where "
    "disease is.\nAlignment: cosine between the patch and its context in that expert's basis."
)


def save_mosaic(
    path: str | PathLike[str],
    t1: nib.Nifti1Image,
    *,
    expert: nib.Nifti1Image,
    alignment: nib.Nifti1Image,
    contribution: nib.Nifti1Image,
    expert_names: Sequence[str],
    title: str,
    simulated: bool = False,
    scope: str = "",
    warning: str = "",
    brain_mask: nib.Nifti1Image | None = None,
) -> None:
    """Write the picture that :func:`draw_mosaic` draws, with the same arguments, as a PNG."""
    figure = draw_mosaic(
        t1,
        expert=expert,
        alignment=alignment,
        contribution=contribution,
        expert_names=expert_names,
        title=title,
        simulated=simulated,
        scope=scope,
        warning=warning,
        brain_mask=brain_mask,
    )
    left, top, right, bottom = _strip(figure)
    facts = {_STRIP: f"{left} {top} {right} {bottom}"}
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=_DPI, metadata=facts)


def contribution_strip(png: Path, width: int = 240) -> str | None:
    """The contributions of a mosaic by themselves, small, as an address; None for a picture without them."""
    with Image.open(png) as image:
        place = str(getattr(image, "text", {}).get(_STRIP, "")).split()
        if len(place) != 4:
            return None
        left, top, right, bottom = (int(value) for value in place)
        strip = image.convert("RGB").crop((left, top, right, bottom))
    strip = strip.resize((width, max(1, round(strip.height * width / max(strip.width, 1)))))
    file = io.BytesIO()
    strip.save(file, "webp", quality=45, method=4)
    return data_uri(file.getvalue(), "webp")


def draw_mosaic(
    t1: nib.Nifti1Image,
    *,
    expert: nib.Nifti1Image,
    alignment: nib.Nifti1Image,
    contribution: nib.Nifti1Image,
    expert_names: Sequence[str],
    title: str,
    simulated: bool = False,
    scope: str = "",
    warning: str = "",
    brain_mask: nib.Nifti1Image | None = None,
) -> Figure:
    """Draw the T1 and the three maps over it.

    Args:
        t1: the scan, (X, Y, Z) in any orientation.
        expert: 1-based index into ``expert_names`` on the grid of ``t1``; NaN or 0 where there is none.
        alignment: cosine, same grid, NaN outside.
        contribution: years, same grid, NaN outside.
        expert_names: names for the legend.
        title: heading, such as the scan's name and its predicted age.
        simulated: says so in large letters.
        scope: what the age's interval does not contain, shown under the heading.
        warning: reason to doubt the age, shown below that.
        brain_mask: same grid; the maps, which reach to the rims of their patches, are shown inside it only.

    Raises:
        ConfigError: a map is on another grid than ``t1``, or no map holds a value.
    """
    images = {"expert": expert, "alignment": alignment, "contribution": contribution}
    if brain_mask is not None:
        images["brain_mask"] = brain_mask
    for name, image in images.items():
        same = image.shape[:3] == t1.shape[:3] and np.allclose(image.affine, t1.affine, atol=1e-2)
        if not same:
            raise ConfigError(name, image.shape, f"must be on the grid of the T1, {t1.shape[:3]}")
    background, zooms = upright(t1)
    maps = {name: upright(image)[0] for name, image in images.items()}
    maps["expert"][maps["expert"] == 0] = np.nan
    shown = np.isfinite(maps["contribution"]) | np.isfinite(maps["expert"])
    if not shown.any():
        raise ConfigError("contribution", "no values", "must hold a value somewhere")
    box = shown_box(shown, zooms)
    background = windowed(background, box)
    if brain_mask is None:
        inside = ndimage.binary_fill_holes(background > 0.04)
    else:
        inside = maps.pop("brain_mask") > 0
    for data in maps.values():
        data[~inside] = np.nan
    slices = choose_slices(shown)
    figure, grid = _canvas(box, zooms, slices, title, simulated, scope, warning)
    colours = {
        "T1": None,
        "contribution": _diverging(maps["contribution"]),
        "expert": _categories(expert_names),
        "alignment": _sequential(maps["alignment"]),
    }
    for row, (name, scale) in enumerate(colours.items()):
        for column, cut in enumerate(slices):
            axes = figure.add_subplot(grid[row, column])
            draw_slice(axes, cut, background, box, zooms)
            if scale is not None:
                draw_overlay(axes, cut, maps[name], box, zooms, *scale)
            if row == 0:
                axes.set_title(plane_name(cut, shown), color=_QUIET, fontsize=9.5, pad=4)
            if column == 0:
                axes.set_ylabel(name, color=_INK, fontsize=11, labelpad=8)
        legend = figure.add_subplot(grid[row, len(slices)])
        legend.set_axis_off()
        if name == "expert":
            _expert_legend(legend, maps["expert"], expert_names)
        elif scale is not None:
            _colour_bar(figure, legend, name, *scale)
    return figure


def _canvas(
    box: np.ndarray,
    zooms: np.ndarray,
    slices: list[Slice],
    title: str,
    simulated: bool,
    scope: str,
    warning: str,
) -> tuple[Figure, GridSpec]:
    """The figure with its texts, and a grid of four rows with a column a slice and one for legends."""
    sizes = (box[:, 1] - box[:, 0]) * zooms
    row = 1.75  # inches
    widths = [row * (sizes[1] if cut.axis == 0 else sizes[0]) / max(sizes[1:]) for cut in slices]
    legend, width = 2.0, sum(widths) + 2.9
    letters = int(11 * width)
    lines = [(line, _INK, "normal") for line in textwrap.wrap(scope, letters)]
    if warning:
        lines += [(line, _BADGE, "bold") for line in textwrap.wrap(f"Warning: {warning}", letters)]
    head = 0.95 + 0.25 * len(lines)
    height = 4 * row + head + 0.7
    figure = Figure(figsize=(width, height), facecolor=_PAPER)
    grid = figure.add_gridspec(
        4,
        len(slices) + 1,
        width_ratios=[*widths, legend],
        left=0.5 / width,
        right=1 - 0.15 / width,
        bottom=0.6 / height,
        top=1 - head / height,
        wspace=0.02,
        hspace=0.02,
    )
    left = 0.25 / width
    figure.text(left, 1 - 0.3 / height, title, color=_INK, fontsize=15, weight="bold", va="center")
    figure.text(left, 1 - 0.6 / height, _CONVENTION, color=_QUIET, fontsize=10, va="center")
    for number, (line, colour, weight) in enumerate(lines):
        place = (left, 1 - (0.88 + 0.25 * number) / height)
        figure.text(*place, line, color=colour, fontsize=11, weight=weight, va="center")
    figure.text(left, 0.3 / height, _EXPLANATION, color=_QUIET, fontsize=9, va="center", linespacing=1.5)
    if simulated:
        badge = {"boxstyle": "round,pad=0.35", "facecolor": _BADGE, "edgecolor": "none"}
        place = (1 - left, 1 - 0.35 / height)
        figure.text(
            *place,
            "SIMULATED DATA",
            color="#222",
            fontsize=12,
            weight="bold",
            ha="right",
            va="center",
            bbox=badge,
        )
    return figure, grid


def _strip(figure: Figure) -> tuple[int, int, int, int]:
    """Left, top, right and bottom, in pixels, of the four axial contributions."""
    row = [axes for axes in figure.axes if axes.images][8:12]
    boxes = [axes.get_position() for axes in row]
    width, height = figure.get_size_inches() * _DPI
    left, right = min(box.x0 for box in boxes) * width, max(box.x1 for box in boxes) * width
    top, bottom = (1 - max(box.y1 for box in boxes)) * height, (1 - min(box.y0 for box in boxes)) * height
    return round(left), round(top), round(right), round(bottom)


def _diverging(data: np.ndarray) -> tuple[Colormap, Normalize]:
    values = np.abs(data[np.isfinite(data)])
    limit = max(float(np.percentile(values, 99)) if values.size else 0.0, 1e-3)
    return colormaps["RdBu_r"], Normalize(-limit, limit)


def _sequential(data: np.ndarray) -> tuple[Colormap, Normalize]:
    values = data[np.isfinite(data)]
    low, high = np.percentile(values, [1, 99]) if values.size else (0.0, 1.0)
    return colormaps["viridis"], Normalize(float(low), float(max(high, low + 1e-3)))


def _categories(names: Sequence[str]) -> tuple[Colormap, Normalize]:
    colours = [EXPERT_COLOURS[i % len(EXPERT_COLOURS)] for i in range(len(names))]
    return ListedColormap(colours), Normalize(0.5, len(names) + 0.5)


def _colour_bar(figure: Figure, axes: Axes, name: str, colours: Colormap, norm: Normalize) -> None:
    inset = axes.inset_axes((0.1, 0.14, 0.08, 0.72))
    bar = figure.colorbar(ScalarMappable(norm, colours), cax=inset)
    label = {"contribution": "years per patch", "alignment": "cosine"}[name]
    bar.set_label(label, color=_INK, fontsize=9.5)
    bar.ax.tick_params(colors=_QUIET, labelsize=8.5)
    bar.outline.set_visible(False)
    if name == "contribution":
        for y, text in ((0.93, "older"), (0.07, "younger")):
            axes.text(0.1, y, text, transform=axes.transAxes, color=_QUIET, fontsize=9, va="center")


def _expert_legend(axes: Axes, data: np.ndarray, names: Sequence[str]) -> None:
    """Names of the experts seen, with the share of the shown volume that each has."""
    colours, norm = _categories(names)
    seen = data[np.isfinite(data)].astype(int)
    shares = np.bincount(seen, minlength=len(names) + 1)[1:] / max(seen.size, 1)
    handles = [
        Patch(color=colours(norm(i + 1)), label=f"{name.replace('_', ' ')}  {100 * share:.0f} %")
        for i, (name, share) in enumerate(zip(names, shares, strict=False))
        if share > 0
    ]
    axes.legend(
        handles=handles, loc="center left", fontsize=7.5 if len(handles) > 9 else 8.5, frameon=False,
        labelcolor=_INK, handlelength=1, handleheight=1, borderpad=0, labelspacing=0.25,
    )  # fmt: skip
