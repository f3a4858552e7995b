"""Raw scans to ages: predicted and true age, Dice of the brain mask where labels exist, seconds a scan.

    python benchmarks/raw_scans.py --data ../shared/data --json raw_scans.json

``--data`` holds BIDS folders of raw scans (``whole_head``, ``stripped_native``) with ``participants.tsv``,
and label maps in ``whole_head_labels`` (label > 0 is brain). Seconds are of a warm process: imports, the
template and the model are loaded by one scan before the first that counts. "Adapted" is the age after
``brainage finetune --method line`` on the other scans of the site (column ``site``, else the folder). With
``--pre`` the volumes that ``brainage preprocess`` left there are taken instead, and the seconds mean nothing.

The summary has what a model card says of other scanners: the error, the largest one, and each site's mean.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from brainage.data.cohort import find_scans
from brainage.data.participants import read_participants
from brainage.files import write_json
from brainage.models.weights import TrainedModel, load_trained
from brainage.predict.batch import Outcome, Request, predict_request
from brainage.predict.predictor import predict_scan
from brainage.predict.regional_pattern import RegionalPattern, regional_pattern
from brainage.preprocess.outputs import find_preprocessed
from brainage.resources import resource
from brainage.train.finetune import Features, cross_validated

FOLDERS = ("whole_head", "stripped_native")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pre", type=Path, default=None, help="these scans, preprocessed before")
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    trained = load_trained(options.model or resource("models/shipped/ermoe_ba.safetensors"))
    pattern = regional_pattern(trained)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for folder in FOLDERS:
            people = read_participants(options.data / folder / "participants.tsv").set_index("participant_id")
            scans, _ = find_scans(options.data / folder)
            if not rows and not options.pre:
                predict_request(Request(scans[0].path, scans[0]), trained, Path(scratch, "warm"), None)
            for scan in scans:
                start = time.perf_counter()
                request = Request(scan.path, scan)
                if options.pre:
                    request = Request(find_preprocessed(options.pre / scan.participant_id)[0])
                outcome = predict_request(request, trained, Path(scratch, folder), None)
                seconds = time.perf_counter() - start
                labels = list((options.data / "whole_head_labels").rglob(f"{scan.participant_id}_*.nii.gz"))
                dice = None
                if labels and outcome.scan is not None:
                    dice = dice_coefficient(labels[0], outcome.scan.mask_path)
                rows.append(
                    {
                        "folder": folder,
                        "site": people.at[scan.participant_id, "site"] or folder,
                        "participant_id": scan.participant_id,
                        "age": float(people.at[scan.participant_id, "age"]),
                        "predicted_age": float(outcome.row["predicted_age"] or "nan"),
                        "interval": [
                            float(outcome.row.get(name) or "nan")
                            for name in ("interval_low", "interval_high")
                        ],
                        "status": outcome.row["status"],
                        "message": outcome.row["message"],
                        "dice": dice,
                        "registration_ncc": outcome.row.get("registration_ncc", ""),
                        "unusual": outcome.row.get("unusual", ""),
                        "pattern": distance_of(pattern, trained, outcome),
                        "seconds": seconds,
                    }
                )
    add_adapted(rows)
    table = Table(title="Raw scans")
    headings = (
        "scan",
        "age",
        "predicted",
        "interval",
        "adapted",
        "status",
        "Dice",
        "ncc",
        "unusual",
        "pattern",
        "seconds",
    )
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        dice = "" if row["dice"] is None else f"{row['dice']:.3f}"
        table.add_row(
            f"{row['folder']} {row['participant_id']}",
            f"{row['age']:g}",
            f"{row['predicted_age']:.1f}",
            "{:.0f} to {:.0f}".format(*row["interval"]),
            f"{row['adapted_age']:.1f}",
            row["status"],
            dice,
            row["registration_ncc"],
            row["unusual"],
            "" if row["pattern"] is None else f"{row['pattern']:.2f}",
            f"{row['seconds']:.1f}",
        )
    gaps = np.array([row["predicted_age"] - row["age"] for row in rows])
    dices = [row["dice"] for row in rows if row["dice"] is not None]
    summary = {
        "mae": float(np.nanmean(np.abs(gaps))),
        "largest": float(np.nanmax(np.abs(gaps))),
        "mean_gap": float(np.nanmean(gaps)),
        "intervals_that_hold": sum(row["interval"][0] <= row["age"] <= row["interval"][1] for row in rows),
        "mae_adapted": float(np.nanmean([abs(row["adapted_age"] - row["age"]) for row in rows])),
        "mean_gap_by_site": {
            site: float(np.mean([gap for gap, row in zip(gaps, rows, strict=True) if row["site"] == site]))
            for site in dict.fromkeys(row["site"] for row in rows)
        },
        "pattern_limit": None if pattern is None else pattern.limit,
        "mean_dice": float(np.mean(dices)) if dices else None,
        "min_dice": float(np.min(dices)) if dices else None,
        "median_seconds": None if options.pre else float(np.median([row["seconds"] for row in rows])),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
    }
    console = Console(width=140)
    console.print(table)
    console.print(summary)
    if options.json:
        write_json(options.json, {"summary": summary, "scans": rows})


def add_adapted(rows: list[dict[str, Any]]) -> None:
    """The age that each scan gets after adaptation to the others of its site; nan where they are too few."""
    for site in dict.fromkeys(row["site"] for row in rows):
        own = [row for row in rows if row["site"] == site]
        predicted, age = (np.array([row[key] for row in own]) for key in ("predicted_age", "age"))
        adapted = np.full(len(own), np.nan)
        if len(own) > 2 and np.isfinite(predicted).all():
            names = tuple(row["participant_id"] for row in own)
            nothing = np.zeros((len(own), 1))
            adapted = cross_validated("line", Features(nothing, predicted, age, names, nothing[0]))
        for row, years in zip(own, adapted, strict=True):
            row["adapted_age"] = float(years)


def distance_of(pattern: RegionalPattern | None, trained: TrainedModel, outcome: Outcome) -> float | None:
    """Of the regions' own ages from the training's pattern."""
    if pattern is None or outcome.scan is None:
        return None
    prediction = predict_scan(trained, outcome.scan.volume())
    return None if prediction.regional_R is None else pattern.distance(prediction.regional_R, prediction.age)


def dice_coefficient(labels: Path, mask: Path) -> float:
    """Overlap 2 |A and B| / (|A| + |B|) of label > 0 with mask > 0, on the grid that both share."""
    reference = np.asarray(nib.load(labels).dataobj).squeeze() > 0
    found = np.asarray(nib.load(mask).dataobj).squeeze() > 0
    return float(2 * (reference & found).sum() / (reference.sum() + found.sum()))


if __name__ == "__main__":
    main()
