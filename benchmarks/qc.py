"""Quality control put to the test: good scans, scans spoiled on purpose, and what the chain says of each.

    python benchmarks/qc.py --data ../shared/data --json docs/results/qc.json

Bases are raw scans of ``--data`` (one head at 2 mm, one at 1.3 mm, one stripped scan) and a simulated one.
Each case spoils the base, or makes a scan of its own, writes it as NIfTI and preprocesses it. Rows
that are in the JSON already are kept, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from brainage.config import PreprocessRecipe
from brainage.data.cohort import scan_of
from brainage.data.simulated_scan import simulate_scan
from brainage.files import write_json
from brainage.preprocess.batch import preprocess_row
from brainage.preprocess.geometry import to_canonical
from brainage.preprocess.load import read_scan

Scan = tuple[np.ndarray, np.ndarray]  # intensities (X, Y, Z), axes in the order of RAS; affine
Case = Callable[[np.ndarray, np.ndarray, np.random.Generator], Scan]
HEADS = ("whole_head/sub-IXI014", "whole_head/sub-LH02")
STRIPPED = ("stripped_native/sub-58",)
SIMULATED = "simulated"


def same(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> Scan:
    return a, affine


def stored_flipped(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> Scan:
    """The first axis stored backwards, and the header says so."""
    back = np.diag([-1.0, 1, 1, 1])
    back[0, 3] = a.shape[0] - 1
    return a[::-1], affine @ back


def mirrored(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> Scan:
    """The hemispheres change places, and nothing says so."""
    return a[::-1], affine


def cut(axis: int, end: int, mm: float) -> Case:
    """The brain's outermost ``mm`` at one end of an axis are not in the field of view."""

    def change(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> Scan:
        first, last = _extent(a, affine, axis)
        layers = round(mm / float(np.linalg.norm(affine[:3, axis])))
        start, stop = (first + layers, a.shape[axis]) if end < 0 else (0, last - layers)
        moved = affine.copy()
        moved[:3, 3] += affine[:3, axis] * start
        return np.take(a, range(start, stop), axis), moved

    return change


def erased(mm: float) -> Case:
    """The upper part of the brain is zero, in a field of view of the usual size."""

    def change(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> Scan:
        _, last = _extent(a, affine, 2)
        out = a.copy()
        out[:, :, last - round(mm / float(np.linalg.norm(affine[:3, 2]))) :] = 0
        return out, affine

    return change


def t2(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> Scan:
    """Contrast of the soft tissues turned round: fluid bright, white matter dark; air and bone stay dark."""
    top = np.percentile(a[a > 0.1 * np.percentile(a, 99)], 97)
    body = ndimage.gaussian_filter((a > 0.12 * top).astype(np.float32), 1) > 0.5
    if (a == 0).mean() > 0.3:
        body = ndimage.binary_closing(a > 0, iterations=2)
    return np.where(body, np.maximum(1.1 * top - a, 0.02 * top), a).astype(np.float32), affine


def larger(factor: float) -> Case:
    """Voxels that the header makes larger or smaller: a head of another size."""
    return lambda a, affine, rng: (a, affine @ np.diag([factor, factor, factor, 1.0]))


def noisy(share: float) -> Case:
    """Rician noise with a deviation of this share of the bright tissue; none where a scan is stripped."""

    def change(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> Scan:
        sigma = share * _bright(a)
        noise = rng.normal(0, sigma, (2, *a.shape)).astype(np.float32)
        return np.where(_kept(a), np.hypot(a + noise[0], noise[1]), 0).astype(np.float32), affine

    return change


def uneven(strength: float) -> Case:
    """A smooth field from exp(-strength) to exp(strength)."""

    def change(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> Scan:
        x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in a.shape), indexing="ij", sparse=True)
        field = np.exp(strength * np.clip(0.5 * x + 0.7 * y * y - 0.6 * z, -1, 1))
        return (a * field).astype(np.float32), affine

    return change


def moved(degrees: float, mm: float, poses: int = 8) -> Case:
    """The head takes several poses while k-space is filled along the second axis: ghosts and blur."""

    def change(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> Scan:
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        lines = np.fft.fft(a, axis=1)
        for block in np.array_split(np.arange(a.shape[1]), poses)[1:]:
            angles = np.deg2rad(rng.normal(0, degrees, 3))
            turn = _rotation(angles)
            linear = np.diag(1 / spacing) @ turn @ np.diag(spacing)
            middle = (np.array(a.shape) - 1) / 2
            offset = middle - linear @ middle + rng.normal(0, mm, 3) / spacing
            lines[:, block] = np.fft.fft(ndimage.affine_transform(a, linear, offset, order=1), axis=1)[
                :, block
            ]
        image = np.abs(np.fft.ifft(lines, axis=1)).astype(np.float32)
        return np.where(_kept(a), image, 0), affine

    return change


def blurred(mm: float) -> Case:
    """Smoothed by a Gaussian of this full width at half maximum."""
    return lambda a, affine, rng: (
        ndimage.gaussian_filter(a, mm / 2.355 / np.linalg.norm(affine[:3, :3], axis=0)), affine,
    )  # fmt: skip


def phantom(kind: str, air: float) -> Case:
    """A bottle of water of a head's size with a faint gradient and noise; ``air``: share of it outside."""

    def make(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> Scan:
        x, y, z = np.meshgrid(*(np.arange(-110, 110, 2.0) for _ in range(3)), indexing="ij")
        inside = x**2 + y**2 + (z**2 if kind == "sphere" else 0 * z) < 75**2
        inside &= np.abs(z) < 85
        clean = inside * (800 + 0.8 * y)
        noise = rng.normal(0, 12, (2, *inside.shape)) * np.where(inside, 1, air)
        return np.hypot(clean + noise[0], noise[1]).astype(np.float32), _plain(inside.shape)

    return make


def noise_alone(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> Scan:
    shape = (110, 110, 110)
    return np.hypot(*rng.normal(0, 50, (2, *shape))).astype(np.float32), _plain(shape)


def blank(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> Scan:
    return np.zeros((110, 110, 110), np.float32), _plain((110, 110, 110))


# Name, what is done, and what should come of it: the worst status that would be a false alarm, or the
# mildest that catches it.
CASES: dict[str, tuple[Case, str]] = {
    "untouched": (same, "ok"),
    "stored left to right, header correct": (stored_flipped, "ok"),
    "mirrored, header unaware": (mirrored, "warning"),
    "top 15 mm outside the field of view": (cut(2, 1, 15), "warning"),
    "top 40 mm outside the field of view": (cut(2, 1, 40), "warning"),
    "lowest 40 mm of the brain outside": (cut(2, -1, 40), "warning"),
    "front 40 mm outside": (cut(1, 1, 40), "warning"),
    "top 40 mm erased": (erased(40), "warning"),
    "contrast of a T2": (t2, "failed"),
    "brain of a small child (0.8 of each length)": (larger(0.8), "report"),
    "brain of half the length": (larger(0.5), "warning"),
    "motion, slight": (moved(0.5, 0.5), "report"),
    "motion, heavy": (moved(4, 4), "warning"),
    "blur of 6 mm": (blurred(6), "report"),
    "noise, 5 %": (noisy(0.05), "report"),
    "noise, 20 %": (noisy(0.2), "warning"),
    "uneven field, strong": (uneven(1.0), "report"),
}
ALONE: dict[str, tuple[Case, str]] = {
    "phantom: sphere, noise in the air": (phantom("sphere", 1.0), "failed"),
    "phantom: sphere, air erased": (phantom("sphere", 0.0), "failed"),
    "phantom: cylinder, noise in the air": (phantom("cylinder", 1.0), "failed"),
    "phantom: cylinder, air erased": (phantom("cylinder", 0.0), "failed"),
    "noise alone": (noise_alone, "failed"),
    "blank": (blank, "failed"),
}
RANK = {"ok": 0, "warning": 1, "failed": 2}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=None, help="cases; all by default")
    parser.add_argument("--scans", nargs="*", default=[*HEADS, *STRIPPED, SIMULATED])
    options = parser.parse_args()
    rows = json.loads(options.json.read_text())["cases"] if options.json.is_file() else []
    known = {(row["case"], row["base"]) for row in rows}
    wanted = [(case, base, *CASES[case]) for case in CASES for base in options.scans]
    wanted += [(case, "-", *ALONE[case]) for case in ALONE]
    console = Console(width=170)
    for case, base, make, expected in wanted:
        if (case, base) in known or (options.only is not None and case not in options.only):
            continue
        row = run(case, base, make, options.data) | {"expected": expected}
        console.print(case, base, row["status"], row["message"], soft_wrap=True, highlight=False)
        rows.append(row)
        write_json(options.json, {"cases": rows})
    table = Table("case", "base", "expected", "verdict", "reason")
    for row in rows:
        table.add_row(row["case"], row["base"], row["expected"], row["status"], row["message"][:110])
    console.print(table)
    bad = [row for row in rows if row["expected"] == "ok" and row["status"] != "ok"]
    missed = [row for row in rows if RANK[row["status"]] < RANK.get(row["expected"], 0)]
    console.print(f"{len(bad)} false alarms, {len(missed)} missed, of {len(rows)}")


def run(case: str, base: str, make: Case, data: Path) -> dict[str, object]:
    """Spoil, write and preprocess one scan; its row of ``status.tsv`` with its figures as numbers."""
    rng = np.random.default_rng(0)
    array, affine = make(*load(base, data), rng)
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


def load(base: str, data: Path) -> Scan:
    if base == "-":
        return np.zeros((1, 1, 1), np.float32), np.eye(4)
    if base == SIMULATED:
        image = simulate_scan(45.0, "F", 0, 0).image
        return to_canonical(np.asarray(image.dataobj, np.float32), image.affine)
    (path,) = (data / base).rglob("*_T1w.nii.gz")
    array, affine, _ = read_scan(path)
    array, affine = to_canonical(array, affine)
    return np.ascontiguousarray(array), affine


def _extent(a: np.ndarray, affine: np.ndarray, axis: int) -> tuple[int, int]:
    """First and last layer of the brain along an axis; of a head, estimated from its outline."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if (a == 0).mean() > 0.3:
        where = np.flatnonzero((a > 0).any(axis=tuple({0, 1, 2} - {axis})))
        return int(where[0]), int(where[-1])
    smooth = ndimage.gaussian_filter(a, 2 / spacing)
    head = smooth > 0.15 * _bright(a)
    where = np.flatnonzero(head.sum(axis=tuple({0, 1, 2} - {axis})) > 500 / np.prod(np.delete(spacing, axis)))
    # Scalp and skull are about 12 mm thick; a brain is about 125 mm high, whatever there is below it.
    layers = round(12 / spacing[axis])
    first, last = int(where[0]) + layers, int(where[-1]) - layers
    return (max(first, last - round(125 / spacing[2])) if axis == 2 else first), last


def _bright(a: np.ndarray) -> float:
    return float(np.percentile(a[a > 0.1 * np.percentile(a, 99)], 80))


def _kept(a: np.ndarray) -> np.ndarray:
    return a > 0 if (a == 0).mean() > 0.3 else np.ones(a.shape, bool)


def _rotation(angles: np.ndarray) -> np.ndarray:
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [k for k in range(3) if k != axis]
        one = np.eye(3)
        one[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turn = turn @ one
    return turn


def _plain(shape: tuple[int, ...]) -> np.ndarray:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -np.array(shape)
    return affine


if __name__ == "__main__":
    main()
