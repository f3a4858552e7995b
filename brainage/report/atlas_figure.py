"""A parcellation over the template, coloured by group."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import nibabel as nib
import numpy as np
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from brainage.files import replacing
from brainage.report.mosaic import EXPERT_COLOURS
from brainage.report.slices import (
    LETTERS,
    choose_slices,
    draw_overlay,
    draw_slice,
    plane_name,
    shown_box,
    upright,
    windowed,
)

_PAPER = "#0b0e13"


def save_atlas_figure(
    path: str | PathLike[str],
    t1: nib.Nifti1Image,
    labels: nib.Nifti1Image,
    groups: Sequence[tuple[int, str]],
    title: str,
) -> None:
    """Write a PNG of eight slices.

    Args:
        path: of the PNG.
        t1: the template, on the grid of ``labels``.
        labels: 0 outside.
        groups: the label and the group of each region; regions of a group differ in brightness.
        title: heading.
    """
    background, zooms = upright(t1)
    data = upright(labels)[0]
    shown = data > 0
    box = shown_box(shown, zooms)
    background = windowed(background, box)
    slices = choose_slices(shown)
    names = list(dict.fromkeys(group for _, group in groups))
    base = {group: np.array(to_rgb(EXPERT_COLOURS[i % len(EXPERT_COLOURS)])) for i, group in enumerate(names)}
    size = int(data.max()) + 1
    colours = np.zeros((size, 3))
    for rank, (label, group) in enumerate(groups):
        # Neighbours of one group alternate in brightness.
        colours[label] = base[group] * (1.0, 0.72, 0.86)[rank // 2 % 3]
    sizes = (box[:, 1] - box[:, 0]) * zooms
    widths = [2.0 * (sizes[1] if cut.axis == 0 else sizes[0]) / max(sizes[1:]) for cut in slices]  # inches
    figure = Figure(figsize=(sum(widths) + 2.3, 2.75), facecolor=_PAPER)
    grid = figure.add_gridspec(
        1, 9, width_ratios=[*widths, 2.0], left=0.012, right=0.99, bottom=0.03, top=0.76, wspace=0.02
    )
    for column, cut in enumerate(slices):
        axes = figure.add_subplot(grid[0, column])
        draw_slice(axes, cut, background, box, zooms)
        values = np.where(shown, data, np.nan)
        draw_overlay(axes, cut, values, box, zooms, ListedColormap(colours), Normalize(-0.5, size - 0.5))
        axes.set_title(plane_name(cut, shown), color="#aab4c0", fontsize=9, pad=4)
    legend = figure.add_subplot(grid[0, 8])
    legend.set_axis_off()
    handles = [Patch(color=tuple(base[group].tolist()), label=group.replace("_", " ")) for group in names]
    legend.legend(handles=handles, loc="center left", fontsize=8.5, frameon=False, labelcolor=LETTERS)
    figure.text(0.012, 0.93, title, color=LETTERS, fontsize=13, weight="bold", va="center")
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
