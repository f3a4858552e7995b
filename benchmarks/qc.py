"""Quality control put to the test: good scans, scans spoiled on purpose, and what the chain says of each.

    brainage preprocess ../shared/data/whole_head PRE/whole_head    # and stripped_native
    python benchmarks/qc.py --data ../shared/data --pre PRE --json qc.json --runs raw=PRE/whole_head

Bases are raw scans of ``--data`` (one head at 2 mm, one at 1.3 mm, one stripped scan) and a simulated one.
Each case spoils the base, or makes a scan of its own, writes it as NIfTI and preprocesses it. ``--pre`` tells
where their brains are. Rows that are in the JSON already are kept, so that an interrupted run goes on.
``--runs`` names outputs of ``brainage preprocess`` over good scans, from which false alarms are counted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
from qc_cases import ALONE, CASES, Case
from rich.console import Console
from rich.table import Table

from brainage.config import PreprocessRecipe, QcRecipe
from brainage.data.cohort import scan_of
from brainage.data.simulated_scan import simulate_scan
from brainage.files import write_json
from brainage.preprocess.batch import preprocess_row
from brainage.preprocess.geometry import to_canonical
from brainage.preprocess.load import read_scan
from brainage.preprocess.outputs import find_preprocessed, read_preprocessed
from brainage.report.qc_content import read_status

HEADS = ("whole_head/sub-IXI014", "whole_head/sub-LH02")
STRIPPED = ("stripped_native/sub-58",)
SIMULATED = "simulated"


RANK = {"ok": 0, "warning": 1, "failed": 2}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pre", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--runs", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--only", nargs="*", default=None, help="cases; all by default")
    parser.add_argument("--scans", nargs="*", default=[*HEADS, *STRIPPED, SIMULATED])
    parser.add_argument("--seconds", type=float, default=np.inf, help="start no row after that many")
    options = parser.parse_args()
    stop = time.monotonic() + options.seconds
    before = json.loads(options.json.read_text()) if options.json.is_file() else {}
    rows = before.get("cases", [])
    runs = before.get("good", {})
    for name, _, folder in (text.partition("=") for text in options.runs):
        runs[name] = good_run(Path(folder))
    known = {(row["case"], row["base"]) for row in rows}
    wanted = [(case, base, *CASES[case]) for case in CASES for base in options.scans]
    wanted += [(case, "-", *ALONE[case]) for case in ALONE]
    console = Console(width=170)
    for case, base, make, expected in wanted:
        left_out = options.only is not None and case not in options.only
        if (case, base) in known or left_out or time.monotonic() > stop:
            continue
        row = run(case, base, make, options.data, options.pre) | {"expected": expected}
        console.print(case, base, row["status"], row["message"], soft_wrap=True, highlight=False)
        rows.append(row)
        write_json(options.json, {"good": runs, "cases": rows})
    write_json(options.json, {"good": runs, "cases": rows})
    table = Table("case", "base", "expected", "verdict", "reason")
    for row in rows:
        table.add_row(row["case"], row["base"], row["expected"], row["status"], row["message"][:110])
    console.print(table)
    bad = [row for row in rows if row["expected"] == "ok" and row["status"] != "ok"]
    missed = [row for row in rows if RANK[row["status"]] < RANK.get(row["expected"], 0)]
    for name, figures in runs.items():
        console.print(name, {key: figures[key] for key in ("scans", "ok", "warning", "failed", "reasons")})
    console.print(f"{len(bad)} false alarms, {len(missed)} missed, of {len(rows)}")


def good_run(folder: Path) -> dict[str, object]:
    """Verdicts over scans that nobody spoiled, which figures gave them, and the spread of every figure."""
    table = read_status(folder)
    table = table[table["status"] != "waiting"]
    reasons = Counter(
        name for message in table["message"] for name in QcRecipe.model_fields if f"({name} " in message
    )
    spread = {}
    for name in QcRecipe.model_fields:
        values = table[name].dropna() if name in table else []
        if len(values):
            spread[name] = [float(f"{np.quantile(values, q):.4g}") for q in (0, 0.05, 0.5, 0.95, 1)]
    verdicts = {status: int((table["status"] == status).sum()) for status in RANK}
    return {"scans": len(table), **verdicts, "reasons": dict(reasons), "quantiles": spread}


def run(case: str, base: str, make: Case, data: Path, pre: Path) -> dict[str, object]:
    """Spoil, write and preprocess one scan; its row of ``status.tsv`` with its figures as numbers."""
    array, affine, brain = load(base, data, pre)
    array, affine = make(array, affine, np.random.default_rng(0), brain)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "sub-01_T1w.nii.gz")
        image = nib.Nifti1Image(array.astype(np.float32), affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        nib.save(image, path)
        row = preprocess_row(scan_of(path), Path(scratch, "out"), PreprocessRecipe())
    text = {name: str(row.pop(name)) for name in ("status", "message", "seconds")}
    for name in ("participant_id", "session_id", "path"):
        row.pop(name)
    figures = {name: float(value) for name, value in row.items()}
    return {"case": case, "base": base, **text, "figures": figures}


def load(base: str, data: Path, pre: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intensities, affine and brain mask, axes in the order of RAS."""
    if base == "-":
        return np.zeros((1, 1, 1), np.float32), np.eye(4), np.zeros((1, 1, 1), bool)
    if base == SIMULATED:
        image = simulate_scan(45.0, "F", 0, 0).image
        array, affine = to_canonical(np.asarray(image.dataobj, np.float32), image.affine)
        return array, affine, array > 0
    (path,) = (data / base).rglob("*_T1w.nii.gz")
    stored, stored_affine, _ = read_scan(path)
    array, affine = to_canonical(stored, stored_affine)
    (done,) = find_preprocessed(pre / base)
    mask, _ = to_canonical(read_preprocessed(done).native_mask(), stored_affine)
    return np.ascontiguousarray(array), affine, mask


if __name__ == "__main__":
    main()
