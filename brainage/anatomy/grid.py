"""The two grids that everything in MNI space lives on.

World coordinates are RAS millimetres (x grows to the subject's right, y to the front, z up) of
MNI152NLin2009aSym, the symmetric ICBM 2009a template that nilearn carries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SPACE = "MNI152NLin2009aSym"


@dataclass(frozen=True)
class Grid:
    """A regular axis-aligned RAS grid.

    Attributes:
        shape: (X, Y, Z) voxels.
        spacing: voxel edge in mm.
        origin: world position (mm) of the centre of voxel (0, 0, 0).
    """

    shape: tuple[int, int, int]
    spacing: float
    origin: tuple[float, float, float]

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) voxel index -> world RAS mm."""
        affine = np.diag([self.spacing] * 3 + [1.0])
        affine[:3, 3] = self.origin
        return affine

    def coarsen(self, factor: int) -> Grid:
        """The grid of blocks of ``factor``^3 voxels; a block's position is its centre."""
        shift = self.spacing * (factor - 1) / 2
        x, y, z = (size // factor for size in self.shape)
        ox, oy, oz = (start + shift for start in self.origin)
        return Grid((x, y, z), self.spacing * factor, (ox, oy, oz))


# 80 x 96 x 80 voxels of 2 mm hold every brain of the training cohort; symmetric about the midplane
# x = 0, so that flipping the first axis is a flip of the hemispheres and nothing else.
MODEL_GRID = Grid(shape=(80, 96, 80), spacing=2.0, origin=(-79.0, -113.0, -72.0))
