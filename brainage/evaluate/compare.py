"""Two predictors on the same scans: the difference of their errors, with what chance could make of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from brainage.evaluate.ages import JoinedAges
from brainage.evaluate.intervals import percentile_interval, resampled_totals
from brainage.evaluate.metrics import age_moments, finite, metrics_of_totals

FIGURES = ("mae", "rmse", "r2", "pearson_r", "mean_gap", "gap_slope")
_KEYS = ["participant_id", "session_id"]


def compare_predictors(
    age: ArrayLike,
    predicted_a: ArrayLike,
    predicted_b: ArrayLike,
    subjects: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, dict[str, float | None]]:
    """Figures of A and B and their difference A - B, with a paired bootstrap over subjects.

    Each resample draws subjects once and gives both predictors the same ones, so that what makes a subject
    hard for both cancels. ``p`` is two-sided: twice the share of resamples on the rarer side of no
    difference, and at least 2 / (resamples + 1), below which the bootstrap cannot see.

    Args:
        age: chronological ages (N,), years.
        predicted_a, predicted_b: predictions (N,) of the same scans, years.
        subjects: of the scans (N,).
        level: of the interval.
        resamples: of the bootstrap.
        seed: of the resampling.

    Returns:
        For each of ``FIGURES``: ``a``, ``b``, ``difference``, ``low``, ``high``, ``p``; None where undefined.

    Raises:
        ValueError: the four are not equally long vectors of numbers.
    """
    rows_a, rows_b = age_moments(age, predicted_a), age_moments(age, predicted_b)
    width = rows_a.shape[1]
    rows = np.concatenate([rows_a, rows_b], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = resampled_totals(rows, subjects, resamples=resamples, seed=seed)
        drawn_a, drawn_b = metrics_of_totals(drawn[:, :width]), metrics_of_totals(drawn[:, width:])
        total_a, total_b = metrics_of_totals(rows_a.sum(0)), metrics_of_totals(rows_b.sum(0))
    result = {}
    for name in FIGURES:
        difference = drawn_a[name] - drawn_b[name]
        low, high = percentile_interval(difference, level)
        a, b = float(total_a[name]), float(total_b[name])
        result[name] = {
            "a": finite(a),
            "b": finite(b),
            "difference": finite(a - b),
            "low": finite(low),
            "high": finite(high),
            "p": _two_sided(difference),
        }
    return result


def compare_ages(
    first: JoinedAges, second: JoinedAges, *, resamples: int = 10_000, seed: int = 0
) -> dict[str, Any]:
    """:func:`compare_predictors` on the scans that both files predict, and how many only one of them does.

    Raises:
        ValueError: no scan in both.
    """
    columns = [*_KEYS, "predicted_age"]
    left, right = (_numbered(joined.table) for joined in (first, second))
    both = left.merge(
        right[[*columns, "_scan"]], on=[*_KEYS, "_scan"], suffixes=("", "_b"), validate="one_to_one"
    )
    if both.empty:
        raise ValueError("no scan has a prediction in both files")
    figures = compare_predictors(
        both["age"],
        both["predicted_age"],
        both["predicted_age_b"],
        both["participant_id"],
        resamples=resamples,
        seed=seed,
    )
    return {
        "n_scans": len(both),
        "n_subjects": int(both["participant_id"].nunique()),
        "only_a": len(left) - len(both),
        "only_b": len(right) - len(both),
        "figures": figures,
        "method": f"A - B; paired bootstrap over subjects, 95 % percentile interval, two-sided p, "
        f"{resamples} resamples, seed {seed}",
    }


def _numbered(table: pd.DataFrame) -> pd.DataFrame:
    """With a number for each scan of a session, so that repeats pair up in their order."""
    return table.assign(_scan=table.groupby(_KEYS).cumcount())


def _two_sided(difference: np.ndarray) -> float | None:
    difference = difference[np.isfinite(difference)]
    if not len(difference):
        return None
    rarer = min((difference <= 0).sum(), (difference >= 0).sum())
    return float(min(1.0, 2 * (rarer + 1) / (len(difference) + 1)))
