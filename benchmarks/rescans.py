"""How far a prediction moves when the same scan is measured a little differently: noise, turns, voxels.

    python benchmarks/rescans.py --data ../shared/data --json docs/results/rescans.json

Raw heads and stripped scans are changed, put through the whole chain and predicted by the shipped model. The
changes are synthetic: no real rescan is among them. Rows in the JSON are kept, so an interrupted run goes on;
``--seconds`` ends it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from resumable import add_options, start
from rich.console import Console
from scipy import ndimage

from brainage.data.cohort import scan_of
from brainage.files import write_json
from brainage.models.weights import TrainedModel
from brainage.predict.batch import Request, predict_request
from brainage.preprocess.geometry import to_canonical
from brainage.preprocess.load import read_scan

BASES = (
    "whole_head/sub-LH02",
    "whole_head/sub-IXI014",
    "stripped_native/sub-58",
    "oasis1/sub-OAS10004",
    "oasis1/sub-OAS10001",
)

Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def noise(share: float) -> Change:
    """Rician noise of this share of the bright tissue."""

    def change(a: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sigma = share * np.percentile(a[a > 0], 90)
        drawn = np.random.default_rng(0).normal(0, sigma, (2, *a.shape)).astype(np.float32)
        return np.where(a > 0, np.hypot(a + drawn[0], drawn[1]), 0).astype(np.float32), affine

    return change


def turned(degrees: float) -> Change:
    """The head lies turned about all three axes: the header says where, the voxels stay."""

    def change(a: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        turn = np.eye(4)
        turn[:3, :3] = (
            np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
            @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
            @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        )
        return a, turn @ affine

    return change


def resampled(mm: float) -> Change:
    """Isotropic voxels of this size, linear."""

    def change(a: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        factor = mm / np.linalg.norm(affine[:3, :3], axis=0)
        shape = tuple(int(n) for n in np.floor((np.array(a.shape) - 1) / factor) + 1)
        out = ndimage.affine_transform(a, np.diag(factor), output_shape=shape, order=1)
        return out, affine @ np.diag([*factor, 1.0])

    return change


CHANGES: dict[str, Change] = {
    "noise, 3 %": noise(0.03),
    "noise, 6 %": noise(0.06),
    "turned by 5 degrees": turned(5),
    "turned by 15 degrees": turned(15),
    "voxels of 1.5 mm": resampled(1.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    add_options(parser)
    options = parser.parse_args()
    trained, result, end = start(options, {"ages": {}})
    for base in BASES:
        ages = result["ages"].setdefault(base, {})
        for name, change in {"as it is": lambda a, affine: (a, affine), **CHANGES}.items():
            if name not in ages and time.monotonic() < end:
                ages[name] = predicted(options.data / base, change, trained)
                write_json(options.json, result)
    result["changes"] = {name: figures for name in CHANGES if (figures := shifts(result["ages"], name))}
    write_json(options.json, result)
    Console(width=120).print(result)


def predicted(folder: Path, change: Change, trained: TrainedModel) -> float | None:
    """Years; None where the changed scan is refused."""
    path = next(folder.rglob("*_T1w.nii.gz"))
    stored, stored_affine, _ = read_scan(path)
    array, affine = to_canonical(stored, stored_affine)
    array, affine = change(np.ascontiguousarray(array, dtype=np.float32), affine)
    with tempfile.TemporaryDirectory() as scratch:
        changed = Path(scratch, "sub-01_T1w.nii.gz")
        image = nib.Nifti1Image(array.astype(np.float32), affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        nib.save(image, changed)
        row = predict_request(Request(changed, scan_of(changed)), trained, Path(scratch, "out"), None).row
    return float(row["predicted_age"]) if row["predicted_age"] else None


def shifts(ages: dict[str, dict[str, float | None]], name: str) -> dict[str, Any] | None:
    """Change of the predicted age over the scans, years."""
    pairs = [(found.get("as it is"), found.get(name)) for found in ages.values()]
    moved = np.array([after - before for before, after in pairs if before is not None and after is not None])
    if not len(moved):
        return None
    return {
        "scans": len(moved),
        "median": float(np.median(np.abs(moved))),
        "mean_signed": float(moved.mean()),
        "largest": float(np.abs(moved).max()),
    }


if __name__ == "__main__":
    main()
