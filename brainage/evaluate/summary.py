"""The whole evaluation of a cohort as one JSON-ready mapping.

``mae`` and its neighbours are uncorrected. ``mean_predictor`` holds the same figures for a predictor
that knows nothing but the ages of the other subjects, which is what any model has to beat.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from brainage.evaluate.ages import JoinedAges
from brainage.evaluate.corrected import corrected_figures, corrected_gaps, site_left_out
from brainage.evaluate.coverage import interval_coverage
from brainage.evaluate.intervals import Interval, bootstrap_mean, bootstrap_metrics
from brainage.evaluate.metrics import age_metrics, finite, leave_one_out_mean
from brainage.evaluate.reliability import retest

MEAN_PREDICTOR = "mean age of the other subjects of this cohort (leave one subject out)"
BAND_YEARS = 10
_CURVE_GROUPS = 8  # of the calibration curve


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
    bands = age_band(table["age"])
    corrected = corrected_gaps(table)
    gaps = None if corrected is None else corrected[0]
    baseline = leave_one_out_mean(table["age"], table["participant_id"])
    result: dict[str, Any] = {
        "n_scans": len(table),
        "n_subjects": int(table["participant_id"].nunique()),
        "n_warning": int((table["status"] == "warning").sum()),
        "n_failed": joined.failed,
        "n_without_age": joined.without_age,
        "n_not_predicted": joined.not_predicted,
        "notes": list(joined.notes),
        "made_by": {name: list(values) for name, values in joined.made_by.items()},
        "n_folds": int(table["fold"].nunique()) if "fold" in table and table["fold"].notna().all() else None,
        "age_mean": float(table["age"].mean()),
        "age_sd": finite(float(table["age"].std())),
        "age_range": [float(table["age"].min()), float(table["age"].max())],
        **predictor_figures(table, table["predicted_age"].to_numpy(), **interval),
        # Its correlation with age is -1 by construction, which is no fact about the cohort.
        "mean_predictor": {
            "kind": MEAN_PREDICTOR,
            **predictor_figures(table, baseline, **interval),
            "pearson_r": None,
            "pearson_r_ci95": [None, None],
        },
        "corrected": None if corrected is None else corrected_figures(table, *corrected, interval),
        "by_age_band": _groups(table, gaps, bands, **interval),
        "by_sex": _groups(table, gaps, table["sex"], **interval),
        "by_site": _sites(table, _groups(table, gaps, table["site"], **interval), **interval),
        "sites_left_out": _sites_left_out(table),
        "calibration_curve": calibration_curve(table, **interval),
        "coverage": interval_coverage(table, bands),
        "retest": retest(table),
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
    """The figures of one predictor, each with its interval; ``mae`` None if some scan has no prediction."""
    age = table["age"].to_numpy()
    if not np.isfinite(predicted).all():
        return {"mae": None}
    metrics = age_metrics(age, predicted).as_dict()
    metrics.pop("n")
    bounds = bootstrap_metrics(age, predicted, table["participant_id"], **interval)
    figures: dict[str, Any] = {}
    for name, value in metrics.items():
        figures |= {name: finite(value), f"{name}_ci95": _bounds(bounds[name])}
    return figures


def calibration_curve(table: pd.DataFrame, **interval: int) -> list[dict[str, Any]]:
    """Mean age of groups of like predictions, with its interval: on the identity where calibrated.

    Empty for fewer than ten scans a group.
    """
    count = min(_CURVE_GROUPS, len(table) // 10)
    if count < 2:
        return []
    order = table["predicted_age"].rank(method="first")
    groups = np.ceil(order * count / len(table)).astype(int)
    curve = []
    for _, rows in table.groupby(groups):
        bounds = bootstrap_mean(rows["age"], rows["participant_id"], **interval)
        point = {"predicted": float(rows["predicted_age"].mean()), "age": float(rows["age"].mean())}
        curve.append({**point, "age_ci95": _bounds(bounds), "n_scans": len(rows)})
    return curve


def _groups(
    table: pd.DataFrame, corrected: np.ndarray | None, labels: pd.Series, **interval: int
) -> list[dict[str, Any]]:
    """MAE and mean gaps with their intervals by group; none where no scan is labelled."""
    if labels.eq("").all():
        return []
    groups = []
    gaps = pd.Series(np.nan if corrected is None else corrected, index=table.index)
    for label, rows in table.groupby(labels.replace("", "unknown"), sort=False):
        gap, who = (rows["predicted_age"] - rows["age"]).to_numpy(), rows["participant_id"]
        groups.append(
            {
                "group": str(label),
                "n_scans": len(rows),
                "mae": float(np.abs(gap).mean()),
                "mae_ci95": _bounds(bootstrap_mean(np.abs(gap), who, **interval)),
                "mean_gap": float(gap.mean()),
                "mean_gap_ci95": _bounds(bootstrap_mean(gap, who, **interval)),
                "mean_corrected_gap": finite(float(gaps[rows.index].mean())),
            }
        )
    return sorted(groups, key=lambda group: _natural(group["group"]))


def _sites(table: pd.DataFrame, groups: list[dict[str, Any]], **interval: int) -> list[dict[str, Any]]:
    """Groups by site with the gap that is left when the age bias is learnt from the other sites."""
    if len(groups) < 2:
        return groups
    sites = table.assign(site=table["site"].replace("", "unknown"))
    return [{**group, "other_sites": site_left_out(sites, group["group"], **interval)} for group in groups]


def _sites_left_out(table: pd.DataFrame) -> bool | None:
    """Whether every site was predicted by a model that saw none of it; None where the file does not say."""
    if "fold" not in table or table["fold"].isna().any() or table["site"].eq("").any():
        return None
    folds = table.groupby("site")["fold"].nunique()
    return None if len(folds) < 2 else bool((folds == 1).all())


def _natural(label: str) -> tuple[int, str]:
    """Sort key that puts age 5-9 before 10-19."""
    start = label.split("-")[0]
    return (int(start) if start.isdigit() else 0, label)


def _bounds(interval: Interval) -> list[float | None]:
    return [finite(bound) for bound in interval]
