"""The runs of a comparison: which there are, which are done, and how one is made."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from sklearn.dummy import DummyRegressor

from brainage.benchmark_config import BenchmarkRecipe, Contestant
from brainage.errors import ConfigError, InputError
from brainage.files import write_json
from brainage.models.region_regression import region_process, region_ridge
from brainage.models.voxel_ridge import voxel_ridge
from brainage.preprocess.lock import HeldError, locked
from brainage.train.benchmark_data import BenchmarkData
from brainage.train.benchmark_networks import REPEATS, network_outcome
from brainage.train.devices import start_fabric
from brainage.train.fit import Progress, quiet
from brainage.train.versions import versions


@dataclass(frozen=True)
class Run:
    """One fit: a contestant, a seed and the fold that it does not see."""

    name: str
    seed: int
    fold: int

    def path(self, out: Path) -> Path:
        """Its result in the folder of the comparison."""
        return out / "runs" / self.name / f"seed-{self.seed}_fold-{self.fold}.json"


def plan(recipe: BenchmarkRecipe, only: Sequence[str] = ()) -> list[Run]:
    """Every run, the first seed of all contestants first, so that a part of them is a comparison already.

    Raises:
        ConfigError: ``only`` names no contestant.
    """
    for name in only:
        if name not in recipe.contestants:
            raise ConfigError("only", name, f"must be one of {', '.join(recipe.contestants)}")
    return [
        Run(name, seed, fold)
        for seed in recipe.seeds
        for name, contestant in recipe.contestants.items()
        if (not only or name in only) and seed in recipe.seeds_of(contestant)
        for fold in range(recipe.train.folds)
    ]


def recipe_fingerprint(recipe: BenchmarkRecipe, run: Run) -> str:
    """Sixteen digits for all settings that a run's result depends on; those at their default left out."""
    contestant = recipe.contestants[run.name]
    settings: dict[str, Any] = {
        "kind": contestant.kind,
        "folds": recipe.train.folds,
        "fold_seed": recipe.train.seed,
        "atlas": recipe.atlas.model_dump(mode="json", exclude_defaults=True),
    }
    if contestant.is_network:
        settings |= {
            "train": recipe.train_of(contestant, run.seed).model_dump(mode="json", exclude_defaults=True),
            "pool": recipe.pool,
            "copies": recipe.copies,
        }
    if contestant.kind == "sfcn":
        settings["sfcn"] = contestant.sfcn.model_dump(mode="json", exclude_defaults=True)
    if contestant.kind == "transformer":
        settings["model"] = recipe.model_of(contestant).model_dump(mode="json", exclude_defaults=True)
        settings["regions"] = contestant.regions
        if recipe.last_probe:
            settings["last_probe"] = True
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def is_finished(run: Run, recipe: BenchmarkRecipe, out: Path, cohort: str | None = None) -> bool:
    """Whether the run's result is there.

    Args:
        cohort: fingerprint of the data; None to take any.

    Raises:
        InputError: there is a result of other settings or data, or a damaged one.
    """
    path = run.path(out)
    if not path.exists():
        return False
    remedy = "give another output folder, or delete the file"
    try:
        content = json.loads(path.read_text("utf-8"))
        found = content["recipe"], content["cohort"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            path, "no result, or a damaged one", "what brainage benchmark wrote", remedy
        ) from error
    if found[0] != recipe_fingerprint(recipe, run) or cohort not in (None, found[1]):
        what = f"a run of {run.name} with other settings or on other scans"
        raise InputError(path, what, "one of this recipe and cohort", remedy)
    return True


def execute(
    run: Run,
    recipe: BenchmarkRecipe,
    data: BenchmarkData,
    out: Path,
    progress: Progress = quiet,
    fabric: Fabric | None = None,
) -> bool:
    """Fit, predict the fold, and write the result, unless it is there. An interrupted network resumes.

    Returns:
        Whether the result is there now; False where another process is at work on it.
    """
    working = out / "working" / run.name / f"seed-{run.seed}_fold-{run.fold}"
    try:
        with locked(working):
            if not is_finished(run, recipe, out, data.fingerprint):
                _fit(run, recipe, data, out, working, progress, fabric)
            shutil.rmtree(working, ignore_errors=True)
            return True
    except HeldError:
        return False


def _fit(
    run: Run,
    recipe: BenchmarkRecipe,
    data: BenchmarkData,
    out: Path,
    working: Path,
    progress: Progress,
    fabric: Fabric | None,
) -> None:
    contestant = recipe.contestants[run.name]
    table = data.table
    held_out = table["fold"].to_numpy() == run.fold
    train, held = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    start = time.perf_counter()
    if contestant.is_network:
        fabric = fabric or start_fabric(recipe.train)
        outcome = network_outcome(run.name, run.seed, recipe, data, train, held, working, progress, fabric)
    else:
        outcome = _regression_outcome(contestant, data, train, held)
    people = table.iloc[held]
    columns = (people[name] for name in ("participant_id", "session_id", "age"))
    write_json(
        run.path(out),
        {
            "contestant": run.name,
            "label": contestant.label or run.name,
            "seed": run.seed,
            "fold": run.fold,
            "recipe": recipe_fingerprint(recipe, run),
            "cohort": data.fingerprint,
            **{name: value for name, value in outcome.items() if name != "predicted"},
            "seconds": round(time.perf_counter() - start, 2),
            "threads": torch.get_num_threads(),
            "versions": versions("torch", "monai", "scikit-learn"),
            "scans": [
                {
                    "participant_id": person,
                    "session_id": session,
                    "age": float(age),
                    "predicted": float(value),
                }
                for person, session, age, value in zip(*columns, outcome["predicted"], strict=True)
            ],
        },
    )


def _regression_outcome(
    contestant: Contestant, data: BenchmarkData, train: np.ndarray, held: np.ndarray
) -> dict[str, Any]:
    features = data.array("voxels" if contestant.kind == "voxel_ridge" else "regions")
    model = {
        "voxel_ridge": lambda: voxel_ridge(len(train)),
        "region_ridge": region_ridge,
        "region_gp": lambda: region_process(features.shape[1]),
        "mean": DummyRegressor,
    }[contestant.kind]()
    ages = data.table["age"].to_numpy()
    model.fit(features[train], ages[train])
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        model.predict(features[held[:1]])
        times.append(time.perf_counter() - start)
    return {
        "predicted": model.predict(features[held]).tolist(),
        "seconds_per_scan": float(np.median(times)),
        "parameters": None,
        "flops": None,
        "gini": None,
        "epochs": None,
    }
