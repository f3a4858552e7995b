"""Conformal prediction intervals that are wide where the model errs much and narrow where it errs little.

Normalised (locally weighted) conformal prediction (Lei et al. 2018, doi:10.1080/01621459.2017.1307116): the
residuals of cross-validated subjects are divided by a scale that varies with the predicted age, and the
interval is that scale times a quantile of the quotients. The scale is what the same share of the subjects
predicted nearby err by at most, so that intervals hold about their level at every predicted age; the quantile
of the quotients makes it exact over all. The predicted age decides, since the true one is not known when it
is needed.

MAPIE has the same score, but wants the fitted estimator itself; here one model predicts, others made the
residuals, and only numbers are stored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BANDWIDTH = 5.0  # years of predicted age; others are compared in docs/calibration.md
_PRIOR = 3.0  # subjects of all ages; keeps the scale from following the few where few were predicted
_FLOOR = 1e-6  # of the largest error: the least scale, where nobody nearby errs


@dataclass(frozen=True, eq=False)
class AgeIntervals:
    """Intervals about predicted ages at one level.

    Attributes:
        predicted_C: predicted ages of the calibration subjects, years.
        errors_C: their absolute residuals, years.
        level: share of new subjects that the intervals are to hold.
        quantile: of the residuals over their scales.
    """

    predicted_C: NDArray[np.float64]
    errors_C: NDArray[np.float64]
    level: float
    quantile: float

    def half_width(self, predicted: ArrayLike) -> NDArray[np.float64]:
        """Half of the interval about each predicted age, years; of the shape of ``predicted``."""
        at = np.asarray(predicted, dtype=np.float64)
        scale = _scale(_weights(at.reshape(-1), self.predicted_C), self.errors_C, self.level)
        return (self.quantile * scale).reshape(at.shape)


def fit_intervals(predicted_C: ArrayLike, residuals_C: ArrayLike, level: float) -> AgeIntervals | None:
    """Intervals of ``level`` from C subjects whom the predicting model never learned from.

    Each subject's own error has no part in the scale that it is divided by. The quantile is the
    ceil((C + 1) level)-th smallest quotient; None when the subjects are too few to promise the level.

    Args:
        predicted_C: their predicted ages, years.
        residuals_C: predicted - chronological age, years.
        level: share of new subjects that the intervals are to hold.

    Raises:
        ValueError: the two differ in shape, some number is not finite, or ``level`` is not between 0 and 1.
    """
    at_C, errors_C = np.asarray(predicted_C, np.float64), np.abs(np.asarray(residuals_C, np.float64))
    if at_C.shape != errors_C.shape or at_C.ndim != 1:
        raise ValueError(f"predictions {at_C.shape} and residuals {errors_C.shape} must be equal vectors")
    if not (np.isfinite(at_C).all() and np.isfinite(errors_C).all()):
        raise ValueError("predictions and residuals must be finite")
    quantile = conformal_quantile(np.zeros(len(at_C)), level)
    if quantile is None:
        return None
    weights_CC = _weights(at_C, at_C)
    np.fill_diagonal(weights_CC, 0)
    scale_C = _scale(weights_CC, errors_C, level)
    # Where nobody errs there is nothing to divide by.
    scores_C = np.divide(errors_C, scale_C, out=np.zeros_like(errors_C), where=scale_C > 0)
    quantile = conformal_quantile(scores_C, level)
    return None if quantile is None else AgeIntervals(at_C, errors_C, level, quantile)


def cross_conformal(
    predicted: ArrayLike, age: ArrayLike, fold: ArrayLike, level: float
) -> NDArray[np.float64]:
    """Half-width (N,) of each scan's interval by the scans of the other folds; NaN where these are too few.

    What measures coverage on subjects that the intervals were not calibrated on. The other folds' models
    have learned from this fold's subjects, which makes it cross-conformal rather than split-conformal.

    Args:
        predicted, age: (N,) out-of-fold predictions and chronological ages, years.
        fold: (N,) that each scan was left out of.
        level: share of scans that the intervals are to hold.
    """
    predicted_N, age_N, fold_N = np.asarray(predicted, float), np.asarray(age, float), np.asarray(fold)
    half_N = np.full(len(age_N), np.nan)
    for number in np.unique(fold_N):
        here = fold_N == number
        fitted = fit_intervals(predicted_N[~here], (predicted_N - age_N)[~here], level)
        if fitted is not None:
            half_N[here] = fitted.half_width(predicted_N[here])
    return half_N


def conformal_quantile(scores_C: ArrayLike, level: float) -> float | None:
    """The ceil((C + 1) level)-th smallest of C scores; None when they are too few to promise the level.

    Vovk 2015, doi:10.1007/s10472-013-9368-4 (cross-conformal).

    Raises:
        ValueError: ``level`` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level = {level} must be between 0 and 1")
    scores = np.sort(np.asarray(scores_C, dtype=np.float64))
    rank = math.ceil((len(scores) + 1) * level)
    return float(scores[rank - 1]) if 0 < rank <= len(scores) else None


def _weights(at_M: NDArray[np.float64], predicted_C: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much each calibration subject says about each predicted age (M, C)."""
    near_MC = np.exp(-0.5 * ((at_M[:, None] - predicted_C) / BANDWIDTH) ** 2)
    return near_MC + _PRIOR / len(predicted_C)


def _scale(
    weights_MC: NDArray[np.float64], errors_C: NDArray[np.float64], level: float
) -> NDArray[np.float64]:
    """The error (M,) that ``level`` of the weighted subjects do not exceed, interpolated between theirs."""
    order_C = np.argsort(errors_C)
    weights_MC = weights_MC[:, order_C]
    # Each subject at the middle of its share.
    share_MC = (weights_MC.cumsum(axis=1) - weights_MC / 2) / weights_MC.sum(axis=1, keepdims=True)
    scale_M = np.array([np.interp(level, share_C, errors_C[order_C]) for share_C in share_MC])
    return np.maximum(scale_M, _FLOOR * errors_C.max())
