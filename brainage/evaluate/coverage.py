"""How often prediction intervals hold the true age, against how often they promise to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

NEEDED = {"interval_low", "interval_high"}


def covered(table: pd.DataFrame) -> pd.Series:
    """Whether each scan's interval holds its age; missing where it has no interval."""
    inside = table["age"].between(table["interval_low"], table["interval_high"])
    known = table[["interval_low", "interval_high"]].notna().all(axis=1)
    return inside.astype(object).where(known, None)


def interval_coverage(table: pd.DataFrame, bands: pd.Series) -> dict[str, Any] | None:
    """Coverage and width, overall and by age band; None for a file without intervals.

    Args:
        table: of ``JoinedAges``.
        bands: of each scan, in the order of ``table``.
    """
    if not set(table) >= NEEDED:
        return None
    inside = covered(table)
    known = inside.notna()
    if not known.any():
        return None
    levels = set(table.loc[known, "interval_level"].dropna()) if "interval_level" in table else set()
    groups = [
        {"group": str(label), **coverage_figures(inside[rows.index], rows)}
        for label, rows in table[known].groupby(bands[known])
    ]
    return {
        "level": float(levels.pop()) if len(levels) == 1 else None,
        **coverage_figures(inside[known], table[known]),
        "by_age_band": sorted(groups, key=lambda group: int(group["group"].split("-")[0])),
        "method": "share of scans whose interval holds the age; Wilson's 95 % interval",
    }


def coverage_figures(inside: pd.Series, rows: pd.DataFrame) -> dict[str, Any]:
    """Share of ``inside``, its interval (Wilson 1927), and the mean width of the intervals, years."""
    count, held = len(inside), int(inside.sum())
    low, high = wilson_interval(held, count)
    width = (rows["interval_high"] - rows["interval_low"]).mean()
    return {
        "n_scans": count,
        "coverage": held / count,
        "coverage_ci95": [low, high],
        "mean_width": float(width),
    }


def wilson_interval(held: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share of ``count`` independent scans (Wilson 1927, doi:10.2307/2276774)."""
    interval = stats.binomtest(held, count).proportion_ci(level, method="wilson")
    return float(np.clip(interval.low, 0, 1)), float(np.clip(interval.high, 0, 1))
