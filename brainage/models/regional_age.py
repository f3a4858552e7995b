"""The age that each region of the atlas looks by itself: a small ridge regression on its own tissue.

A contribution says how much of the whole brain's age the model took from a region, not how old the region
looks: the weights of a linear model over correlated regions are filters, not patterns (Haufe et al. 2014,
doi:10.1016/j.neuroimage.2013.10.067). Here each region has a model of its own that sees nothing but the
region's voxels, as regional brain ages do in the field (Kaufmann et al. 2019, doi:10.1038/s41593-019-0471-7;
at each voxel: Popescu et al. 2021, doi:10.3389/fnagi.2021.761954).

C calibration subjects, R regions, L intensity levels, F histogram bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS, CEILING = 10, 1.25  # soft histogram, evenly spaced over [0, 1.25], as the model's own stem has
_LEVELS = np.linspace(0, 1.5, 301)  # fine enough that rounding to them changes no feature
_GREY, _WHITE = 0.5, 1.0  # intensities after normalisation
# A region must take this share off the squared error of guessing, and so by two standard errors.
_LEAST_GAIN, _SURE = 0.05, 2.0


@dataclass(frozen=True, eq=False)
class RegionalAges:
    """The regions' regressions, and what they said of subjects they had not seen.

    Attributes:
        weight_RF, bias_R: a region looks ``weight . features + bias`` years old.
        ages_C: chronological ages of the calibration subjects, years.
        looks_CR: out-of-fold, years.
    """

    weight_RF: np.ndarray
    bias_R: np.ndarray
    ages_C: np.ndarray
    looks_CR: np.ndarray

    def __call__(self, volume: np.ndarray, labels: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Ages (R,), years, of the regions of a normalised volume; arguments as :func:`region_levels`."""
        features_RF = level_features(region_levels(volume, labels, indices))
        return (self.weight_RF * features_RF).sum(1) + self.bias_R

    @property
    def error_R(self) -> np.ndarray:
        """Root mean square out-of-fold error, years."""
        return np.sqrt(np.square(self.looks_CR - self.ages_C[:, None]).mean(0))

    @property
    def informative_R(self) -> np.ndarray:
        """Whether a region errs clearly less than a guess, which is the mean age of all others."""
        count = len(self.ages_C)
        guess_C = (self.ages_C.sum() - self.ages_C) / (count - 1)
        guessing_C1 = np.square(guess_C - self.ages_C)[:, None]
        gain_CR = guessing_C1 - np.square(self.looks_CR - self.ages_C[:, None])
        sure_R = gain_CR.mean(0) - _SURE * gain_CR.std(0, ddof=1) / np.sqrt(count)
        return sure_R > _LEAST_GAIN * guessing_C1.mean()


def region_levels(volume: np.ndarray, labels: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Share (R, L) of each region's voxels at each intensity level; 0 for a region without voxels.

    Args:
        volume: normalised (X, Y, Z).
        labels: atlas on the same grid.
        indices: label of each of the R regions.
    """
    count = len(_LEVELS)
    size = max(int(labels.max()), int(indices.max())) + 1
    step = _LEVELS[1] - _LEVELS[0]
    level = np.rint(np.clip(volume, 0, _LEVELS[-1]).ravel() / step).astype(np.int64)
    flat = labels.ravel().astype(np.int64)
    counts = np.bincount(flat * count + level, minlength=size * count).reshape(size, count)[indices]
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def level_features(levels_RL: np.ndarray, grey: float = 0.0, white: float = 0.0) -> np.ndarray:
    """Square roots (..., F) of the soft tissue histogram of :func:`region_levels` (..., L).

    Args:
        levels_RL: of one or many scans.
        grey, white: by how much normalisation put the landmarks of grey and white matter too low, on the
            normalised scale; what the scan would then look like.
    """
    landmarks = [0.0, _GREY - grey, _WHITE - white, _LEVELS[-1] - white]
    seen = np.interp(_LEVELS, landmarks, [0.0, _GREY, _WHITE, _LEVELS[-1]])
    position = np.clip(seen, 0, CEILING) * ((BINS - 1) / CEILING)
    member_LF = np.maximum(1 - np.abs(position[:, None] - np.arange(BINS)), 0)
    return np.sqrt(levels_RL @ member_LF)
