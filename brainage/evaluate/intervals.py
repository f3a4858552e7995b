"""Bootstrap intervals that resample subjects, not scans.

Two scans of one person are not two pieces of evidence, so a subject is drawn with all its scans
(Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x). The interval is the percentile one
(Efron & Tibshirani 1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainage.evaluate.metrics import age_moments, metrics_of_totals


class Interval(NamedTuple):
    """Lower and upper bound."""

    low: float
    high: float


UNKNOWN = Interval(float("nan"), float("nan"))


def bootstrap_mean(
    values: ArrayLike,
    subjects: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Interval of the mean of ``values`` (N,), such as absolute gaps in years, over ``subjects`` (N,).

    Returns NaN bounds for fewer than two subjects, which say nothing about the spread between subjects.

    Raises:
        ValueError: the two differ in length, or ``level`` is not between 0 and 1.
    """
    values_N = np.asarray(values, dtype=np.float64)
    if values_N.ndim != 1:
        raise ValueError(f"values {values_N.shape} and subjects must be equally long vectors")
    rows = np.stack([values_N, np.ones_like(values_N)], axis=1)
    totals = resampled_totals(rows, subjects, resamples=resamples, seed=seed)
    if not len(totals):
        return UNKNOWN
    return percentile_interval(totals[:, 0] / totals[:, 1], level)


def bootstrap_metrics(
    age: ArrayLike,
    predicted: ArrayLike,
    subjects: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Interval of every figure of ``AgeMetrics`` but ``n``; NaN bounds for fewer than two subjects.

    Raises:
        ValueError: the three are not equally long vectors of numbers.
    """
    rows = age_moments(age, predicted)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = metrics_of_totals(resampled_totals(rows, subjects, resamples=resamples, seed=seed))
    return percentile_intervals(drawn, level)


def resampled_totals(
    rows: NDArray[np.float64], subjects: ArrayLike, *, resamples: int, seed: int
) -> NDArray[np.float64]:
    """Sums of ``rows`` (N, M) over resampled subjects (resamples, M); (0, M) for fewer than two subjects.

    The same seed draws the same subjects whatever the rows, which is what makes a comparison paired.

    Raises:
        ValueError: rows and subjects differ in length.
    """
    subjects_N = np.asarray(subjects)
    if subjects_N.shape != rows.shape[:1]:
        raise ValueError(f"values {rows.shape[:1]} and subjects {subjects_N.shape} must be equally long")
    _, member_N = np.unique(subjects_N, return_inverse=True)
    count = int(member_N.max()) + 1
    if count < 2:
        return np.zeros((0, rows.shape[1]))
    sums_SM = np.stack([np.bincount(member_N, weights=column) for column in rows.T], axis=1)
    rng = np.random.default_rng(seed)
    totals = np.empty((resamples, rows.shape[1]))
    # One resample at a time would be slow in Python, all at once large for thousands of subjects.
    batch = max(1, 2_000_000 // (count * rows.shape[1]))
    for start in range(0, resamples, batch):
        stop = min(start + batch, resamples)
        totals[start:stop] = sums_SM[rng.integers(count, size=(stop - start, count))].sum(axis=1)
    return totals


def percentile_intervals(
    drawn: Mapping[str, NDArray[np.float64]], level: float = 0.95
) -> dict[str, Interval]:
    """The interval of each resampled figure."""
    return {name: percentile_interval(values, level) for name, values in drawn.items()}


def percentile_interval(values: NDArray[np.float64], level: float = 0.95) -> Interval:
    """The middle ``level`` of the resampled values that are defined; NaN bounds if there are none.

    Raises:
        ValueError: ``level`` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level = {level} must be between 0 and 1")
    values = values[np.isfinite(values)]
    if not len(values):
        return UNKNOWN
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))
