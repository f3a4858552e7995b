"""Do brains of people with dementia look older? Gaps of CDR > 0 against healthy people of like age and sex.

    brainage preprocess ../shared/data/oasis1 PRE
    python benchmarks/clinical_validity.py --pre PRE --cv RUN/cv_predictions.csv \\
        --participants ../shared/data/oasis1/participants.tsv \\
        --json docs/results/clinical_validity.json --figure docs/images/clinical_validity.png

Patients are predicted by ``--model`` (default: the shipped one), which never learned from them; the healthy
by the models of the cross-validation that never saw them. Gaps are corrected by the line that the model
carries (de Lange & Cole). Several folders may follow ``--pre``. One command runs it again for another model.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from scipy import stats
from sklearn.metrics import roc_auc_score

from brainage.data.participants import read_participants
from brainage.evaluate.bias import AgeBias, correct_de_lange
from brainage.files import replacing, write_json
from brainage.models.weights import load_trained
from brainage.predict.predictor import predict_scan
from brainage.preprocess.outputs import find_preprocessed, read_preprocessed
from brainage.resources import resource

RESAMPLES = 5000
YEARS = 3.0  # at most between a patient and a matched healthy subject


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pre", type=Path, nargs="+", required=True)
    parser.add_argument("--participants", type=Path, required=True)
    parser.add_argument("--cv", type=Path, required=True)
    parser.add_argument("--column", default="ermoe_ba")
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--figure", type=Path, default=None)
    options = parser.parse_args()
    trained = load_trained(options.model or resource("models/shipped/ermoe_ba.safetensors"))
    line = AgeBias(trained.facts["age_bias"]["slope"], trained.facts["age_bias"]["intercept"])
    people = read_participants(options.participants).set_index("participant_id")
    healthy = pd.read_csv(options.cv).set_index("participant_id")[[options.column]]
    healthy.columns = ["predicted"]
    ill = people.index[(people["cdr"] > 0)]
    found: dict[str, float] = {}
    warned = 0
    for folder in options.pre:
        for path in find_preprocessed(folder):
            scan = read_preprocessed(path)
            if scan.participant_id in ill and scan.participant_id not in found:
                prediction = predict_scan(trained, scan.volume())
                found[scan.participant_id] = prediction.age
                warned += prediction.unusual > trained.facts["unusual_limit"]
    patients = pd.DataFrame({"predicted": pd.Series(found, dtype=float)})
    table = pd.concat([healthy, patients]).join(people[["age", "sex", "cdr", "mmse"]], how="inner")
    table["gap"] = table["predicted"] - table["age"]
    table["corrected"] = correct_de_lange(table["predicted"], table["age"], line) - table["age"]
    table["ill"] = table["cdr"] > 0
    figures = analyse(table)
    figures["source"] = {
        "model": trained.facts["fingerprint"],
        "patients_predicted": len(patients),
        "patients_in_table": len(ill),
        "patients_unlike_training_scans": int(warned),
        "line": {"slope": line.slope, "intercept": line.intercept},
    }
    Console(width=140).print(figures)
    if options.json:
        write_json(options.json, figures)
    if options.figure:
        draw(table, options.figure)


def analyse(table: pd.DataFrame) -> dict[str, Any]:
    """Every figure; intervals are 95 % percentile bootstraps over people."""
    ill = table[table["ill"]]
    low, high = ill["age"].min(), ill["age"].max()
    old = table[~table["ill"] & table["age"].between(low - YEARS, high + YEARS)]
    rng = np.random.default_rng(0)
    both = pd.concat([old, ill])
    result: dict[str, Any] = {
        "n": {"ill": len(ill), "healthy_of_that_age": len(old)},
        "age": {"ill": _mean_sd(ill["age"]), "healthy_of_that_age": _mean_sd(old["age"])},
        "regression": regression(both, rng),
        "matched": matched(ill, table[~table["ill"]]),
        "by_cdr": {f"{cdr:g}": {"n": len(rows), **_gap_figures(rows)} for cdr, rows in both.groupby("cdr")},
        "auc": auc(both, rng),
        "mmse": {
            "all": mmse(both, rng),
            "healthy": mmse(old, rng),
            "ill": mmse(ill, rng),
        },
        "method": f"95 % percentile bootstrap over people, {RESAMPLES} resamples, seed 0; gaps in years",
    }
    return result


def regression(both: pd.DataFrame, rng: np.random.Generator) -> dict[str, Any]:
    """Gap on illness, age, age squared and sex: what illness adds, in years and in healthy deviations."""

    def fit(rows: pd.DataFrame) -> tuple[float, float]:
        age = (rows["age"].to_numpy() - 75) / 10
        ill = rows["ill"].to_numpy(float)
        design = np.stack([ill, np.ones_like(age), age, age**2, rows["sex"].eq("male").to_numpy(float)], 1)
        weights, *_ = np.linalg.lstsq(design, rows["gap"].to_numpy(), rcond=None)
        residual = (rows["gap"].to_numpy() - design @ weights)[ill == 0]
        return float(weights[0]), float(weights[0] / residual.std(ddof=1))

    years, effect = fit(both)
    drawn = np.array([fit(_resampled(both, rng)) for _ in range(RESAMPLES // 5)])
    return {
        "years": years,
        "years_ci95": _interval(drawn[:, 0]),
        "effect_size": effect,
        "effect_size_ci95": _interval(drawn[:, 1]),
    }


def matched(ill: pd.DataFrame, healthy: pd.DataFrame) -> dict[str, Any]:
    """Each patient against the mean of all healthy of the same sex within ``YEARS``; paired over patients."""
    differences = []
    for row in ill.itertuples():
        near = healthy[(healthy["sex"] == row.sex) & ((healthy["age"] - row.age).abs() <= YEARS)]
        if len(near):
            differences.append((row.gap - near["gap"].mean(), len(near)))
    values = np.array(differences)
    rng = np.random.default_rng(1)
    drawn = values[rng.integers(len(values), size=(RESAMPLES, len(values))), 0].mean(1)
    return {
        "patients_matched": len(values),
        "median_healthy_each": float(np.median(values[:, 1])),
        "years": float(values[:, 0].mean()),
        "years_ci95": _interval(drawn),
        "p_wilcoxon": float(stats.wilcoxon(values[:, 0]).pvalue),
    }


def auc(both: pd.DataFrame, rng: np.random.Generator) -> dict[str, Any]:
    """How often a patient's value exceeds a healthy person's: corrected gap, raw gap, age and MMSE alone."""
    scores = {
        "corrected_gap": both["corrected"],
        "raw_gap": both["gap"],
        "age_alone": both["age"],
        "mmse_alone": -both["mmse"],
    }
    result = {}
    for name, score in scores.items():
        known = both[score.notna()].assign(score=score)
        drawn = [roc_auc_score(rows["ill"], rows["score"]) for rows in _resamples(known, rng, RESAMPLES // 5)]
        result[name] = {
            "auc": float(roc_auc_score(known["ill"], known["score"])),
            "ci95": _interval(np.array(drawn)),
        }
    return result


def mmse(rows: pd.DataFrame, rng: np.random.Generator) -> dict[str, Any]:
    """Rank correlation of the corrected gap with MMSE, age and sex taken out of the ranks of both."""
    rows = rows[rows["mmse"].notna()]

    def partial(sample: pd.DataFrame) -> float:
        design = np.stack(
            [np.ones(len(sample)), stats.rankdata(sample["age"]), sample["sex"].eq("male").to_numpy(float)], 1
        )
        ranks = [stats.rankdata(sample[name]) for name in ("corrected", "mmse")]
        left = [rank - design @ np.linalg.lstsq(design, rank, rcond=None)[0] for rank in ranks]
        return float(np.corrcoef(*left)[0, 1])

    drawn = np.array([partial(_resampled(rows, rng)) for _ in range(RESAMPLES // 5)])
    return {"n": len(rows), "partial_spearman": partial(rows), "ci95": _interval(drawn)}


def draw(table: pd.DataFrame, path: Path) -> None:
    """Corrected gaps by CDR, and raw gaps against age."""
    ill = table[table["ill"]]
    old = table[~table["ill"] & table["age"].between(ill["age"].min() - YEARS, ill["age"].max() + YEARS)]
    figure = Figure(figsize=(9.6, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    groups = [(f"healthy, CDR 0\nn={len(old)}", old["corrected"])]
    groups += [(f"CDR {cdr:g}\nn={len(rows)}", rows["corrected"]) for cdr, rows in ill.groupby("cdr")]
    left.boxplot([values for _, values in groups], showfliers=False, widths=0.5)
    rng = np.random.default_rng(0)
    for place, (_, values) in enumerate(groups, 1):
        left.scatter(place + rng.uniform(-0.15, 0.15, len(values)), values, s=12, alpha=0.6, color="#1f5a99")
    left.set_xticks(range(1, len(groups) + 1), [name for name, _ in groups])
    left.axhline(0, color="#444444", linestyle="--", linewidth=1)
    left.set(ylabel="gap corrected for age bias (years)")
    for name, rows, colour in (("CDR 0", table[~table["ill"]], "#1f5a99"), ("CDR > 0", ill, "#b4451f")):
        right.scatter(rows["age"], rows["gap"], s=14, alpha=0.65, color=colour, label=name)
    right.axhline(0, color="#444444", linestyle="--", linewidth=1)
    right.set(xlabel="true age (years)", ylabel="gap, uncorrected (years)")
    right.legend(frameon=False, fontsize=9)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=130)


def _gap_figures(rows: pd.DataFrame) -> dict[str, Any]:
    return {"gap": _mean_sd(rows["gap"]), "corrected_gap": _mean_sd(rows["corrected"])}


def _mean_sd(values: pd.Series) -> list[float]:
    return [round(float(values.mean()), 3), round(float(values.std(ddof=1)), 3)]


def _resampled(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """People drawn anew within the ill and within the healthy, so that both stay."""
    kinds = [group.iloc[rng.integers(len(group), size=len(group))] for _, group in rows.groupby("ill")]
    return pd.concat(kinds)


def _resamples(rows: pd.DataFrame, rng: np.random.Generator, count: int) -> list[pd.DataFrame]:
    return [_resampled(rows, rng) for _ in range(count)]


def _interval(values: np.ndarray) -> list[float]:
    return [round(float(bound), 4) for bound in np.nanquantile(values, [0.025, 0.975])]


if __name__ == "__main__":
    main()
