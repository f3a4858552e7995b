"""Random changes of a training volume that leave its subject's age alone."""

from __future__ import annotations

import math

from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
)

from brainage.anatomy.grid import MODEL_GRID

KEY = "volume"


def augmentation() -> Compose:
    """Transforms of a (1, 80, 96, 80) volume on the model grid, under the key ``volume``.

    Hemispheres are exchanged, the registration is wrong by a few mm, degrees and percent, and contrast, noise
    and sharpness vary as between scanners.
    """
    return Compose(
        [
            RandFlipd(KEY, prob=0.5, spatial_axis=0),
            RandAffined(
                KEY,
                prob=0.4,
                rotate_range=[math.radians(3)] * 3,
                translate_range=[1.0] * 3,
                scale_range=[0.03] * 3,
                mode="bilinear",
                padding_mode="zeros",
                spatial_size=MODEL_GRID.shape,
                cache_grid=True,
            ),
            RandAdjustContrastd(KEY, prob=0.5, gamma=(0.85, 1.18)),
            RandScaleIntensityd(KEY, factors=0.06, prob=0.5),
            RandGaussianSmoothd(KEY, sigma_x=(0.2, 0.6), sigma_y=(0.2, 0.6), sigma_z=(0.2, 0.6), prob=0.2),
            RandGaussianNoised(KEY, prob=0.3, std=0.05),
        ]
    )
