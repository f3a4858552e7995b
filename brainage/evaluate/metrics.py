"""How well predicted ages agree with chronological ages.

The gap is predicted minus chronological age (years), so a positive gap is an older-looking brain. All
figures are uncorrected for the pull of every age regression towards the mean; see ``bias.py`` for that.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MOMENTS = 7


@dataclass(frozen=True)
class AgeMetrics:
    """Agreement of predicted with chronological age over N scans.

    A figure that N scans cannot define (a correlation of one scan, say) is NaN.

    Attributes:
        n: number of scans.
        mae: mean absolute gap, years.
        rmse: root of the mean squared gap, years.
        r2: 1 - sum of squared gaps / sum of squares of age about its mean; negative when worse than
            predicting this sample's mean age.
        pearson_r: correlation of predicted with chronological age.
        mean_gap: mean of predicted - chronological age, years.
        gap_slope: least-squares slope of the gap on chronological age, years per year; 0 is unbiased,
            -1 is what predicting a constant gives.
    """

    n: int
    mae: float
    rmse: float
    r2: float
    pearson_r: float
    mean_gap: float
    gap_slope: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def age_metrics(age: ArrayLike, predicted: ArrayLike) -> AgeMetrics:
    """Agreement of ``predicted`` (N,) with ``age`` (N,), both in years.

    Raises:
        ValueError: the two differ in shape, are empty, or hold a value that is not finite.
    """
    age_N, predicted_N = age_pair(age, predicted)
    gap_N = predicted_N - age_N
    spread_N = age_N - age_N.mean()
    variation = float(spread_N @ spread_N)
    defined = len(age_N) > 1 and variation > 0
    varies = defined and float(np.ptp(predicted_N)) > 0
    return AgeMetrics(
        n=len(age_N),
        mae=float(np.abs(gap_N).mean()),
        rmse=float(np.sqrt(np.mean(gap_N**2))),
        r2=1 - float(gap_N @ gap_N) / variation if defined else float("nan"),
        pearson_r=float(np.corrcoef(age_N, predicted_N)[0, 1]) if varies else float("nan"),
        mean_gap=float(gap_N.mean()),
        gap_slope=float(spread_N @ gap_N) / variation if defined else float("nan"),
    )


def age_moments(age: ArrayLike, predicted: ArrayLike) -> NDArray[np.float64]:
    """What the metrics are made of, by scan (N, 7): sums of rows are what :func:`metrics_of_totals` takes.

    Columns: 1, |gap|, gap, gap^2, a, a^2, a * gap, with a the age less this sample's mean, so that little is
    lost to rounding.
    """
    age_N, predicted_N = age_pair(age, predicted)
    gap_N, a_N = predicted_N - age_N, age_N - age_N.mean()
    return np.stack([np.ones_like(a_N), np.abs(gap_N), gap_N, gap_N**2, a_N, a_N**2, a_N * gap_N], axis=1)


def metrics_of_totals(totals: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The metrics of many samples at once, from their summed moments (..., 7); NaN where undefined."""
    if totals.shape[-1] != _MOMENTS:
        raise ValueError(f"totals {totals.shape} must have {_MOMENTS} columns")
    count = totals[..., 0]
    absolute, gap, squared, a, a_squared, product = (totals[..., i] / count for i in range(1, _MOMENTS))
    variance, covariance = a_squared - a**2, product - a * gap
    predicted_variance = variance + 2 * covariance + squared - gap**2
    # Rounding leaves a little where all are the same.
    variance = np.where(variance > 1e-9, variance, np.nan)
    predicted_variance = np.where(predicted_variance > 1e-9, predicted_variance, np.nan)
    return {
        "mae": absolute,
        "rmse": np.sqrt(squared),
        "r2": 1 - squared / variance,
        "pearson_r": (variance + covariance) / np.sqrt(variance * predicted_variance),
        "mean_gap": gap,
        "gap_slope": covariance / variance,
    }


def mean_absolute_error(age: ArrayLike, predicted: ArrayLike) -> float:
    """Mean absolute gap of ``predicted`` (N,) from ``age`` (N,), years."""
    age_N, predicted_N = age_pair(age, predicted)
    return float(np.abs(predicted_N - age_N).mean())


def leave_one_out_mean(age: ArrayLike, subjects: ArrayLike) -> NDArray[np.float64]:
    """The mean predictor: for each scan (N,), the mean age of the scans of all *other* subjects, years.

    Leaving the subject out keeps the comparison fair: a cohort's own mean knows each answer a little.
    NaN where there is no other subject.
    """
    age_N = np.asarray(age, dtype=np.float64)
    _, member_N = np.unique(np.asarray(subjects), return_inverse=True)
    sums_S = np.bincount(member_N, weights=age_N)
    counts_S = np.bincount(member_N)
    others_N = len(age_N) - counts_S[member_N]
    total_N = age_N.sum() - sums_S[member_N]
    return np.where(others_N > 0, total_N / np.maximum(others_N, 1), np.nan)


def age_pair(age: ArrayLike, predicted: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as vectors of numbers (N,).

    Raises:
        ValueError: they differ in shape, are empty, or hold a value that is not finite.
    """
    age_N = np.asarray(age, dtype=np.float64)
    predicted_N = np.asarray(predicted, dtype=np.float64)
    if age_N.shape != predicted_N.shape or age_N.ndim != 1 or not len(age_N):
        raise ValueError(
            f"ages {age_N.shape} and predictions {predicted_N.shape} must be equally long vectors"
        )
    if not (np.isfinite(age_N).all() and np.isfinite(predicted_N).all()):
        raise ValueError("ages and predictions must be finite")
    return age_N, predicted_N


def finite(value: float) -> float | None:
    """The number, or None for what JSON cannot hold."""
    return float(value) if np.isfinite(value) else None
