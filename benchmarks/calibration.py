"""Prediction intervals and bias corrections, measured on subjects that neither of them was fitted to.

    python benchmarks/calibration.py --cv RUN/cv_predictions.csv --json docs/results/calibration.json

``cv_predictions.csv`` is what ``brainage train`` leaves: each subject predicted by a model that never saw it.
For each fold the intervals and the bias line are fitted to the other folds' predictions and tried on this
one's. (The models behind the other folds have learned from this fold's subjects, which is what makes this
cross-conformal rather than split-conformal.) Beside the shipped intervals stand one width for all, and other
bandwidths. One division into folds leaves a coverage by age to chance, so ``divisions`` gives the mean over
many random ones, of the calibration alone: no model is trained again. ``--figure`` draws coverage by age.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from brainage.evaluate import conformal
from brainage.evaluate.bias import correct_cole, correct_de_lange, fit_age_bias
from brainage.evaluate.coverage import coverage_figures, interval_coverage
from brainage.evaluate.metrics import age_metrics
from brainage.evaluate.summary import age_band
from brainage.files import replacing, write_json
from brainage.report.evaluation_figures import coverage_plot

LEVELS = (0.8, 0.9, 0.95)
DIVISIONS = 25
EDGES = (0, 30, 50, 70, 130)  # years; decades are too small to measure a coverage on


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cv", type=Path, required=True)
    parser.add_argument("--column", default="ermoe_ba")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--figure", type=Path, default=None)
    options = parser.parse_args()
    table = pd.read_csv(options.cv)
    age, predicted, fold = (table[name].to_numpy() for name in ("age", options.column, "fold"))
    divisions = [np.random.default_rng(seed).permutation(len(age)) % 5 for seed in range(DIVISIONS)]
    shipped = conformal.BANDWIDTH
    widths, repeated = {}, {}
    for bandwidth in (None, 3.0, shipped, 8.0, 12.0):
        name = "one width" if bandwidth is None else f"adaptive, bandwidth {bandwidth:g} y"
        conformal.BANDWIDTH = bandwidth or shipped
        half_widths = one_width if bandwidth is None else conformal.cross_conformal
        widths[name] = half_widths(predicted, age, fold, 0.9)
        repeated[name] = [half_widths(predicted, age, division, 0.9) for division in divisions]
    conformal.BANDWIDTH = shipped
    rows = {name: coverage_rows(age, predicted, half) for name, half in widths.items()}
    levels = {
        f"{level:g}": coverage_rows(age, predicted, conformal.cross_conformal(predicted, age, fold, level))
        for level in LEVELS
    }
    chosen = widths[f"adaptive, bandwidth {shipped:g} y"]
    result: dict[str, Any] = {
        "source": {
            "cv": options.cv.name,
            "subjects": len(table),
            "folds": len(set(fold.tolist())),
            "divisions": DIVISIONS,
        },
        "shipped": f"adaptive, bandwidth {shipped:g} y",
        "coverage_90": rows,
        "divisions": {
            name: mean_coverage([coverage_rows(age, predicted, half) for half in halves])
            for name, halves in repeated.items()
        },
        "levels": {level: found["all"] for level, found in levels.items()},
        "bias": bias_figures(age, predicted, fold),
    }
    console = Console(width=150)
    for name, found in rows.items():
        shown = Table("", "scans", "held", "95 % interval", "mean width, years", title=name)
        for group, figures in found.items():
            low, high = figures["coverage_ci95"]
            shown.add_row(
                group,
                str(figures["n_scans"]),
                f"{figures['coverage']:.3f}",
                f"{low:.3f} to {high:.3f}",
                f"{figures['mean_width']:.1f}",
            )
        console.print(shown)
    for name, found in result["divisions"].items():
        held = ", ".join(f"{group} {figures['coverage']:.3f}" for group, figures in found.items())
        console.print(f"{name}, mean of {DIVISIONS} divisions: {held}")
    console.print({"levels": result["levels"], "bias": result["bias"]})
    if options.json:
        write_json(options.json, result)
    if options.figure:
        frame = with_intervals(age, predicted, chosen)
        coverage = interval_coverage(frame.assign(interval_level=0.9), age_band(frame["age"]))
        if coverage is not None:
            with replacing(options.figure) as partial:
                partial.write_bytes(coverage_plot(coverage))


def mean_coverage(found: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Of each group the mean coverage and width over all divisions."""
    return {
        group: {
            name: float(np.mean([rows[group][name] for rows in found])) for name in ("coverage", "mean_width")
        }
        for group in found[0]
    }


def one_width(predicted: np.ndarray, age: np.ndarray, fold: np.ndarray, level: float) -> np.ndarray:
    """Half-widths (N,) from the absolute residuals of the other folds."""
    half = np.empty(len(age))
    for number in np.unique(fold):
        here = fold == number
        half[here] = conformal.conformal_quantile(np.abs(predicted - age)[~here], level) or np.inf
    return half


def with_intervals(age: np.ndarray, predicted: np.ndarray, half: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"age": age, "interval_low": predicted - half, "interval_high": predicted + half})


def coverage_rows(age: np.ndarray, predicted: np.ndarray, half: np.ndarray) -> dict[str, dict[str, Any]]:
    """Coverage of all, by true age and by predicted age."""
    frame = with_intervals(age, predicted, half)
    inside = frame["age"].between(frame["interval_low"], frame["interval_high"])
    rows = {"all": coverage_figures(inside, frame)}
    for kind, values in (("true age", age), ("predicted age", predicted)):
        for low, high in itertools.pairwise(EDGES):
            # Predictions may fall below 0 or beyond the last edge.
            member = np.digitize(values, EDGES[1:-1]) == EDGES.index(low)
            span = f"under {high}" if low == 0 else f"{low}+" if high > 120 else f"{low}-{high - 1}"
            name = f"{kind} {span}"
            rows[name] = coverage_figures(inside[member], frame[member])
    return rows


def bias_figures(age: np.ndarray, predicted: np.ndarray, fold: np.ndarray) -> dict[str, Any]:
    """Gaps before and after corrections fitted to the other folds: spread, slope on age, mean; years."""
    cole, de_lange = np.empty(len(age)), np.empty(len(age))
    for number in np.unique(fold):
        here = fold == number
        bias = fit_age_bias(age[~here], predicted[~here])
        cole[here] = correct_cole(predicted[here], bias)
        de_lange[here] = correct_de_lange(predicted[here], age[here], bias)
    figures = {}
    for name, values in (("raw", predicted), ("cole", cole), ("de_lange", de_lange)):
        metrics = age_metrics(age, values)
        figures[name] = {
            "gap_slope": metrics.gap_slope,
            "mean_gap": metrics.mean_gap,
            "sd_gap": float((values - age).std(ddof=1)),
        }
    return figures


if __name__ == "__main__":
    main()
