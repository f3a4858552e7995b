"""What the runs of a comparison will take, before they are made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from brainage.anatomy.grid import MODEL_GRID
from brainage.benchmark_config import BenchmarkRecipe
from brainage.train.benchmark_networks import step_seconds

SCANS = 190  # to learn from, where no run says how many there are


def seconds_per_run(recipe: BenchmarkRecipe, name: str, paths: Sequence[Path]) -> tuple[float, str]:
    """Expected duration of one run, and what it was told from.

    The median of the runs among ``paths`` that are there; without any, three training steps on random
    volumes, times the steps of a run on ``SCANS`` scans. That leaves out the linear probe and reading.
    """
    took = [json.loads(path.read_text("utf-8"))["seconds"] for path in paths if path.exists()]
    if took:
        return float(np.median(took)), f"{len(took)} finished runs"
    contestant = recipe.contestants[name]
    if not contestant.is_network:
        return 1.0, "guess"
    train = recipe.train_of(contestant, recipe.seeds[0])
    step = step_seconds(recipe, contestant, MODEL_GRID.coarsen(recipe.pool).shape)
    return step * train.epochs * max(1, SCANS // train.batch_size), f"steps of {step:.2f} s"
