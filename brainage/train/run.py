"""A whole training: cross-validation, the fit to all subjects, and the file that prediction needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric

from brainage.anatomy.atlas import load_atlas
from brainage.anatomy.regions import divide_tokens
from brainage.config import BrainAgeRecipe
from brainage.files import replacing
from brainage.models.brain_age import BrainAgeModel, scan_distance, token_distances
from brainage.models.model_file import model_fingerprint
from brainage.models.weights import TrainedModel, save_trained
from brainage.preprocess.chain import fingerprint
from brainage.train.brain_age import BrainAgeTask
from brainage.train.cohort import Cohort
from brainage.train.cross_validate import MODEL, cross_validate, new_model
from brainage.train.devices import start_fabric
from brainage.train.fit import Progress, fit, quiet
from brainage.train.layout import lay_out
from brainage.train.regional_age import fit_regional_ages
from brainage.train.same_run import claim
from brainage.train.versions import versions

_LEAST_STD = 0.02  # share of a block; keeps bins that are empty in every training scan from dominating


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """The trained model's facts, and the cross-validated predictions (None without folds)."""

    facts: dict[str, Any]
    predictions: pd.DataFrame | None


def train_run(
    cohort: Cohort,
    recipe: BrainAgeRecipe,
    out: Path,
    jobs: int = 1,
    progress: Progress = quiet,
    fabric: Fabric | None = None,
) -> TrainingResult:
    """Train in ``out``; finished parts of an earlier, interrupted call are kept.

    Writes ``cv_predictions.csv`` (with folds) and ``model.safetensors``, both by the first process of
    ``fabric``; by default one of its own.

    Raises:
        ConfigError: the recipe does not fit the cohort.
        CheckpointError: ``out`` holds another training.
    """
    fabric = fabric or start_fabric(recipe.train)
    claim(out, recipe, {"cohort": cohort.fingerprint}, fabric)
    layout, regions = lay_out(recipe)
    predictions = contributions_CR = None
    if recipe.train.folds:
        division_NR = divide_tokens(regions.share_NR.numpy())
        predictions, contributions_CR = cross_validate(
            cohort.scans, recipe, layout, division_NR, out, jobs, progress, fabric
        )
        if fabric.is_global_zero:
            with replacing(out / "cv_predictions.csv") as partial:
                predictions.to_csv(partial, index=False, float_format="%.4f")
    task = BrainAgeTask(
        new_model(recipe, layout, cohort.scans),
        cohort.scans,
        recipe.train,
        probe_copies=recipe.train.probe_copies,
    )
    model = cast(BrainAgeModel, fit(task, recipe.train, out / "final", progress, fabric)).cpu()
    mean_NF, std_NF, distances_SN = _typical(model, cohort)
    ages = np.array([scan.age for scan in cohort.scans])
    residuals = np.zeros(0) if predictions is None else (predictions[MODEL] - predictions["age"]).to_numpy()
    bias = regional = None
    if predictions is not None:
        bias = age_bias(predictions["age"].to_numpy(), predictions[MODEL].to_numpy())
        atlas = load_atlas(recipe.atlas.path, recipe.atlas.table)
        regional = fit_regional_ages(cohort.scans, predictions["fold"].to_numpy(), atlas)
    facts = {
        "name": recipe.name,
        "fingerprint": model_fingerprint(model, model.recipe),
        "preprocessing_fingerprint": fingerprint(recipe.preprocess),
        "cohort": cohort.name,
        "cohort_fingerprint": cohort.fingerprint,
        "num_scans": len(cohort.scans),
        "num_subjects": len({scan.participant_id for scan in cohort.scans}),
        "age_range": [float(ages.min()), float(ages.max())],
        "age_bias": bias,
        **unusual_limits(distances_SN),
        "versions": versions("torch", "monai", "nilearn", "SimpleITK", "numpy"),
    }
    trained = TrainedModel(
        model=model,
        recipe=recipe,
        region_names=regions.names,
        region_groups=regions.groups,
        region_hemispheres=regions.hemispheres,
        region_share_NR=regions.share_NR,
        residuals_C=torch.from_numpy(residuals),
        typical_mean_NF=mean_NF,
        typical_std_NF=std_NF,
        facts=facts,
        reference_ages_C=None if contributions_CR is None else torch.from_numpy(ages),
        reference_years_CR=None if contributions_CR is None else torch.from_numpy(contributions_CR),
        regional=regional,
    )
    if fabric.is_global_zero:
        save_trained(out / "model.safetensors", trained)
    return TrainingResult(facts, predictions)


@torch.no_grad()
def _typical(model: BrainAgeModel, cohort: Cohort) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and deviation (N, F) of the scans' tissue histograms; the tokens' distances (S, N) from them."""
    histograms = torch.stack(
        [model.histograms(scan.volume.float()[None])[0].half() for scan in cohort.scans]
    ).float()
    # Rounded as they will be stored, so that the limit fits what prediction will compute.
    mean = histograms.mean(0).half().float()
    std = histograms.std(0, correction=0).clamp_min(_LEAST_STD).half().float()
    return mean, std, token_distances(histograms, mean, std)


def unusual_limits(distances_SN: torch.Tensor) -> dict[str, float]:
    """Facts of a model: the distance that 95 % of scans keep to, and 97.5 % of them with every token."""
    return {
        "unusual_limit": float(np.quantile(scan_distance(distances_SN).numpy(), 0.95)),
        "unusual_part_limit": float(np.quantile(distances_SN.amax(1).numpy(), 0.975)),
    }


def age_bias(ages: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """The line predicted = slope * age + intercept through out-of-fold predictions, for a model's facts."""
    slope, intercept = np.polyfit(ages, predicted, 1)
    return {"slope": float(slope), "intercept": float(intercept)}
