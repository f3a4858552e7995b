"""What the regions' own ages say of people with a clinical dementia rating above 0, region by region.

    python benchmarks/regional_age.py --pre PRE [PRE2] --participants ../shared/data/oasis1/participants.tsv

Healthy people are those of the model's calibration, each region's age out of fold. Both groups are read
against healthy people of their true age. Nobody with a rating above 0 was learned from.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from brainage.data.participants import read_participants
from brainage.files import write_json
from brainage.models.weights import TrainedModel, load_trained
from brainage.predict.reference import AgeReference
from brainage.predict.regional_age import regional_ages, regional_references
from brainage.preprocess.outputs import find_preprocessed, read_preprocessed
from brainage.resources import resource

RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pre", type=Path, nargs="+", required=True, help="folders of brainage preprocess")
    parser.add_argument("--participants", type=Path, required=True, help="with age and cdr")
    parser.add_argument("--youngest", type=float, default=60.0, help="of both groups, years")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    trained = load_trained(resource("models/shipped/ermoe_ba.safetensors"))
    content = measure(trained, options.pre, options.participants, options.youngest)
    shown = Table(title=f"{content['ill']} people with CDR > 0, {content['healthy']} healthy, from 60 years")
    for heading in (
        "region",
        "error, years",
        "healthy",
        "CDR > 0",
        "above 95 %",
        "ROC area",
        "95 % interval",
    ):
        shown.add_column(heading, justify="left" if heading == "region" else "right")
    for row in content["regions"]:
        low, high = row["auc_ci95"]
        shown.add_row(
            row["region"],
            f"{row['rmse']:.1f}",
            f"{row['healthy_percentile']:.0f} %",
            f"{row['ill_percentile']:.0f} %",
            f"{row['ill_above_95']:.0f} %",
            f"{row['auc']:.2f}",
            f"{low:.2f} to {high:.2f}",
        )
    Console().print(shown)
    if options.json:
        write_json(options.json, content)


def measure(
    trained: TrainedModel, folders: list[Path], participants: Path, youngest: float
) -> dict[str, Any]:
    """Error of each region's age in healthy people, and percentiles of the ill and the healthy."""
    people = read_participants(participants).set_index("participant_id")
    ill = people[people["cdr"] > 0]
    looks: dict[str, np.ndarray] = {}
    for path in (path for folder in folders for path in find_preprocessed(folder)):
        scan = read_preprocessed(path)
        if scan.participant_id in ill.index and scan.participant_id not in looks:
            found = regional_ages(trained, scan.volume())
            if found is not None:
                looks[scan.participant_id] = found
    regional, references = trained.regional, regional_references(trained)
    if regional is None or references is None:
        raise SystemExit("the model has no regional ages")
    ages_P = ill.loc[list(looks), "age"].to_numpy(float)
    looks_PR = np.stack(list(looks.values()))
    ill_P, healthy_C = ages_P >= youngest, regional.ages_C >= youngest
    rows = []
    for place, (name, reference) in enumerate(zip(trained.region_names, references, strict=True)):
        if reference is None or reference.healthy is None:
            continue
        there = percentiles(reference.healthy, looks_PR[ill_P, place], ages_P[ill_P])
        here = percentiles(reference.healthy, regional.looks_CR[healthy_C, place], regional.ages_C[healthy_C])
        auc, interval = roc_area(there, here)
        rows.append(
            {
                "region": name,
                "rmse": round(reference.error, 2),
                "mae": round(float(np.abs(regional.looks_CR[:, place] - regional.ages_C).mean()), 2),
                "healthy_percentile": round(float(np.mean(here)), 1),
                "ill_percentile": round(float(np.mean(there)), 1),
                "ill_above_95": round(100 * float(np.mean(there > 95)), 1),
                "auc": auc,
                "auc_ci95": interval,
            }
        )
    rows.sort(key=lambda row: -row["auc"])
    return {
        "ill": int(ill_P.sum()),
        "healthy": int(healthy_C.sum()),
        "youngest": youngest,
        "calibration": len(regional.ages_C),
        "mean_mae": round(float(np.abs(regional.looks_CR - regional.ages_C[:, None]).mean()), 2),
        "guessing_mae": round(float(np.abs(regional.ages_C - regional.ages_C.mean()).mean()), 2),
        "regions": rows,
    }


def percentiles(reference: AgeReference, looks: np.ndarray, ages: np.ndarray) -> np.ndarray:
    """How many healthy people of the same age look younger, %; without those beyond the cohort's ages."""
    found = [reference.percent_below(value, age) for value, age in zip(looks, ages, strict=True)]
    return np.array([value for value in found if value is not None])


def roc_area(ill: np.ndarray, healthy: np.ndarray) -> tuple[float, list[float]]:
    """Area of telling the two apart, with its bootstrap interval over people."""
    rng = np.random.default_rng(0)
    truth = np.repeat([1, 0], [len(ill), len(healthy)])
    areas = []
    for _ in range(RESAMPLES):
        chosen = rng.choice(ill, len(ill)), rng.choice(healthy, len(healthy))
        areas.append(roc_auc_score(truth, np.concatenate(chosen)))
    low, high = np.quantile(areas, [0.025, 0.975])
    area = roc_auc_score(truth, np.concatenate([ill, healthy]))
    return round(float(area), 3), [round(float(low), 3), round(float(high), 3)]


if __name__ == "__main__":
    main()
