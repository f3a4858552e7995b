"""Where the image-quality metrics look: the tissues of the brain, and the air around the head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import ndimage

# Distance from a landmark, as a share of the step from grey to white matter, up to which a voxel is sure.
SURE = 0.25
# Of the smoothing before voxels are told apart, mm: noise does not decide which tissue a voxel is.
SMOOTHING_MM = 1.0
# Air is looked at on voxels of about this edge, mm, taken from the scan, not averaged.
AIR_SPACING_MM = 2.0
# Intensity of the scalp at least, as a share of the brain's median.
SCALP = 0.35
# Between the head and the air that counts, mm: blurred skin, and ears.
AIR_MARGIN_MM = 6.0
# Of air voxels with a signal, for their noise to be known; scanners that erase the background leave none.
FEWEST_AIR_VOXELS = 1000
# Two points of the midline in MNI mm (y, z): nasion and the bone below the cerebellum. Above the line
# through them there is nothing but air outside of a head.
_NASION, _BACK = (86.0, -40.0), (-118.0, -50.0)


class Tissues(NamedTuple):
    """Sure voxels of each tissue, (X, Y, Z) bool."""

    fluid: np.ndarray
    grey: np.ndarray
    white: np.ndarray


def sure_tissues(
    image: np.ndarray, mask: np.ndarray, spacing: np.ndarray, grey: float, white: float
) -> Tissues:
    """Voxels of the brain whose smoothed intensity lies near that of a tissue.

    Args:
        image: (X, Y, Z), corrected for its bias field.
        mask: of the brain, (X, Y, Z) bool.
        spacing: (3,) mm.
        grey, white: commonest intensity of each; fluid is as far below grey as white is above.
    """
    smooth = ndimage.gaussian_filter(
        np.where(mask, image, np.float32(grey)), SMOOTHING_MM / spacing, truncate=3.0
    )
    place = (smooth - np.float32(grey)) / np.float32(white - grey)
    # The rim of the mask has a part of what lies outside.
    inner = ndimage.binary_erosion(mask)
    return Tissues(
        inner & (place < SURE - 1),
        inner & (np.abs(place) < SURE),
        inner & (np.abs(place - 1) < SURE),
    )


class Surroundings(NamedTuple):
    """A scan on coarser voxels, (X, Y, Z), with what is around the head.

    Attributes:
        image: intensities, not smoothed.
        head: filled, bool.
        air: voxels above the face with a signal, some way off the head, bool.
        distance: from the head, mm.
        some: what takes the coarser voxels from the scan's.
    """

    image: np.ndarray
    head: np.ndarray
    air: np.ndarray
    distance: np.ndarray
    some: tuple[slice, ...]


def surroundings(
    image: np.ndarray, brain: np.ndarray, affine: np.ndarray, native_to_mni: np.ndarray
) -> Surroundings:
    """Head and air of a scan with skull.

    Args:
        image: (X, Y, Z) >= 0.
        brain: mask, (X, Y, Z) bool, not empty.
        affine: (4, 4) voxel -> world RAS mm.
        native_to_mni: (4, 4) world RAS mm -> template RAS mm.
    """
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    step = np.maximum(1, np.rint(AIR_SPACING_MM / sizes)).astype(int)
    some = tuple(slice(None, None, int(n)) for n in step)
    coarse, spacing = image[some], sizes * step
    head = _head(coarse, brain[some], spacing)
    distance = ndimage.distance_transform_edt(~head, sampling=spacing).astype(np.float32)
    to_mni = native_to_mni @ affine @ np.diag([*step, 1.0])
    i, j, k = np.ogrid[tuple(slice(n) for n in coarse.shape)]
    y, z = (to_mni[row, 0] * i + to_mni[row, 1] * j + to_mni[row, 2] * k + to_mni[row, 3] for row in (1, 2))
    slope = (_NASION[1] - _BACK[1]) / (_NASION[0] - _BACK[0])
    above = z > _NASION[1] + slope * (y - _NASION[0])
    return Surroundings(coarse, head, above & (distance > AIR_MARGIN_MM) & (coarse > 0), distance, some)


def ghost_regions(around: Surroundings) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each axis of the grid: the air that lies in line with the head, and the air that does not.

    Motion, flow and unsteady gradients displace signal along the axis of phase encoding, so ghosts lie in the
    first and not in the second, while noise is the same in both. Both are (X, Y, Z) bool. An axis with too
    little of either is left out.
    """
    for axis in range(3):
        in_line = around.head.any(axis=axis, keepdims=True)
        ghost, background = around.air & in_line, around.air & ~in_line
        if min(ghost.sum(), background.sum()) >= FEWEST_AIR_VOXELS:
            yield ghost, background


def _head(image: np.ndarray, brain: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The scalp and what it encloses, in one piece with the brain."""
    smooth = ndimage.gaussian_filter(image, 2.0 / spacing, truncate=3.0)
    # Ghosts are fainter, skin is brighter.
    seen = (smooth > SCALP * float(np.median(smooth[brain]))) | brain
    labels, _ = ndimage.label(seen)
    piece = labels == np.bincount(labels[brain]).argmax()
    closed = ndimage.binary_closing(np.pad(piece, 4), iterations=3)[4:-4, 4:-4, 4:-4]
    return ndimage.binary_fill_holes(closed)
