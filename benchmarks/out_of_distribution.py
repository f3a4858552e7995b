"""Does the program say so when a scan is not what it was trained on? Foreign scans, and false alarms.

    python benchmarks/out_of_distribution.py --oasis ../shared/data/oasis1 --pre PRE \\
        --data ../shared/data --json docs/results/out_of_distribution.json

``--pre`` holds the preprocessed training scans: the distances of tissue histograms, of the whole scan and of
its parts, are fitted to four fifths of them and their false alarms counted on the fifth that is left, five
times. The cases spoil a healthy OASIS
scan, a raw head and a stripped scan of another site, go through the whole chain and are predicted by the
shipped model. All of them are made from healthy adults: the T2 turns contrast round, the child is a scaled
adult, lesions are spheres. Rows in the JSON are kept, so an interrupted run goes on; ``--seconds`` ends it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from qc_cases import ALONE, CASES, Case, Scan
from resumable import add_options, start
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from brainage.data.cohort import scan_of
from brainage.data.participants import read_participants
from brainage.data.splits import age_stratified_folds
from brainage.files import write_json
from brainage.models.brain_age import scan_distance, token_distances
from brainage.models.weights import TrainedModel
from brainage.predict.batch import Request, predict_request
from brainage.preprocess.geometry import to_canonical
from brainage.preprocess.load import read_scan
from brainage.preprocess.outputs import find_preprocessed, read_preprocessed
from brainage.report.scan_page import split_reasons
from brainage.train.run import unusual_limits

OASIS = ("sub-OAS10004", "sub-OAS10001")  # 28 and 74 years, healthy
OTHERS = ("whole_head/sub-LH02", "stripped_native/sub-58")
_LEAST_STD = 0.02  # as the training's


def lesion(mm: float, share: float) -> Case:
    """A sphere of this diameter in one hemisphere, ``share`` times as bright as what was there."""

    def change(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator, brain: np.ndarray) -> Scan:
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        low, high = (np.array(corner) for corner in zip(*_extent(brain), strict=True))
        centre = low + (high - low) * np.array([0.72, 0.5, 0.65])
        grid = np.meshgrid(*(np.arange(n) for n in a.shape), indexing="ij", sparse=True)
        distance = sum(((g - c) * s) ** 2 for g, c, s in zip(grid, centre, spacing, strict=True)) ** 0.5
        weight = ndimage.gaussian_filter((distance <= mm / 2).astype(np.float32), 0.7) * brain
        inside = np.median(a[(distance <= mm / 2) & brain])
        return (a * (1 - weight) + share * inside * weight).astype(np.float32), affine

    return change


WANTED = {
    "untouched": CASES["untouched"][0],
    "T2 (contrast turned round)": CASES["contrast of a T2"][0],
    "child (0.8 of each length)": CASES["brain of a small child (0.8 of each length)"][0],
    "animal (0.5 of each length)": CASES["brain of half the length"][0],
    "lesion, 20 mm, dark": lesion(20, 0.3),
    "lesion, 40 mm, dark": lesion(40, 0.3),
    "lesion, 40 mm, bright": lesion(40, 1.6),
    "motion, slight": CASES["motion, slight"][0],
    "motion, heavy": CASES["motion, heavy"][0],
    "noise, 20 %": CASES["noise, 20 %"][0],
    "blur of 6 mm": CASES["blur of 6 mm"][0],
    "top 40 mm erased": CASES["top 40 mm erased"][0],
}
HARMLESS = ("untouched", "motion, slight")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--oasis", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pre", type=Path, required=True)
    add_options(parser)
    options = parser.parse_args()
    trained, result, end = start(options, {"cases": []})
    if "false_alarms" not in result:
        result["false_alarms"] = false_alarms(trained, options.pre)
        write_json(options.json, result)
    done = {(row["case"], row["base"]) for row in result["cases"]}
    bases = [(name, next((options.oasis / name).rglob("*_T1w.nii.gz"))) for name in OASIS]
    bases += [(name, next((options.data / name).rglob("*_T1w.nii.gz"))) for name in OTHERS]
    wanted = [(case, base, make) for case, make in WANTED.items() for base in bases]
    wanted += [(case, ("-", None), make) for case, (make, _) in ALONE.items() if case != "blank"]
    for case, (base, path), make in wanted:
        if (case, base) in done or time.monotonic() > end:
            continue
        result["cases"].append({"case": case, "base": base, **run(make, path, trained)})
        write_json(options.json, result)
    show(result)


def false_alarms(trained: TrainedModel, pre: Path, folds: int = 5) -> dict[str, Any]:
    """Share of training scans beyond the limits of the other folds, and of those that QC warns of."""
    people = read_participants(pre / "participants.tsv")
    ill = set(people.loc[people["cdr"] > 0, "participant_id"]) if "cdr" in people else set()
    scans = [read_preprocessed(path) for path in find_preprocessed(pre)]
    scans = [scan for scan in scans if scan.participant_id not in ill]
    histograms = []
    with torch.no_grad():
        for scan in scans:
            volume = torch.from_numpy(scan.volume())[None, None]
            histograms.append(trained.model.histograms(volume)[0].half().float())
    features = torch.stack(histograms)
    names = [scan.participant_id for scan in scans]
    place = age_stratified_folds(names, [0.0] * len(names), folds, 0)
    whole, part = np.zeros(len(scans), bool), np.zeros(len(scans), bool)
    for fold in range(folds):
        rest = features[place != fold]
        mean, std = rest.mean(0), rest.std(0, correction=0).clamp_min(_LEAST_STD)
        limits = unusual_limits(token_distances(rest, mean, std))
        distances = token_distances(features[place == fold], mean, std)
        whole[place == fold] = scan_distance(distances).numpy() > limits["unusual_limit"]
        part[place == fold] = distances.amax(1).numpy() > limits["unusual_part_limit"]
    warned = np.array([bool(scan.warnings) for scan in scans])
    return {
        "scans": len(scans),
        "distance": float(whole.mean()),
        "part": float(part.mean()),
        "quality": float(warned.mean()),
        "any": float((whole | part | warned).mean()),
    }


def run(make: Case, path: Path | None, trained: TrainedModel) -> dict[str, Any]:
    """Spoil, write, preprocess and predict one scan."""
    if path is None:
        array, affine = np.zeros((1, 1, 1), np.float32), np.eye(4)
    else:
        stored, stored_affine, _ = read_scan(path)
        array, affine = to_canonical(stored, stored_affine)
    array = np.ascontiguousarray(array, dtype=np.float32)
    array, affine = make(array, affine, np.random.default_rng(0), brain_of(array))
    with tempfile.TemporaryDirectory() as scratch:
        spoiled = Path(scratch, "sub-01_T1w.nii.gz")
        image = nib.Nifti1Image(array.astype(np.float32), affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        nib.save(image, spoiled)
        row = predict_request(Request(spoiled, scan_of(spoiled)), trained, Path(scratch, "out"), None).row
    reasons = split_reasons(row["message"])
    unlike = [reason for reason in reasons if reason.startswith("unlike the training scans")]
    part = [reason for reason in reasons if reason.startswith("a part of the scan")]
    return {
        "status": row["status"],
        "predicted_age": row["predicted_age"],
        "unusual": row.get("unusual", ""),
        "by_distance": bool(unlike),
        "by_part": bool(part),
        "by_other": len(reasons) > len(unlike) + len(part),
        "message": row["message"][:300],
    }


def brain_of(array: np.ndarray) -> np.ndarray:
    """Roughly where the brain is: the largest bright piece, less its rim where there is a skull."""
    if array.size < 1000:
        return np.zeros(array.shape, bool)
    bright = array > 0.35 * np.percentile(array[array > 0], 98)
    if (array == 0).mean() < 0.3:
        bright = ndimage.binary_erosion(bright, iterations=5)
    labels, count = ndimage.label(bright)
    if not count:
        return bright
    largest = np.bincount(labels.ravel())[1:].argmax() + 1
    return ndimage.binary_fill_holes(labels == largest)


def show(result: dict[str, Any]) -> None:
    console = Console(width=170)
    console.print("false alarms on held-out healthy scans", result["false_alarms"])
    table = Table(
        "case", "base", "status", "predicted", "distance", "by distance", "by a part", "by another", "message"
    )
    for row in result["cases"]:
        table.add_row(
            row["case"],
            row["base"],
            row["status"],
            str(row["predicted_age"]),
            str(row["unusual"]),
            str(row["by_distance"]),
            str(row["by_part"]),
            str(row["by_other"]),
            row["message"][:70],
        )
    console.print(table)
    spoiled = [row for row in result["cases"] if row["case"] not in HARMLESS]
    missed = [row for row in spoiled if row["status"] == "ok"]
    console.print(
        f"{len(spoiled) - len(missed)} of {len(spoiled)} spoiled or foreign scans flagged or refused"
    )


def _extent(brain: np.ndarray) -> list[tuple[int, int]]:
    return [
        (int(np.flatnonzero(line)[0]), int(np.flatnonzero(line)[-1]))
        for line in (brain.any(axis=tuple({0, 1, 2} - {axis})) for axis in range(3))
    ]


if __name__ == "__main__":
    main()
