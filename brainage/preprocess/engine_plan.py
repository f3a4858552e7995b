"""What a run would do, and what it would cost."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from brainage.config import PreprocessRecipe
from brainage.data.cohort import Scan
from brainage.data.listing import Listing
from brainage.errors import InputError
from brainage.preprocess.batch import relative
from brainage.preprocess.chain import fingerprint
from brainage.preprocess.engine_cluster import GIB, Workers, free_memory, local_jobs, memory_of
from brainage.preprocess.outputs import is_done
from brainage.preprocess.own_files import source_digest

# Of one scan where no earlier run tells better: benchmarks/cohort.py, docs/preprocessing_cohorts.md.
USUAL_SECONDS = 20.0
OUTPUT_BYTES = 1.5e6


@dataclass(frozen=True)
class Plan:
    """A run before it runs.

    Attributes:
        lines: one an input: path, what would happen.
        todo, done, refused: how many of each.
        jobs: scans at the same time.
        memory_gib: of all workers together.
        free_gib: of this machine.
        seconds: of the run.
        output_mb: to be written.
    """

    lines: tuple[tuple[str, str], ...]
    todo: int
    done: int
    refused: int
    jobs: int
    memory_gib: float
    free_gib: float
    seconds: float
    output_mb: float


def plan_run(
    listing: Listing, out_dir: Path, recipe: PreprocessRecipe, workers: Workers, force: bool
) -> Plan:
    """Look at every input without preprocessing any; writes nothing."""
    lines, todo = [], []
    refused = len(listing.problems)
    mark = fingerprint(recipe)
    for scan in listing.scans:
        try:
            done = not force and is_done(scan, out_dir, mark, source_digest(scan, recipe))
            said = "done" if done else "to do"
            if not done:
                todo.append(scan)
        except InputError as error:
            said = f"cannot be used: {error}"
            refused += 1
        lines.append((relative(scan.path, listing.root), said))
    lines += [(relative(item.path, listing.root), f"refused: {item.message}") for item in listing.problems]
    jobs = min(workers.jobs, max(1, len(todo))) if workers.jobs else local_jobs(todo)
    needed = sorted((memory_of(scan) for scan in todo), reverse=True)[:jobs]
    return Plan(
        lines=tuple(sorted(lines)),
        todo=len(todo),
        done=sum(said == "done" for _, said in lines),
        refused=refused,
        jobs=jobs,
        memory_gib=sum(needed) / GIB,
        free_gib=free_memory() / GIB,
        seconds=_seconds_a_scan(out_dir, todo) * len(todo) / jobs,
        output_mb=len(todo) * OUTPUT_BYTES / 1e6,
    )


def _seconds_a_scan(out_dir: Path, todo: Sequence[Scan]) -> float:
    """Of this folder's earlier scans where it has any that were not merely found done."""
    if todo and (out_dir / "status.tsv").is_file():
        try:
            table = pd.read_csv(out_dir / "status.tsv", sep="\t", dtype=str)
            seconds = pd.to_numeric(table["seconds"], errors="coerce")
            worked = seconds[seconds > 1].tolist()
            if worked:
                return float(statistics.median(worked))
        except (pd.errors.ParserError, pd.errors.EmptyDataError, KeyError, UnicodeDecodeError):
            pass
    return USUAL_SECONDS
