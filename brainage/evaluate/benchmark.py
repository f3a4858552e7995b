"""The table of a comparison from the results of its runs.

Every figure is of predictions for subjects whose fold was left out. A network's figure is the mean over its
seeds; intervals and differences resample subjects, of each the mean absolute gap over the seeds, so they say
how much depends on who was scanned. How much depends on the seed is given apart, as the range over seeds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainage.evaluate.intervals import bootstrap_mean
from brainage.evaluate.metrics import age_metrics

KEYS = ["participant_id", "session_id"]


def read_runs(paths: Sequence[Path]) -> pd.DataFrame:
    """One row a scan and run: ``contestant, seed, fold``, ids, ``age, predicted``, and the run's figures."""
    rows = []
    for path in paths:
        run = json.loads(path.read_text("utf-8"))
        figures = {
            name: run[name]
            for name in (
                "contestant",
                "seed",
                "fold",
                "cohort",
                "parameters",
                "flops",
                "seconds_per_scan",
                "gini",
                "epochs",
                "seconds",
            )
        }
        rows += [figures | scan for scan in run["scans"]]
    return pd.DataFrame(rows)


def compare(
    runs: pd.DataFrame,
    labels: Mapping[str, str],
    folds: int,
    reference: str,
    claim: float | None = None,
    *,
    resamples: int = 10_000,
) -> dict[str, Any]:
    """Figures of every contestant, its difference to the reference, and whether the claim holds.

    Args:
        runs: of :func:`read_runs`.
        labels: of all contestants, in the order of the table.
        folds: a seed counts once all of these are there.
        reference: contestant that the others are compared with.
        claim: share by which its error should be below that of the best other one; None for no claim.
        resamples: of each bootstrap.

    Returns:
        A JSON-ready mapping; years throughout.
    """
    complete = _complete_seeds(runs, folds)
    rows, gaps = [], {}
    for name, label in labels.items():
        own = runs[runs["contestant"] == name] if len(runs) else runs
        row: dict[str, Any] = {"contestant": name, "label": label, "seeds": complete.get(name, [])}
        row["unfinished_runs"] = 0 if not len(own) else _runs_in(own[~own["seed"].isin(row["seeds"])])
        if row["seeds"]:
            used = own[own["seed"].isin(row["seeds"])]
            gaps[name] = used
            row |= _figures(used, resamples)
        rows.append(row)
    result: dict[str, Any] = {
        "n_scans": 0,
        "n_subjects": 0,
        "folds": folds,
        "reference": reference,
        "contestants": rows,
        "claim": None,
        "method": {
            "interval": f"95 % percentile bootstrap over subjects, {resamples} resamples, seed 0",
            "mae": "mean over seeds of the mean absolute gap of held-out scans, years, uncorrected",
            "difference": "contestant - reference, years, paired by subject, over the seeds that both have",
        },
    }
    if gaps:
        anyone = next(iter(gaps.values()))
        result |= {"n_scans": len(anyone[KEYS].drop_duplicates()), "cohort": anyone["cohort"].iloc[0]}
        result["n_subjects"] = int(anyone["participant_id"].nunique())
    if reference in gaps:
        for row in rows:
            if row["contestant"] in gaps and row["contestant"] != reference:
                row["difference"] = paired_difference(
                    gaps[row["contestant"]], gaps[reference], resamples=resamples
                )
        if claim is not None:
            result["claim"] = _claim(rows, gaps, reference, claim, resamples)
    return result


def paired_difference(
    one: pd.DataFrame, other: pd.DataFrame, *, factor: float = 1.0, resamples: int = 10_000
) -> dict[str, Any]:
    """Mean over scans of ``|gap of one| - factor * |gap of other|``, years, with its 95 % interval.

    Each scan's absolute gap is a mean over seeds: those that both have, or all where they share none, or one
    of them has a single one, as what is computed in closed form.
    """
    seeds = set(one["seed"]), set(other["seed"])
    common = seeds[0] & seeds[1] if min(map(len, seeds)) > 1 else set()
    first, second = (
        _scan_gaps(frame[frame["seed"].isin(common)] if common else frame) for frame in (one, other)
    )
    values = first - factor * second.reindex(first.index)
    if values.isna().any() or len(first) != len(second):
        raise ValueError("the two contestants predicted different scans")
    bounds = bootstrap_mean(values, values.index.get_level_values("participant_id"), resamples=resamples)
    return {"years": float(values.mean()), "ci95": list(bounds)}


def _claim(
    rows: Sequence[dict[str, Any]],
    gaps: Mapping[str, pd.DataFrame],
    reference: str,
    claim: float,
    resamples: int,
) -> dict[str, Any] | None:
    """Whether the reference is ``claim`` below the best other one, and whether the interval says so too."""
    others = [row for row in rows if row["contestant"] in gaps and row["contestant"] != reference]
    if not others:
        return None
    best = min(others, key=lambda row: row["mae"])
    error = next(row["mae"] for row in rows if row["contestant"] == reference)
    margin = paired_difference(
        gaps[reference], gaps[best["contestant"]], factor=1 - claim, resamples=resamples
    )
    reduction = 1 - error / best["mae"]
    return {
        "share": claim,
        "runner_up": best["contestant"],
        "reduction": reduction,
        "holds": reduction >= claim,
        # error - (1 - claim) * runner-up's error, which the claim says is at most 0
        "margin_years": margin["years"],
        "margin_ci95": margin["ci95"],
        "beyond_chance": margin["ci95"][1] <= 0,
    }


def _figures(used: pd.DataFrame, resamples: int) -> dict[str, Any]:
    """Of one contestant over its complete seeds."""
    by_seed = [age_metrics(part["age"], part["predicted"]) for _, part in used.groupby("seed")]
    errors = [metrics.mae for metrics in by_seed]
    scans = _scan_gaps(used)
    bounds = bootstrap_mean(scans, scans.index.get_level_values("participant_id"), resamples=resamples)
    correlations = [metrics.pearson_r for metrics in by_seed]
    fits = used.drop_duplicates(["seed", "fold"])
    first = used.iloc[0]
    return {
        "mae": float(np.mean(errors)),
        "mae_ci95": list(bounds),
        "mae_by_seed": errors,
        "pearson_r": float(np.mean(correlations)) if np.isfinite(correlations).all() else None,
        "gap_slope": float(np.mean([metrics.gap_slope for metrics in by_seed])),
        "parameters": _whole(first["parameters"]),
        "flops": _whole(first["flops"]),
        "epochs": _whole(first["epochs"]),
        "seconds_per_scan": float(fits["seconds_per_scan"].median()),
        "seconds_per_fit": float(fits["seconds"].median()),
        "gini": None if fits["gini"].isna().any() else float(fits["gini"].mean()),
    }


def _scan_gaps(frame: pd.DataFrame) -> pd.Series:
    """Absolute gap of each scan, the mean over seeds, by ids."""
    return (frame["predicted"] - frame["age"]).abs().groupby([frame[key] for key in KEYS]).mean()


def _complete_seeds(runs: pd.DataFrame, folds: int) -> dict[str, list[int]]:
    if not len(runs):
        return {}
    counts = runs.groupby(["contestant", "seed"])["fold"].nunique()
    done = counts[counts == folds].reset_index()
    return {str(name): sorted(map(int, part["seed"])) for name, part in done.groupby("contestant")}


def _runs_in(frame: pd.DataFrame) -> int:
    return len(frame[["seed", "fold"]].drop_duplicates())


def _whole(value: Any) -> int | None:
    return None if value is None or pd.isna(value) else int(value)
