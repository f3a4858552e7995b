"""The pages of ``brainage evaluate``: one cohort, or two predictors compared."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from brainage.evaluate.ages import JoinedAges
from brainage.evaluate.corrected import corrected_gaps
from brainage.evaluate.tripod import OPEN_ITEMS, tripod_items
from brainage.report.evaluation_figures import agreement_plot, calibration_plot, coverage_plot, gap_plot
from brainage.report.page import data_uri, render_page

_DASH = "\N{EN DASH}"
# Key, name, decimals, whether a plus sign is written.
HEADLINE = (
    ("mae", "Mean absolute error, years", 2, False),
    ("rmse", "Root mean squared error, years", 2, False),
    ("r2", "R²", 3, False),
    ("pearson_r", "Pearson r", 3, False),
    ("mean_gap", "Mean gap, years", 2, True),
    ("gap_slope", "Slope of gap on age", 3, True),
)


def write_evaluation_page(
    path: str | PathLike[str], joined: JoinedAges, result: Mapping[str, Any], *, title: str = "Evaluation"
) -> None:
    """Write one HTML file that loads nothing.

    Args:
        path: to write to.
        joined: the scans, which the plots show.
        result: of ``evaluate_ages``, with ``simulated``.
        title: heading of the page.
    """
    table, simulated = joined.table, bool(result["simulated"])
    gap = table["predicted_age"] - table["age"]
    corrected = corrected_gaps(table)
    plots = {
        "calibration": calibration_plot(
            table["age"], table["predicted_age"], result["calibration_curve"], simulated=simulated
        ),
        "gaps": gap_plot(table["age"], gap, None if corrected is None else corrected[0], simulated=simulated),
    }
    if result["coverage"]:
        plots["coverage"] = coverage_plot(result["coverage"], simulated=simulated)
    if result["retest"]:
        plots["retest"] = agreement_plot(result["retest"], simulated=simulated)
    mean = result["mean_predictor"]
    render_page(
        Path(path),
        "evaluation.html.j2",
        title=title,
        simulated=simulated,
        result=result,
        headline=[
            (name, bounded(result, key, digits, sign), bounded(mean, key, digits, sign))
            for key, name, digits, sign in HEADLINE
        ],
        groups=[
            (name, [_group_row(group) for group in result[key]], any("other_sites" in g for g in result[key]))
            for key, name in (("by_age_band", "Age, years"), ("by_sex", "Sex"), ("by_site", "Site"))
            if result[key]
        ],
        plots={name: data_uri(png) for name, png in plots.items()},
        bounded=bounded,
        number=number,
        tripod=tripod_items(result),
        open_items=OPEN_ITEMS,
    )


def write_comparison_page(path: str | PathLike[str], comparison: Mapping[str, Any]) -> None:
    """Write the page of two predictors: ``compare_ages`` with ``name_a``, ``name_b`` and ``simulated``."""
    rows = []
    for key, name, digits, sign in HEADLINE:
        found = comparison["figures"][key]
        difference = {"d": found["difference"], "d_ci95": [found["low"], found["high"]]}
        p = found["p"]
        rows.append(
            (
                name,
                number(found["a"], digits, sign),
                number(found["b"], digits, sign),
                bounded(difference, "d", digits, True),
                _DASH if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}",
            )
        )
    render_page(
        Path(path),
        "comparison.html.j2",
        title="Two predictors compared",
        simulated=bool(comparison["simulated"]),
        comparison=comparison,
        rows=rows,
    )


def number(value: float | None, digits: int, sign: bool = False) -> str:
    """A number with a true minus sign; a dash where there is none."""
    if value is None:
        return _DASH
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def bounded(figures: Mapping[str, Any], key: str, digits: int, sign: bool = False) -> str:
    """A figure with its 95 % interval: ``6.30 (5.71 to 6.92)``."""
    value = figures.get(key)
    low, high = figures.get(f"{key}_ci95") or (None, None)
    text = number(value, digits, sign)
    if value is None or low is None or high is None:
        return text
    return f"{text} ({number(low, digits, sign)} to {number(high, digits, sign)})"


def _group_row(group: Mapping[str, Any]) -> dict[str, str]:
    others = group.get("other_sites")
    return {
        "group": group["group"],
        "scans": str(group["n_scans"]),
        "mae": bounded(group, "mae", 2),
        "mean_gap": bounded(group, "mean_gap", 2, True),
        "corrected": number(group["mean_corrected_gap"], 2, True),
        "other_sites": _DASH if others is None else bounded(others, "mean_gap", 2, True),
    }
