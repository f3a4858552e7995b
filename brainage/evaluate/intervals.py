"""Bootstrap intervals that resample subjects, not scans.

Two scans of one person are not two pieces of evidence, so a subject is drawn with all its scans
(Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x). The interval is the percentile one
(Efron & Tibshirani 1993, chapter 13).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Interval(NamedTuple):
    """Lower and upper bound."""

    low: float
    high: float


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
    subjects_N = np.asarray(subjects)
    if values_N.shape != subjects_N.shape or values_N.ndim != 1:
        raise ValueError(
            f"values {values_N.shape} and subjects {subjects_N.shape} must be equally long vectors"
        )
    if not 0 < level < 1:
        raise ValueError(f"level = {level} must be between 0 and 1")
    _, member_N = np.unique(subjects_N, return_inverse=True)
    sums_S = np.bincount(member_N, weights=values_N)
    counts_S = np.bincount(member_N)
    if len(sums_S) < 2:
        return Interval(float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    # One resample at a time would be slow in Python, all at once large for thousands of subjects.
    batch = max(1, 2_000_000 // len(sums_S))
    for start in range(0, resamples, batch):
        stop = min(start + batch, resamples)
        drawn = rng.integers(len(sums_S), size=(stop - start, len(sums_S)))
        means[start:stop] = sums_S[drawn].sum(axis=1) / counts_S[drawn].sum(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))
