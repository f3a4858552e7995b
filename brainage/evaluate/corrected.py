"""Gaps with the age bias taken out, for comparing groups; headline figures stay uncorrected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainage.evaluate.bias import correct_de_lange, fit_age_bias
from brainage.evaluate.intervals import bootstrap_mean
from brainage.evaluate.metrics import finite

STORED = "the line of the predicting model's cross-validation, which these scans had no part in"
CROSS_FITTED = (
    "lines fitted for each subject to the others of this cohort, so a shift that all share is taken out"
)


def corrected_gaps(table: pd.DataFrame) -> tuple[NDArray[np.float64], str] | None:
    """Gap of each scan (N,) less what is expected at its age (de Lange & Cole 2020), and whose line it is.

    Args:
        table: of ``JoinedAges``. With ``bias_slope`` and ``bias_intercept`` it is the model's own line.

    Returns:
        None where there is no line: fewer than four subjects, or all others of one age.
    """
    age, predicted = table["age"].to_numpy(float), table["predicted_age"].to_numpy(float)
    if {"bias_slope", "bias_intercept"} <= set(table) and table[["bias_slope", "bias_intercept"]].notna().all(
        axis=None
    ):
        expected = table["bias_slope"].to_numpy() * age + table["bias_intercept"].to_numpy()
        return predicted - expected, STORED
    fitted = _lines_of_others(age, predicted, table["participant_id"])
    return None if fitted is None else (predicted - fitted, CROSS_FITTED)


def corrected_figures(
    table: pd.DataFrame, gaps: NDArray[np.float64], source: str, interval: Mapping[str, int]
) -> dict[str, Any]:
    """What the evaluation says of corrected gaps: mean with its interval, spread, slope on age; years."""
    age = table["age"].to_numpy(float)
    spread = age - age.mean()
    variation = float(spread @ spread)
    return {
        "line": source,
        "mean_gap": float(gaps.mean()),
        "mean_gap_ci95": [
            finite(bound) for bound in bootstrap_mean(gaps, table["participant_id"], **interval)
        ],
        "sd_gap": finite(float(gaps.std(ddof=1))) if len(gaps) > 1 else None,
        "gap_slope": float(spread @ gaps) / variation if variation > 0 else None,
    }


def site_left_out(table: pd.DataFrame, site: str, **interval: int) -> dict[str, Any] | None:
    """The gap of one site's scans corrected by a line fitted to all other sites, mean with its interval.

    What is left is how far the site lies from the others at the same age: the shift that a new scanner makes.
    None where the others hold no line.
    """
    here = (table["site"] == site).to_numpy()
    others = table[~here]
    if others["participant_id"].nunique() < 3 or np.ptp(others["age"]) == 0:
        return None
    rows = table[here]
    bias = fit_age_bias(others["age"], others["predicted_age"])
    gaps = correct_de_lange(rows["predicted_age"], rows["age"], bias) - rows["age"].to_numpy(float)
    bounds = bootstrap_mean(gaps, rows["participant_id"], **interval)
    return {"mean_gap": float(gaps.mean()), "mean_gap_ci95": [finite(bound) for bound in bounds]}


def _lines_of_others(
    age: NDArray[np.float64], predicted: NDArray[np.float64], subjects: pd.Series
) -> NDArray[np.float64] | None:
    """Predicted age (N,) that each scan's age leads to expect, by the scans of all other subjects."""
    _, member_N = np.unique(subjects.to_numpy(), return_inverse=True)
    if member_N.max() < 3:
        return None
    a, p = age - age.mean(), predicted - predicted.mean()
    rows = np.stack([np.ones_like(a), a, p, a * a, a * p])
    own = np.stack([np.bincount(member_N, weights=row) for row in rows])[:, member_N]
    n, sum_a, sum_p, sum_aa, sum_ap = rows.sum(1)[:, None] - own
    variation = sum_aa - sum_a**2 / n
    if (variation <= 1e-9).any():
        return None
    slope = (sum_ap - sum_a * sum_p / n) / variation
    return (sum_p - slope * sum_a) / n + slope * a + predicted.mean()
