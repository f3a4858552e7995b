"""A fine-tuning from a folder of scans to the file that prediction takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from brainage.anatomy.regions import divide_tokens
from brainage.config import CardRecipe
from brainage.models.brain_age import token_distances
from brainage.models.model_file import model_fingerprint
from brainage.models.regional_age import RegionalAges
from brainage.models.weights import TrainedModel
from brainage.train.brain_age import predict_tokens
from brainage.train.cohort import Cohort
from brainage.train.finetune import Adaptation, adapt
from brainage.train.layout import atlas_of
from brainage.train.run import age_bias, unusual_limits

_BIAS_FEWEST = 10  # subjects; a line through fewer is mostly chance
_BATCH = 8


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """The adapted model with its context, and the table of out-of-fold predictions."""

    trained: TrainedModel
    adaptation: Adaptation
    predictions: pd.DataFrame


def finetune(trained: TrainedModel, cohort: Cohort, method: str = "auto", seed: int = 0) -> FinetuneResult:
    """Adapt a model to a cohort that it has not learned from, and calibrate it there.

    Intervals, age bias and age range become the new cohort's. The distances at which ``predict`` calls a
    scan or a part of it unusual grow to hold as many of the new scans, if they did not yet.

    Raises:
        ConfigError: as :func:`brainage.train.finetune.adapt`.
    """
    adaptation = adapt(trained.model, cohort.scans, method, seed)
    ages = np.array([scan.age for scan in cohort.scans])
    subjects = {scan.participant_id for scan in cohort.scans}
    # With the head refitted to these very scans, their contributions are no longer those of new people.
    held_out = adaptation.method != "head"
    facts: dict[str, Any] = {
        **trained.facts,
        "name": f"{trained.facts['name']}, fine-tuned",
        "fingerprint": model_fingerprint(adaptation.model, trained.recipe.model),
        "cohort": cohort.name,
        "cohort_fingerprint": cohort.fingerprint,
        "num_scans": len(cohort.scans),
        "num_subjects": len(subjects),
        "age_range": [float(ages.min()), float(ages.max())],
        "age_bias": age_bias(ages, adaptation.predicted_N) if _enough(ages, len(subjects)) else None,
        **_unusual_limits(trained, cohort),
        "finetuned": {
            "from": trained.facts["fingerprint"],
            "method": adaptation.method,
            "cross_validated_mae": {name: round(mae, 4) for name, mae in adaptation.error.items()},
        },
    }
    adapted = replace(
        trained,
        # The card's scanner, and how far off others were, are those of the cohort before.
        recipe=trained.recipe.model_copy(update={"card": CardRecipe(cohort=cohort.name)}),
        model=adaptation.model,
        residuals_C=torch.from_numpy(adaptation.predicted_N - ages),
        reference_ages_C=torch.from_numpy(ages),
        reference_years_CR=_region_years(trained, adaptation, cohort) if held_out else None,
        regional=_regional(trained, cohort, ages),
        facts=facts,
    )
    predictions = pd.DataFrame(
        {
            "participant_id": [scan.participant_id for scan in cohort.scans],
            "session_id": [scan.session_id for scan in cohort.scans],
            "age": ages,
            "before": adaptation.before_N,
            "predicted_age": adaptation.predicted_N,
        }
    )
    return FinetuneResult(adapted, adaptation, predictions)


def _enough(ages: np.ndarray, subjects: int) -> bool:
    """Whether a line of the predictions on age means anything."""
    return subjects >= _BIAS_FEWEST and bool(np.ptp(ages) > 0)


@torch.no_grad()
def _unusual_limits(trained: TrainedModel, cohort: Cohort) -> dict[str, float]:
    histograms = torch.stack(
        [trained.model.histograms(scan.volume.float()[None])[0] for scan in cohort.scans]
    )
    limits = unusual_limits(token_distances(histograms, trained.typical_mean_NF, trained.typical_std_NF))
    return {name: max(float(trained.facts.get(name, 0)), limit) for name, limit in limits.items()}


def _regional(trained: TrainedModel, cohort: Cohort, ages: np.ndarray) -> RegionalAges | None:
    """The regions' regressions as they were, read against the new cohort, which they have not seen."""
    atlas = atlas_of(trained)
    if trained.regional is None or atlas is None:
        return None
    indices = atlas.regions["index"].to_numpy()
    looks = [trained.regional(scan.volume[0].numpy(), atlas.labels, indices) for scan in cohort.scans]
    return replace(trained.regional, ages_C=ages, looks_CR=np.stack(looks))


def _region_years(trained: TrainedModel, adaptation: Adaptation, cohort: Cohort) -> torch.Tensor:
    """Contributions of the regions (C, R + 1), years."""
    _, contributions_CN = predict_tokens(adaptation.model, cohort.scans, _BATCH)
    division_NR = divide_tokens(trained.region_share_NR.numpy())
    return torch.from_numpy(contributions_CN.double().numpy() @ division_NR)
