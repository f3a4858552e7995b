"""What ``gsr`` tells of motion and ghosts: of heads as they are, turned, moved while measured, ghosted.

    brainage preprocess ../shared/data/whole_head PRE/whole_head
    python benchmarks/ghosts.py --data ../shared/data --pre PRE --json docs/results/ghosts.json

Each head of ``whole_head`` is taken as it is, resampled by known affines (as ``registration.py`` does), made
to take eight random poses of a given spread (degrees and mm) while k-space is filled along each of its
three axes, and given a ghost half a field of view away. Only the figure is measured, not the whole chain,
with the mask and the alignment that ``--pre`` has of the good head. Rows that the JSON has are not made
again; ``--seconds`` gives it a time to stop at.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from qc import load
from qc_cases import Case, ghosted, moved, same
from registration import resampled
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from brainage.config import PreprocessRecipe
from brainage.files import write_json
from brainage.preprocess.geometry import to_canonical
from brainage.preprocess.outputs import find_preprocessed, read_preprocessed
from brainage.preprocess.quality_metrics import gsr
from brainage.preprocess.quality_regions import ghost_regions, surroundings

AXES = ("left to right", "back to front", "bottom to top")
# Seeds of the axis that most scanners encode by phase, and of the others.
SEEDS = ((0,), (0, 1), (0,))
RESAMPLINGS = (1, 2)
Job = tuple[str, str, int, Case | int]  # what, along, seed, and how: a case, or the number of an affine


def jobs() -> Iterator[Job]:
    """Cheap and telling ones first."""
    yield "as it is", "", 0, same
    yield from motions(4)
    for along, name in enumerate(AXES):
        yield "ghost of a tenth", name, 0, ghosted(0.2, along)
    for number in RESAMPLINGS:
        yield "resampled", "", number, number
    yield from motions(2)
    yield from motions(1)


def motions(degrees: float) -> Iterator[Job]:
    for along, name in enumerate(AXES):
        for seed in SEEDS[along]:
            yield f"motion, {degrees} degrees and mm", name, seed, moved(degrees, degrees, along=along)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pre", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=np.inf, help="start no row after that many")
    options = parser.parse_args()
    stop = time.monotonic() + options.seconds
    rows = json.loads(options.json.read_text())["rows"] if options.json.is_file() else []
    known = {(row["head"], row["what"], row["along"], row["seed"]) for row in rows}
    heads = sorted(path.name for path in (options.data / "whole_head").glob("sub-*"))
    for what, along, seed, how in jobs():
        for index, head in enumerate(heads):
            if (head, what, along, seed) in known or time.monotonic() > stop:
                continue
            figures = measured(options.data, options.pre, head, index, seed, how)
            rows.append({"head": head, "what": what, "along": along, "seed": seed, "gsr": figures})
            write_json(options.json, {"limit": limit(), "rows": rows})
    show(rows)


def limit() -> float:
    found = PreprocessRecipe().qc.gsr
    if found is None or found.good[1] is None:
        raise SystemExit("the recipe has no limit of gsr")
    return found.good[1]


def measured(data: Path, pre: Path, head: str, index: int, seed: int, how: Case | int) -> list[float]:
    """``gsr`` along each axis; NaN is left out."""
    base = f"whole_head/{head}"
    (done,) = find_preprocessed(pre / base)
    to_mni = read_preprocessed(done).native_to_mni
    image, affine, brain = load(base, data, pre)
    if isinstance(how, int):
        (path,) = (data / base).rglob("*_T1w.nii.gz")
        changed, facts = resampled(path, index, how)
        image, new = to_canonical(np.asarray(changed.dataobj, np.float32), changed.affine)
        back = np.linalg.inv(np.array(facts["moved"]))
        brain = on_grid(brain, np.linalg.inv(affine) @ back @ new, image.shape)
        affine, to_mni = new, to_mni @ back
    else:
        image, affine = how(image, affine, np.random.default_rng(seed), brain)
    image = np.maximum(image, 0)
    around = surroundings(image, brain, affine, to_mni)
    some, signal = image[around.some], float(np.median(image[brain]))
    return [round(gsr(some[ghost], some[rest], signal), 5) for ghost, rest in ghost_regions(around)]


def on_grid(mask: np.ndarray, to_voxel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    grid = {"matrix": to_voxel[:3, :3], "offset": to_voxel[:3, 3], "output_shape": shape}
    return ndimage.affine_transform(mask.astype(np.float32), **grid, order=1) > 0.5


def show(rows: list[dict]) -> None:
    console, most = Console(width=130), limit()
    table = Table("what", "along", "rows", "lowest", "median", "highest", f"above {most}")
    for what, along in dict.fromkeys((row["what"], row["along"]) for row in rows):
        values = [max(row["gsr"]) for row in rows if (row["what"], row["along"]) == (what, along)]
        figures = (f"{value:.3f}" for value in (min(values), np.median(values), max(values)))
        table.add_row(what, along, str(len(values)), *figures, str(sum(value > most for value in values)))
    console.print(table)


if __name__ == "__main__":
    main()
