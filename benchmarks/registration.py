"""How far alignment and age move when a scan is turned, shifted, scaled and stored otherwise.

    python benchmarks/registration.py --data ../shared/data --work /tmp/registration --affines 20 \
        --json docs/results/registration.json
    python benchmarks/registration.py --data ../shared/data --work /tmp/orientations --orientations \
        --json docs/results/registration_orientations.json

Each raw scan in ``whole_head`` and ``stripped_native`` is resampled by known random affines: a turn of up
to 30 degrees about a random axis, a shift of up to 30 mm and a scale of 0.85 to 1.15 along each axis, then
stored in one of the 48 orientations. The preprocessing runs on the scan as it is and on the resampled
one. For every voxel of the brain, the place in MNI space that the first run gives it is compared with the one
that the second gives it; and so are the ages of the shipped model. With ``--orientations`` the scan is not
resampled, but stored in all 48 orientations; of those that load to the very same bytes one runs.
Runs go affine by affine; a run that ``--work`` holds is not
done again, so a stopped benchmark goes on where it was, and ``--seconds`` gives it a time to stop at.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from nibabel.orientations import apply_orientation, inv_ornt_aff
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from scipy.spatial.transform import Rotation

from brainage.anatomy.grid import MODEL_GRID
from brainage.config import PreprocessRecipe
from brainage.data.cohort import find_scans
from brainage.errors import plain_words
from brainage.files import write_json
from brainage.models.weights import TrainedModel, load_trained
from brainage.predict.predictor import predict_scan
from brainage.preprocess.chain import CHAIN_VERSION, preprocess_chain
from brainage.preprocess.load import LoadScand
from brainage.preprocess.normalize import NormalizeIntensityd
from brainage.preprocess.qc import judge
from brainage.preprocess.stripped import solid_foreground
from brainage.resources import resource

FOLDERS = ("whole_head", "stripped_native")
DEGREES, SHIFT_MM, SCALES = 30.0, 30.0, (0.85, 1.15)
MARGIN_MM = 6.0
ORIENTATIONS = [
    np.array(list(zip(order, signs, strict=True)))
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]
RECIPE = PreprocessRecipe()
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for runs, to resume from")
    parser.add_argument("--affines", type=int, default=20, help="for each scan")
    parser.add_argument("--orientations", action="store_true", help="all 48, in place of affines")
    parser.add_argument("--scans", nargs="*", default=None, help="participants; all by default")
    parser.add_argument("--seconds", type=float, default=np.inf, help="start no run after that many")
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    stop = time.monotonic() + options.seconds
    scans = [
        (folder, scan) for folder in FOLDERS if (options.data / folder).is_dir()
        for scan in find_scans(options.data / folder)[0]
    ]  # fmt: skip
    options.work.mkdir(parents=True, exist_ok=True)
    log = options.work / "runs.jsonl"
    done = {(row["scan"], row["number"]): row for row in _read_log(log)}
    make = _reoriented if options.orientations else resampled
    with log.open("a", encoding="utf-8") as stream:
        for number in range(1 + (48 if options.orientations else options.affines)):
            for index, (folder, scan) in enumerate(scans):
                key = (scan.participant_id, number)
                left_out = options.scans is not None and scan.participant_id not in options.scans
                if left_out or key in done or time.monotonic() > stop:
                    continue
                row = {"folder": folder, "scan": scan.participant_id, "number": number}
                same = {r["loaded"]: r for r in done.values() if r["scan"] == row["scan"]}
                row |= _run(scan.path, index, number, options.work / f"{key[0]}_{number}.npz", make, same)
                done[key] = row
                stream.write(json.dumps(row) + "\n")
                stream.flush()
    rows = sorted(done.values(), key=lambda row: (row["number"], row["folder"], row["scan"]))
    trained = load_trained(options.model or resource("models/shipped/ermoe_ba.safetensors"))
    results = list(_compare(rows, options.work, trained))
    summary = _summary(results) | {"model_fingerprint": trained.facts["fingerprint"]}
    _show(results, summary)
    if options.json:
        write_json(options.json, {"summary": summary, "runs": results})


def _read_log(log: Path) -> list[Row]:
    return [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.is_file() else []


def _run(path: Path, index: int, number: int, kept: Path, make: Any, same: dict[str, Row]) -> Row:
    """Preprocess the scan (number 0) or a changed copy of it; what became of it.

    The volume is kept as it was before its intensities were normalised, with the matrix and the brain mask.
    """
    row: Row = {"chain_version": CHAIN_VERSION, "moved": np.eye(4).tolist()}
    with tempfile.TemporaryDirectory() as scratch:
        if number:
            image, facts = make(path, index, number)
            row |= facts
            path = Path(scratch, "sub-changed_T1w.nii")
            image.set_sform(image.affine, 1)
            image.set_qform(image.affine, 1)
            image.header.set_xyzt_units("mm")
            nib.save(image, path)
        row["loaded"] = _hash_of_loaded(path)
        if row["loaded"] in same:
            twin = same[row["loaded"]]
            return twin | row | {"number": number, "twin": twin["number"], "seconds": 0.0}
        start = time.perf_counter()
        data: dict[str, Any] = {"image": path}
        try:
            for transform in preprocess_chain(RECIPE).transforms:
                if isinstance(transform, NormalizeIntensityd):
                    brain = np.argwhere(data["brain_mask"][0].numpy())[::37]
                    np.savez_compressed(
                        kept,
                        volume=data["volume"][0].numpy(),
                        native_to_mni=data["native_to_mni"],
                        brain_mm=nib.affines.apply_affine(data["brain_mask"].affine.numpy(), brain),
                    )
                    row["kept"] = kept.name
                data = transform(data)
        except Exception as error:
            row["message"] = plain_words(error)
    qc = {name: float(value) for name, value in data.get("qc", {}).items()}
    return row | {"qc": qc, "seconds": time.perf_counter() - start}


def resampled(path: Path, index: int, number: int) -> tuple[nib.Nifti1Image, Row]:
    """The scan turned, shifted and scaled, on voxels of its own size in a box around what was the body.

    Interpolated by cubic splines; where the nearest voxel is an exact zero, zero stays.
    """
    rng = np.random.default_rng([number, index])
    image = nib.as_closest_canonical(nib.load(path))
    values = np.asarray(image.dataobj, dtype=np.float32).squeeze()
    sizes = nib.affines.voxel_sizes(image.affine)
    step = np.maximum(1, np.rint(3.0 / sizes)).astype(int)
    body = np.argwhere(solid_foreground(values[:: step[0], :: step[1], :: step[2]])) * step
    points = nib.affines.apply_affine(image.affine, body)
    centre = (points.min(0) + points.max(0)) / 2
    axis = rng.standard_normal(3)
    degrees = rng.uniform(0, DEGREES)
    turn = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    scales, shift = rng.uniform(*SCALES, 3), rng.uniform(-SHIFT_MM, SHIFT_MM, 3)
    moved = np.eye(4)
    moved[:3, :3] = turn @ np.diag(scales)
    moved[:3, 3] = centre + shift - moved[:3, :3] @ centre
    corners = nib.affines.apply_affine(moved, points)
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = corners.min(0) - MARGIN_MM
    shape = np.ceil((np.ptp(corners, axis=0) + 2 * MARGIN_MM) / sizes).astype(int)
    to_voxel = np.linalg.inv(moved @ image.affine) @ affine
    grid = {"matrix": to_voxel[:3, :3], "offset": to_voxel[:3, 3], "output_shape": tuple(shape)}
    fine = ndimage.affine_transform(values, **grid, order=3)
    nearest = ndimage.affine_transform(values, **grid, order=0)
    fine = np.where(nearest == 0, 0, np.clip(fine, values.min(), values.max())).astype(np.float32)
    orientation = ORIENTATIONS[rng.integers(48)]
    stored = apply_orientation(fine, orientation)
    facts = {"degrees": degrees, "shift_mm": shift.tolist(), "scales": scales.tolist()}
    return nib.Nifti1Image(stored, affine @ inv_ornt_aff(orientation, fine.shape)), facts | {
        "moved": moved.tolist(),
        "codes": "".join(nib.orientations.aff2axcodes(affine @ inv_ornt_aff(orientation, fine.shape))),
    }


def _reoriented(path: Path, index: int, number: int) -> tuple[nib.Nifti1Image, Row]:
    """The same voxels in another order of axes."""
    image = nib.load(path)
    values = np.asarray(image.dataobj).squeeze()
    orientation = ORIENTATIONS[number - 1]
    affine = image.affine @ inv_ornt_aff(orientation, values.shape)
    stored = nib.Nifti1Image(apply_orientation(values, orientation), affine)
    return stored, {"codes": "".join(nib.aff2axcodes(affine))}


def _hash_of_loaded(path: Path) -> str:
    tensor = LoadScand()({"image": path})["image"]
    content = tensor.numpy().tobytes() + tensor.affine.numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _compare(rows: list[Row], work: Path, trained: TrainedModel) -> Iterator[Row]:
    """Every changed scan against the unchanged one: error of the position (mm) and of the age (years)."""
    plain: dict[str, tuple[np.ndarray, np.ndarray, float]] = {}
    for row in rows:
        _, failures = judge(row["qc"], RECIPE.qc)
        shown = {name: value for name, value in row.items() if name not in ("moved", "kept", "qc", "loaded")}
        if "message" in row or failures:
            yield {"message": "; ".join(failures), **shown, "lost": True}
            continue
        with np.load(work / row["kept"]) as kept:
            matrix, brain = kept["native_to_mni"], kept["brain_mm"]
            age = _age(trained, kept["volume"])
        if row["number"] == 0:
            plain[row["scan"]] = matrix, brain, age
            continue
        own_matrix, brain, own_age = plain[row["scan"]]
        there = nib.affines.apply_affine(matrix @ np.array(row["moved"]), brain)
        errors = np.linalg.norm(there - nib.affines.apply_affine(own_matrix, brain), axis=1)
        median, high = np.percentile(errors, [50, 95])
        yield shown | {
            "median_mm": float(median),
            "p95_mm": float(high),
            "age": age,
            "own_age": own_age,
            "lost": False,
        }


def _age(trained: TrainedModel, volume: np.ndarray) -> float:
    on_grid = MetaTensor(torch.from_numpy(volume)[None], affine=torch.from_numpy(MODEL_GRID.affine))
    normalised = NormalizeIntensityd()({"volume": on_grid})["volume"][0].numpy()
    # Half precision is what files keep.
    return predict_scan(trained, normalised.astype(np.float16).astype(np.float32)).age


def _summary(results: list[Row]) -> Row:
    """Of all runs, and of heads and stripped scans."""
    groups = {"all": results} | {name: [r for r in results if r["folder"] == name] for name in FOLDERS}
    summary: Row = {}
    for name, rows in groups.items():
        found = [row for row in rows if not row["lost"]]
        if not found:
            continue
        ages = np.abs([row["age"] - row["own_age"] for row in found])
        summary[name] = {
            "runs": len(rows),
            "lost": len(rows) - len(found),
            # Of each run's voxels first; then over runs the median, the 95th percentile and the worst.
            "median_mm": float(np.median([row["median_mm"] for row in found])),
            "p95_mm": float(np.median([row["p95_mm"] for row in found])),
            "p95_of_p95_mm": float(np.percentile([row["p95_mm"] for row in found], 95)),
            "worst_median_mm": float(max(row["median_mm"] for row in found)),
            "worst_p95_mm": float(max(row["p95_mm"] for row in found)),
            "runs_over_4_mm": sum(row["p95_mm"] > 4 for row in found),
            "median_years": float(np.median(ages)),
            "p95_years": float(np.percentile(ages, 95)),
            "worst_years": float(ages.max()),
            "median_seconds": float(np.median([row["seconds"] for row in rows])),
        }
    return summary


def _show(results: list[Row], summary: Row) -> None:
    console = Console(width=150)
    table = Table(title="Runs")
    headings = ("scan", "number", "degrees", "scales", "median mm", "95 % mm", "age", "own age", "message")
    for heading in headings:
        table.add_column(heading)
    for row in results:
        figures = [f"{row[name]:.2f}" if name in row else "" for name in ("median_mm", "p95_mm")]
        ages = [f"{row[name]:.1f}" if name in row else "" for name in ("age", "own_age")]
        scales = " ".join(f"{scale:.2f}" for scale in row.get("scales", ()))
        degrees = f"{row['degrees']:.0f}" if "degrees" in row else row.get("codes", "")
        table.add_row(
            row["scan"], str(row["number"]), degrees, scales, *figures, *ages, row.get("message", "")[:60]
        )
    console.print(table)
    console.print(summary)


if __name__ == "__main__":
    main()
