"""A trained model in one safetensors file, with everything that prediction needs.

Tensors hold the weights (half precision), the token layout and what was learned about the training cohort;
the header holds the recipe, names, training range and fingerprints as JSON. Reading it runs no code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from brainage.config import BrainAgeRecipe, parse_recipe
from brainage.models.brain_age import BrainAgeModel, TokenLayout
from brainage.models.model_file import ModelFormat
from brainage.models.regional_age import RegionalAges

FORMAT = ModelFormat(
    name="brainage-1",
    expected="a model that brainage train wrote (model.safetensors)",
    remedy="give the model.safetensors of a training run, or leave --model out to use the shipped model",
)


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model with the context of its training.

    Attributes:
        model: in evaluation mode.
        recipe: it was trained by.
        region_names: R names of the atlas, lateralised.
        region_groups, region_hemispheres: of each region.
        region_share_NR: share of each token's patch in each region.
        residuals_C: cross-validated predicted - chronological age of the calibration subjects, years.
        typical_mean_NF, typical_std_NF: tissue histograms of the training scans, by token.
        facts: JSON-ready facts: cohort, number of subjects, age range (years), bias line, seeds, versions,
            fingerprints, cross-validated figures.
        reference_ages_C: chronological ages of the calibration subjects, years; None where not kept.
        reference_years_CR: their out-of-fold contributions by region, years; the last of R + 1 columns is
            what the atlas leaves out. None where not kept.
        regional: the age that each region looks by itself; None in models that were not given any.
    """

    model: BrainAgeModel
    recipe: BrainAgeRecipe
    region_names: tuple[str, ...]
    region_groups: tuple[str, ...]
    region_hemispheres: tuple[str, ...]
    region_share_NR: Tensor
    residuals_C: Tensor
    typical_mean_NF: Tensor
    typical_std_NF: Tensor
    facts: Mapping[str, Any]
    reference_ages_C: Tensor | None = None
    reference_years_CR: Tensor | None = None
    regional: RegionalAges | None = None


def save_trained(path: str | PathLike[str], trained: TrainedModel) -> None:
    """Write one safetensors file, whole or not at all."""
    model = trained.model
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    # Half precision halves the file; the layout's indices and the age scale stay as they are.
    small = {name: value.half() for name, value in tensors.items() if value.is_floating_point()}
    keep = {"model.baseline", "model.scale"}
    tensors |= {name: value for name, value in small.items() if name not in keep}
    tensors |= {
        "region_share_NR": trained.region_share_NR.half(),
        "residuals_C": trained.residuals_C.float(),
        "typical_mean_NF": trained.typical_mean_NF.half(),
        "typical_std_NF": trained.typical_std_NF.half(),
    }
    if trained.reference_ages_C is not None:
        tensors["reference_ages_C"] = trained.reference_ages_C.float()
    if trained.reference_years_CR is not None:
        tensors["reference_years_CR"] = trained.reference_years_CR.half()
    if trained.regional is not None:
        tensors |= regional_tensors(trained.regional)
    header = {
        "recipe": trained.recipe.model_dump(mode="json"),
        "expert_names": model.expert_names,
        "grid": model.grid,
        "region_names": trained.region_names,
        "region_groups": trained.region_groups,
        "region_hemispheres": trained.region_hemispheres,
        "facts": dict(trained.facts),
    }
    FORMAT.write(path, header, tensors)


def load_trained(path: str | PathLike[str]) -> TrainedModel:
    """Read a file that :func:`save_trained` wrote.

    Raises:
        CheckpointError: no such file, another kind of file, a damaged one, or one whose parts disagree.
    """
    with FORMAT.reading(path) as (header, tensors):
        recipe = parse_recipe(header["recipe"], BrainAgeRecipe)
        state = {
            name.removeprefix("model."): value.float() if value.is_floating_point() else value
            for name, value in tensors.items()
            if name.startswith("model.")
        }
        layout = TokenLayout(
            state["index_N"], state["prior_NE"], tuple(header["expert_names"]), tuple(header["grid"])
        )
        model = BrainAgeModel(recipe.model, layout, float(state["baseline"]), float(state["scale"]))
        model.load_state_dict(state)
        return TrainedModel(
            model=model.eval(),
            recipe=recipe,
            region_names=tuple(header["region_names"]),
            region_groups=tuple(header["region_groups"]),
            region_hemispheres=tuple(header["region_hemispheres"]),
            region_share_NR=tensors["region_share_NR"].float(),
            residuals_C=tensors["residuals_C"],
            typical_mean_NF=tensors["typical_mean_NF"].float(),
            typical_std_NF=tensors["typical_std_NF"].float(),
            facts=header["facts"],
            reference_ages_C=tensors.get("reference_ages_C"),
            reference_years_CR=_as_float(tensors.get("reference_years_CR")),
            regional=_regional(tensors),
        )


def regional_tensors(regional: RegionalAges) -> dict[str, Tensor]:
    """The tensors of a model file that hold the regions' own ages."""
    return {name: torch.from_numpy(getattr(regional, field)).float() for name, field in _REGIONAL.items()}


_REGIONAL = {
    "regional_weight_RF": "weight_RF",
    "regional_bias_R": "bias_R",
    "regional_ages_C": "ages_C",
    "regional_looks_CR": "looks_CR",
}


def _regional(tensors: Mapping[str, Tensor]) -> RegionalAges | None:
    if not _REGIONAL.keys() <= tensors.keys():
        return None
    return RegionalAges(**{field: tensors[name].double().numpy() for name, field in _REGIONAL.items()})


def _as_float(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.float()
