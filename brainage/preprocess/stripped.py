"""Tells scans without skull from heads."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

# A brain with its fluid has 2.1 l at most, in MNI space too; few heads with part of the neck are below 2.5 l.
LARGEST_BRAIN_ML = 2500.0
# Of a brain in its bounding box, half is background; heads with face and background erased reach that too.
FEWEST_ZEROS = 0.3
# Intensity of a layer, as a share of the brightest layer outside of it. Bone is far below, see below.
SHALLOWEST_DIP = 0.85
# Edge of the voxels looked at, mm.
_COARSE = 3.0


def is_stripped(image: np.ndarray, spacing: np.ndarray) -> bool:
    """Whether a scan shows a brain alone: three things must hold, since erased faces leave zeros too.

    - Exact zeros fill at least ``FEWEST_ZEROS`` of the grid.
    - What is not background is at most ``LARGEST_BRAIN_ML``.
    - From its surface to 18 mm of depth, layers get brighter (fluid, cortex, white matter). A head has skin
      and fat outside, then dark bone.

    Args:
        image: (X, Y, Z), third axis upwards.
        spacing: (3,) mm.
    """
    if np.mean(image == 0) < FEWEST_ZEROS:
        return False
    step = np.maximum(1, np.rint(_COARSE / spacing)).astype(int)
    coarse, size = image[:: step[0], :: step[1], :: step[2]], spacing * step
    body = solid_foreground(coarse)
    if body.sum() * np.prod(size) / 1000.0 > LARGEST_BRAIN_ML:
        return False
    return _dip(coarse, body, size) >= SHALLOWEST_DIP


def solid_foreground(image: np.ndarray) -> np.ndarray:
    """The largest piece that is not background, without holes, (X, Y, Z) bool."""
    positive = image[image > 0]
    if not positive.size:
        return np.zeros(image.shape, dtype=bool)
    labels, _ = ndimage.label(image > 0.05 * np.percentile(positive, 98))
    body = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    closed = ndimage.binary_closing(np.pad(body, 4), iterations=3)
    return ndimage.binary_fill_holes(closed)[4:-4, 4:-4, 4:-4]


def _dip(image: np.ndarray, body: np.ndarray, size: np.ndarray) -> float:
    """Lowest ratio of a 3 mm layer's median to that of a layer outside of it, in the upper 80 mm."""
    depth = ndimage.distance_transform_edt(np.pad(body, 1), sampling=size)[1:-1, 1:-1, 1:-1]
    heights = np.flatnonzero(body.any(axis=(0, 1)))
    depth[:, :, : max(0, heights[-1] - round(80.0 / size[2]))] = 0.0
    layers = [image[(depth > start) & (depth <= start + 3.0)] for start in (3.0, 6.0, 9.0, 12.0, 15.0)]
    medians = np.array([np.median(layer) for layer in layers if layer.size])
    if medians.size < 2:
        return 0.0
    brightest = np.maximum.accumulate(medians)
    return float((medians[1:] / np.maximum(brightest[:-1], 1e-9)).min())
