"""Cross-validation by subject: the model, voxel ridge and the mean predictor on the same folds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric

from brainage.anatomy.grid import MODEL_GRID
from brainage.config import BrainAgeRecipe
from brainage.data.datasets import AgedScan
from brainage.data.splits import age_stratified_folds
from brainage.errors import ConfigError
from brainage.files import write_json
from brainage.models.brain_age import BrainAgeModel, TokenLayout
from brainage.models.voxel_ridge import smoothed_voxels, voxel_ridge
from brainage.train.brain_age import BrainAgeTask, predict_tokens
from brainage.train.devices import start_fabric
from brainage.train.fit import Progress, fit, quiet
from brainage.train.pool import in_processes

MODEL, RIDGE, MEAN = "ermoe_ba", "voxel_ridge", "mean_predictor"


def new_model(recipe: BrainAgeRecipe, layout: TokenLayout, scans: Sequence[AgedScan]) -> BrainAgeModel:
    """A model with the recipe's seed, whose age scale is that of the scans it is about to learn from."""
    ages = np.array([scan.age for scan in scans])
    torch.manual_seed(recipe.train.seed)
    return BrainAgeModel(recipe.model, layout, ages.mean(), max(float(ages.std()), 1.0))


def fold_table(scans: Sequence[AgedScan], folds: int, seed: int) -> pd.DataFrame:
    """``participant_id, session_id, age, fold`` of the scans: no subject is in two folds.

    Raises:
        ConfigError: too few subjects for the folds.
    """
    subjects = [scan.participant_id for scan in scans]
    ages = [scan.age for scan in scans]
    return pd.DataFrame(
        {
            "participant_id": subjects,
            "session_id": [scan.session_id for scan in scans],
            "age": ages,
            "fold": age_stratified_folds(subjects, ages, folds, seed),
        }
    )


def cross_validate(
    scans: Sequence[AgedScan],
    recipe: BrainAgeRecipe,
    layout: TokenLayout,
    division_NR: np.ndarray,
    out: Path,
    jobs: int = 1,
    progress: Progress = quiet,
    fabric: Fabric | None = None,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Predict every scan by models that never saw its subject.

    Finished folds are kept in ``out`` and not repeated; unfinished ones resume.

    Args:
        scans: of the subjects to learn from.
        recipe: of the model and its training, with the number of folds.
        layout: of the tokens.
        division_NR: share of each token's contribution that goes to each region.
        out: folder for one subfolder a fold.
        jobs: folds to train at the same time, each on its share of the cores; 1 on several devices.
        progress: shows how far the epochs of a fold are; with one job only.
        fabric: the processes that train each fold together, by default this one.

    Returns:
        ``participant_id, session_id, age, fold`` and the predictions ``ermoe_ba``, ``voxel_ridge`` and
        ``mean_predictor`` of every scan, years, in the order of ``scans``. Beside it the contributions of the
        regions (scans, R), years.

    Raises:
        ConfigError: too few subjects for the folds, or several jobs on several devices.
        CheckpointError: ``out`` holds the state of another training.
    """
    if jobs > 1 and recipe.train.devices * recipe.train.num_nodes > 1:
        raise ConfigError("jobs", jobs, "must be 1 with several devices, which train each fold together")
    table = fold_table(scans, recipe.train.folds, recipe.train.seed)
    ages, folds = table["age"].to_numpy(), table["fold"].to_numpy()
    features = np.stack([smoothed_voxels(scan.volume[0].numpy(), MODEL_GRID.spacing) for scan in scans])
    for fold in range(recipe.train.folds):
        held_out = folds == fold
        ridge = voxel_ridge(int((~held_out).sum())).fit(features[~held_out], ages[~held_out])
        table.loc[held_out, RIDGE] = ridge.predict(features[held_out])
        table.loc[held_out, MEAN] = ages[~held_out].mean()
    del features
    tasks = [
        (scans, folds, fold, recipe, layout, division_NR, out / f"fold-{fold}")
        for fold in range(recipe.train.folds)
    ]
    if jobs == 1:
        fabric = fabric or start_fabric(recipe.train)
        predictions = [_train_fold(*task, progress, fabric) for task in tasks]
    else:
        predictions = list(in_processes(_train_fold, tasks, jobs))
    regions = np.zeros((len(scans), division_NR.shape[1]))
    for fold, (predicted, contributed) in enumerate(predictions):
        table.loc[folds == fold, MODEL] = predicted
        regions[folds == fold] = contributed
    return table, regions


def _train_fold(
    scans: Sequence[AgedScan],
    folds: np.ndarray,
    fold: int,
    recipe: BrainAgeRecipe,
    layout: TokenLayout,
    division_NR: np.ndarray,
    out: Path,
    progress: Progress = quiet,
    fabric: Fabric | None = None,
) -> tuple[list[float], list[list[float]]]:
    """Predicted ages of the fold's scans, and what their regions contributed, years."""
    fabric = fabric or start_fabric(recipe.train)
    done = out / "predictions.json"
    if fabric.broadcast(done.exists()):
        kept = json.loads(done.read_text("utf-8"))
        return kept["ages"], kept["regions"]
    train = [scan for scan, of in zip(scans, folds, strict=True) if of != fold]
    held_out = [scan for scan, of in zip(scans, folds, strict=True) if of == fold]
    task = BrainAgeTask(
        new_model(recipe, layout, train), train, recipe.train, held_out, recipe.train.probe_copies
    )
    model = fit(task, recipe.train, out, progress, fabric)
    ages_S, contributions_SN = predict_tokens(model, held_out, recipe.train.batch_size)
    ages, regions = ages_S.tolist(), (contributions_SN.double().numpy() @ division_NR).tolist()
    if fabric.is_global_zero:
        write_json(done, {"ages": ages, "regions": regions})
    fabric.barrier()
    return ages, regions
