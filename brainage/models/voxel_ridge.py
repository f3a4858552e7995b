"""The baseline that any network has to beat: ridge regression on smoothed voxels."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import Pipeline, make_pipeline

FWHM = 8.0  # mm
COMPONENTS = 150


def smoothed_voxels(volume: np.ndarray, spacing: float) -> np.ndarray:
    """Features of a volume (X, Y, Z): 8 mm smoothed, every other voxel along each axis, flat float32.

    Smoothing leaves nothing between the voxels that are dropped.
    """
    sigma = FWHM / 2.355 / spacing
    return ndimage.gaussian_filter(volume.astype(np.float32), sigma)[::2, ::2, ::2].ravel()


def voxel_ridge(num_subjects: int) -> Pipeline:
    """Ridge on up to 150 principal components, penalty by leave-one-out within the training subjects."""
    components = PCA(min(COMPONENTS, num_subjects - 1), random_state=0)
    return make_pipeline(components, RidgeCV(np.logspace(-2, 6, 30)))
