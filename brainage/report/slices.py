"""Slices of a scan with a map over them: which, and how they lie in the picture.

Radiological convention: axial and coronal slices have the subject's right on the left of the picture;
sagittal ones have the front on the left.
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize

LETTERS = "#f2f4f7"

# Where the slices lie, as shares of the extent of the maps.
_AXIAL, _CORONAL, _SAGITTAL = (0.26, 0.42, 0.56, 0.72), (0.40, 0.62), (0.30, 0.70)
_MARGIN_MM = 10.0


@dataclass(frozen=True)
class Slice:
    """One column: the plane's axis (0 sagittal, 1 coronal, 2 axial) and its voxel."""

    axis: int
    voxel: int


def upright(image: nib.Nifti1Image) -> tuple[np.ndarray, np.ndarray]:
    """Data (X, Y, Z) with axes to the subject's right, front and top, and the voxel size (mm)."""
    canonical = nib.as_closest_canonical(image)
    data = np.array(canonical.dataobj, dtype=np.float32)
    return data.reshape(data.shape[:3]), np.array(canonical.header.get_zooms()[:3], dtype=float)


def shown_box(shown: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """(3, 2) first voxel and end of what is shown, with a margin, within the image."""
    where = np.argwhere(shown)
    margin = np.ceil(_MARGIN_MM / zooms).astype(int)
    low = np.maximum(where.min(axis=0) - margin, 0)
    high = np.minimum(where.max(axis=0) + 1 + margin, shown.shape)
    return np.column_stack([low, high])


def windowed(t1: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Intensities in [0, 1], black at the background and white at the 99th percentile in the box."""
    t1 = np.nan_to_num(t1)
    inside = t1[tuple(slice(*ends) for ends in box)]
    bright = inside[inside > inside.mean() * 0.2]
    low, high = float(inside.min()), float(np.percentile(bright if bright.size else inside, 99.5))
    return np.clip((t1 - low) / max(high - low, 1e-6), 0, 1)


def choose_slices(shown: np.ndarray) -> list[Slice]:
    where = np.argwhere(shown)
    low, high = where.min(axis=0), where.max(axis=0)
    return [
        Slice(axis, round(float(low[axis] + share * (high[axis] - low[axis]))))
        for axis, shares in ((2, _AXIAL), (1, _CORONAL), (0, _SAGITTAL))
        for share in (shares if axis else shares[::-1])
    ]


def plane_name(cut: Slice, shown: np.ndarray) -> str:
    if cut.axis:
        return "coronal" if cut.axis == 1 else "axial"
    xs = np.nonzero(shown.any(axis=(1, 2)))[0]
    return f"sagittal, {'left' if cut.voxel < xs.mean() else 'right'} side"


def draw_slice(axes: Axes, cut: Slice, t1: np.ndarray, box: np.ndarray, zooms: np.ndarray) -> None:
    """A slice of the T1: right on the left of the picture, or, if sagittal, front on the left."""
    index, extent = _cut(cut, box, zooms)
    axes.imshow(
        t1[index].T, cmap="gray", vmin=0, vmax=1, interpolation="bilinear", origin="lower", extent=extent
    )
    # All slices get the same height, so that they stand in one line.
    half = max((box[1:, 1] - box[1:, 0]) * zooms[1:]) / 2
    middle = (extent[2] + extent[3]) / 2
    axes.set(xticks=[], yticks=[], facecolor="black")
    # Limits that are set stay. An inverted axis would be turned back by the next image drawn on it, and
    # left would be right.
    axes.set(xlim=extent[1::-1], ylim=(middle - half, middle + half))
    axes.spines[:].set_visible(False)
    for x, letter, align in zip(
        (0.03, 0.97), "AP" if cut.axis == 0 else "RL", ("left", "right"), strict=True
    ):
        text = axes.text(x, 0.98, letter, color=LETTERS, fontsize=9, weight="bold", transform=axes.transAxes)
        text.set(ha=align, va="top")
        text.set_path_effects([patheffects.withStroke(linewidth=2, foreground="black")])


def draw_overlay(
    axes: Axes,
    cut: Slice,
    data: np.ndarray,
    box: np.ndarray,
    zooms: np.ndarray,
    colours: Colormap,
    norm: Normalize,
) -> None:
    """A map over the slice, transparent where it has no value and fainter where it says little."""
    index, extent = _cut(cut, box, zooms)
    flat = data[index].T
    rgba = colours(norm(np.nan_to_num(flat)))
    low, high = float(norm.vmin or 0), float(norm.vmax or 1)
    strength = 0.25 + 0.5 * np.clip(np.abs(flat) / high, 0, 1) if low == -high else 0.55
    rgba[..., 3] = np.where(np.isfinite(flat), strength, 0)
    axes.imshow(rgba, interpolation="nearest", origin="lower", extent=extent)


def _cut(
    cut: Slice, box: np.ndarray, zooms: np.ndarray
) -> tuple[tuple[slice | int, ...], tuple[float, float, float, float]]:
    """Index of the slice within the box, and its extent in mm."""
    index: list[slice | int] = [slice(*ends) for ends in box]
    index[cut.axis] = cut.voxel
    across, up = (axis for axis in range(3) if axis != cut.axis)
    (x0, x1), (y0, y1) = (box[axis] * zooms[axis] for axis in (across, up))
    return tuple(index), (float(x0), float(x1), float(y0), float(y1))
