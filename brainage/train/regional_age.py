"""Fit the regions' own ages at the end of a training; nothing of the network enters them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import Ridge

from brainage.anatomy.atlas import Atlas
from brainage.data.datasets import AgedScan
from brainage.models.regional_age import RegionalAges, level_features, region_levels

# Share of the features' mean variance; a third or thrice as much changes the mean error by 0.04 years.
PENALTY = 0.01
# Normalisation takes grey and white matter from the whole brain, so that fluid elsewhere moves them a little.
# Copies with both landmarks off by this make a region's age nearly indifferent to that.
_OFF = 0.04
_LANDMARKS = ((0.0, 0.0), (_OFF, 0.0), (-_OFF, 0.0), (0.0, _OFF), (0.0, -_OFF))  # grey, white


def fit_regional_ages(scans: Sequence[AgedScan], folds: np.ndarray, atlas: Atlas) -> RegionalAges:
    """A ridge regression of age for each region, on the scans and their mirror images.

    Args:
        scans: to learn from.
        folds: (S,) of the cross-validation that the out-of-fold ages are to come from.
        atlas: whose regions, in the order of its table.
    """
    indices = atlas.regions["index"].to_numpy()
    copies = []
    for labels in (atlas.labels, atlas.labels[::-1]):
        # The model grid is symmetric about x = 0: mirrored labels are the labels of the mirrored scan.
        levels_SRL = np.stack([region_levels(scan.volume[0].numpy(), labels, indices) for scan in scans])
        copies += [level_features(levels_SRL, *shift) for shift in _LANDMARKS]
    features_KSRF = np.stack(copies)
    ages = np.array([scan.age for scan in scans])
    looks = np.zeros((len(scans), len(indices)))
    for fold in np.unique(folds):
        held_out = folds == fold
        weight_RF, bias_R = _fit(features_KSRF[:, ~held_out], ages[~held_out])
        looks[held_out] = (features_KSRF[0, held_out] * weight_RF).sum(2) + bias_R
    weight_RF, bias_R = _fit(features_KSRF, ages)
    return RegionalAges(weight_RF, bias_R, ages, looks)


def _fit(features_KSRF: np.ndarray, ages_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (R, F) and biases (R,), years, from K copies of S scans."""
    copies, _, regions, bins = features_KSRF.shape
    weight_RF, bias_R = np.zeros((regions, bins)), np.zeros(regions)
    for region in range(regions):
        features = features_KSRF[:, :, region].reshape(-1, bins)
        penalty = PENALTY * len(features) * max(float(features.var(0).mean()), 1e-12)
        ridge = Ridge(alpha=penalty).fit(features, np.tile(ages_S, copies))
        weight_RF[region], bias_R[region] = ridge.coef_, float(ridge.intercept_)
    return weight_RF, bias_R
