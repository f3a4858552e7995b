"""Do two scans of the same person give the same answer? Bland-Altman limits and intraclass correlations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from brainage.evaluate.metrics import finite

_FEWEST_PAIRS = 3  # an ICC of two pairs is an accident


def bland_altman(first: ArrayLike, second: ArrayLike) -> dict[str, float]:
    """Agreement of two measurements (N,) of the same subjects (Bland & Altman 1986, Lancet 327:307).

    Returns:
        ``bias`` (mean of second - first), ``bias_low`` and ``bias_high`` (95 % interval by Student's t),
        ``sd`` of the differences, ``limit_low`` and ``limit_high`` (bias -+ 1.96 sd, between which 95 % of
        differences lie if they are normal), in the unit of the measurements.

    Raises:
        ValueError: fewer than two pairs, or differing lengths.
    """
    pairs_N2 = _pairs(first, second)
    difference_N = pairs_N2[:, 1] - pairs_N2[:, 0]
    bias, sd = float(difference_N.mean()), float(difference_N.std(ddof=1))
    half = float(stats.t.ppf(0.975, len(difference_N) - 1)) * sd / np.sqrt(len(difference_N))
    return {
        "bias": bias,
        "bias_low": bias - half,
        "bias_high": bias + half,
        "sd": sd,
        "limit_low": bias - 1.96 * sd,
        "limit_high": bias + 1.96 * sd,
    }


def intraclass_correlation(ratings: ArrayLike) -> dict[str, float]:
    """ICC(2,1), absolute agreement, and ICC(3,1), consistency, of ratings (N subjects, K measurements).

    Shrout & Fleiss 1979, doi:10.1037/0033-2909.86.2.420, from the two-way analysis of variance; intervals by
    McGraw & Wong 1996, doi:10.1037/1082-989X.1.1.30. NaN where subjects do not differ.

    Returns:
        ``icc_2_1``, ``icc_3_1``, each with ``_low`` and ``_high`` (95 %).

    Raises:
        ValueError: not at least two subjects with two measurements each, all of them numbers.
    """
    ratings_NK = np.asarray(ratings, dtype=np.float64)
    if ratings_NK.ndim != 2 or min(ratings_NK.shape) < 2 or not np.isfinite(ratings_NK).all():
        raise ValueError(f"ratings {ratings_NK.shape} must be numbers, at least 2 subjects by 2 measurements")
    n, k = ratings_NK.shape
    grand = ratings_NK.mean()
    between = k * ((ratings_NK.mean(1) - grand) ** 2).sum() / (n - 1)
    columns = n * ((ratings_NK.mean(0) - grand) ** 2).sum() / (k - 1)
    total = ((ratings_NK - grand) ** 2).sum()
    error = max(total - between * (n - 1) - columns * (k - 1), 0.0) / ((n - 1) * (k - 1))
    if between <= 0:
        names = ("icc_2_1", "icc_2_1_low", "icc_2_1_high", "icc_3_1", "icc_3_1_low", "icc_3_1_high")
        return dict.fromkeys(names, float("nan"))
    agreement = (between - error) / (between + (k - 1) * error + k * (columns - error) / n)
    consistency = (between - error) / (between + (k - 1) * error)
    if error == 0 and columns == 0:
        return {
            **{"icc_2_1": 1.0, "icc_2_1_low": 1.0, "icc_2_1_high": 1.0},
            **{"icc_3_1": 1.0, "icc_3_1_low": 1.0, "icc_3_1_high": 1.0},
        }
    # Satterthwaite's degrees of freedom of the agreement's denominator.
    a = k * agreement / (n * (1 - agreement))
    b = 1 + k * agreement * (n - 1) / (n * (1 - agreement))
    freedom = (a * columns + b * error) ** 2 / (
        (a * columns) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
    )
    lower, upper = stats.f.ppf(0.975, n - 1, freedom), stats.f.ppf(0.975, freedom, n - 1)
    rest = k * columns + (k * n - k - n) * error
    low = n * (between - lower * error) / (lower * rest + n * between)
    high = n * (upper * between - error) / (rest + n * upper * between)
    ratio = between / error if error > 0 else np.inf
    f_low = ratio / stats.f.ppf(0.975, n - 1, (n - 1) * (k - 1))
    f_high = ratio * stats.f.ppf(0.975, (n - 1) * (k - 1), n - 1)
    return {
        "icc_2_1": float(agreement),
        "icc_2_1_low": float(low),
        "icc_2_1_high": float(high),
        "icc_3_1": float(consistency),
        "icc_3_1_low": _share(f_low, k),
        "icc_3_1_high": _share(f_high, k),
    }


def retest(table: pd.DataFrame) -> dict[str, Any] | None:
    """Agreement of the first two scans of every subject who has two; None where fewer than three have.

    Subjects age between scans, so the second prediction is taken back by the years that passed. What is left
    is noise of measurement, and any change that calendar time does not explain.

    Args:
        table: ``participant_id, session_id, age, predicted_age`` by scan, years.
    """
    ordered = table.sort_values(["participant_id", "age", "session_id"], kind="stable")
    place = ordered.groupby("participant_id").cumcount()
    pairs = ordered[place == 0].merge(ordered[place == 1], on="participant_id", suffixes=("_1", "_2"))
    if len(pairs) < _FEWEST_PAIRS:
        return None
    years = pairs["age_2"] - pairs["age_1"]
    first, second = pairs["predicted_age_1"].to_numpy(), (pairs["predicted_age_2"] - years).to_numpy()
    agreement = bland_altman(first, second)
    correlation = intraclass_correlation(np.stack([first, second], axis=1))
    return {
        "n_subjects": len(pairs),
        "median_years_between": float(years.median()),
        "mean_absolute_difference": float(np.abs(second - first).mean()),
        **{name: finite(value) for name, value in {**agreement, **correlation}.items()},
        "pairs": [[round(float(a), 3), round(float(b), 3)] for a, b in zip(first, second, strict=True)],
    }


def _share(ratio: float, k: int) -> float:
    return 1.0 if np.isinf(ratio) else float((ratio - 1) / (ratio + k - 1))


def _pairs(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    first_N, second_N = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first_N.shape != second_N.shape or first_N.ndim != 1 or len(first_N) < 2:
        raise ValueError(f"measurements {first_N.shape} and {second_N.shape} must be two or more pairs")
    return np.stack([first_N, second_N], axis=1)
