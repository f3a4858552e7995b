"""Regressions on what the atlas's regions are made of: the baselines that need no network."""

from __future__ import annotations

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

TISSUES = (0.0, 0.5, 1.0)  # fluid, grey and white matter after normalisation


def region_tissues(volume: np.ndarray, labels: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Mean shares of fluid, grey and white matter by region, (R * 3,) float32, tissues fastest.

    A voxel is shared linearly between the two tissues whose intensities it lies between; what is brighter
    than white matter is white matter. Background inside a region counts as fluid.

    Args:
        volume: normalised (X, Y, Z).
        labels: atlas on the same grid.
        indices: label of each of the R regions.
    """
    size = max(int(labels.max()), int(indices.max())) + 1
    flat = labels.ravel()
    count_L = np.bincount(flat, minlength=size)
    position = np.clip(volume.ravel().astype(np.float64), TISSUES[0], TISSUES[-1])
    shares = []
    for number in range(len(TISSUES)):
        member = np.interp(position, TISSUES, np.eye(len(TISSUES))[number])
        shares.append(np.bincount(flat, weights=member, minlength=size) / np.maximum(count_L, 1))
    return np.stack(shares, axis=1)[indices].ravel().astype(np.float32)


def region_ridge() -> Pipeline:
    """Ridge on standardised region features, penalty by leave-one-out within the training subjects."""
    return make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 5, 30)))


def region_process(num_features: int) -> Pipeline:
    """Gaussian-process regression with a squared-exponential kernel and noise, by marginal likelihood."""
    scale = float(np.sqrt(num_features))
    kernel = ConstantKernel(1.0, (1e-2, 1e3)) * RBF(scale, (scale / 10, scale * 100)) + WhiteKernel(
        0.1, (1e-4, 1e1)
    )
    return make_pipeline(StandardScaler(), GaussianProcessRegressor(kernel, normalize_y=True, random_state=0))
