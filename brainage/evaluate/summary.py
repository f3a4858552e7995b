"""The whole evaluation of a cohort as one JSON-ready mapping.

``mae`` and its neighbours are uncorrected. ``mean_predictor`` holds the same figures for a predictor
that knows nothing but the ages of the other subjects, which is what any model has to beat.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from brainage.evaluate.ages import JoinedAges
from brainage.evaluate.intervals import bootstrap_mean
from brainage.evaluate.metrics import age_metrics, leave_one_out_mean

MEAN_PREDICTOR = "mean age of the other subjects of this cohort (leave one subject out)"
BAND_YEARS = 10


def evaluate_ages(joined: JoinedAges, *, resamples: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """Metrics, their intervals, the mean predictor and groups of a joined cohort.

    Args:
        joined: predictions with chronological ages.
        resamples: bootstrap resamples of subjects for each 95 % interval.
        seed: of the resampling.

    Returns:
        A mapping of plain values; what the cohort cannot define is ``None``. Years throughout.
    """
    table = joined.table
    interval = {"resamples": resamples, "seed": seed}
    baseline = leave_one_out_mean(table["age"], table["participant_id"])
    result: dict[str, Any] = {
        "n_scans": len(table),
        "n_subjects": int(table["participant_id"].nunique()),
        "n_warning": int((table["status"] == "warning").sum()),
        "n_failed": joined.failed,
        "n_without_age": joined.without_age,
        "n_not_predicted": joined.not_predicted,
        "notes": list(joined.notes),
        "age_range": [float(table["age"].min()), float(table["age"].max())],
        **predictor_figures(table, table["predicted_age"].to_numpy(), **interval),
        # Its correlation with age is -1 by construction, which is no fact about the cohort.
        "mean_predictor": {
            "kind": MEAN_PREDICTOR,
            **predictor_figures(table, baseline, **interval),
            "pearson_r": None,
        },
        "by_age_band": _groups(table, age_band(table["age"]), **interval),
        "by_sex": _groups(table, table["sex"], **interval),
        "by_site": _groups(table, table["site"], **interval),
        "method": {
            "gap": "predicted - chronological age, years, not corrected for age bias",
            "interval": f"95 % percentile bootstrap over subjects, {resamples} resamples, seed {seed}",
        },
    }
    return result


def age_band(age: pd.Series) -> pd.Series:
    """Decade of each age (years) as text, ``"20-29"``."""
    start = (age // BAND_YEARS * BAND_YEARS).astype(int)
    return start.map(lambda year: f"{year}-{year + BAND_YEARS - 1}")


def predictor_figures(table: pd.DataFrame, predicted: np.ndarray, **interval: int) -> dict[str, Any]:
    """The figures of one predictor; all ``None`` where it has no prediction for some scan."""
    age = table["age"].to_numpy()
    if not np.isfinite(predicted).all():
        return {"mae": None}
    metrics = age_metrics(age, predicted).as_dict()
    metrics.pop("n")
    bounds = bootstrap_mean(np.abs(predicted - age), table["participant_id"], **interval)
    figures = {name: _number(value) for name, value in metrics.items()}
    return {"mae": figures.pop("mae"), "mae_ci95": [_number(bound) for bound in bounds], **figures}


def _groups(table: pd.DataFrame, labels: pd.Series, **interval: int) -> list[dict[str, Any]]:
    """MAE, its interval and the mean gap by group; none where no scan is labelled."""
    if labels.eq("").all():
        return []
    groups = []
    for label, rows in table.groupby(labels.replace("", "unknown"), sort=False):
        gap = (rows["predicted_age"] - rows["age"]).to_numpy()
        bounds = bootstrap_mean(np.abs(gap), rows["participant_id"], **interval)
        groups.append(
            {
                "group": str(label),
                "n_scans": len(rows),
                "mae": float(np.abs(gap).mean()),
                "mae_ci95": [_number(bound) for bound in bounds],
                "mean_gap": float(gap.mean()),
            }
        )
    return sorted(groups, key=lambda group: _natural(group["group"]))


def _natural(label: str) -> tuple[int, str]:
    """Sort key that puts age 5-9 before 10-19."""
    start = label.split("-")[0]
    return (int(start) if start.isdigit() else 0, label)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
