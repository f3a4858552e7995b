"""Whether maps depend on what the model learned, and stay when a scan is repeated or a model trained again.

S scans, N tokens, R regions with what the atlas leaves out, E experts. Maps are compared after the mean over
the scans was taken from each place, so that what is the same in everybody counts for nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from scipy import ndimage
from scipy.stats import spearmanr
from torch import nn

from brainage.anatomy.regions import divide_tokens
from brainage.data.datasets import AgedScan
from brainage.models.brain_age import BrainAgeModel, TokenLayout
from brainage.models.weights import TrainedModel
from brainage.train.brain_age import predict_tokens
from brainage.train.probe import as_they_are_and_mirrored, linear_probe

_BATCH = 8
NOISE, SHIFT_MM, BRIGHTER = 0.05, 1.0, 1.05


def maps_of(model: BrainAgeModel, scans: Sequence[AgedScan]) -> tuple[np.ndarray, np.ndarray]:
    """Predicted ages (S,) and contributions (S, N), years."""
    ages_S, years_SN = predict_tokens(model, scans, _BATCH, _fabric())
    return ages_S.double().numpy(), years_SN.double().numpy()


def agreement(one_SX: np.ndarray, other_SX: np.ndarray) -> float:
    """Spearman's correlation over the places of a map, mean over scans, without what all scans share."""
    pairs = zip(one_SX - one_SX.mean(0), other_SX - other_SX.mean(0), strict=True)
    found = [spearmanr(one, other).statistic for one, other in pairs]
    return round(float(np.nanmean(found)), 3)


def parameter_randomisation(
    trained: TrainedModel, scans: Sequence[AgedScan], seed: int = 0
) -> list[dict[str, Any]]:
    """Agreement with the map of the same model after its parts were made random, from the head downwards.

    Adebayo et al. 2018 (arXiv 1810.03292). A map that stays did not depend on what was learned.
    """
    division_NR = divide_tokens(trained.region_share_NR.numpy())
    _, years_SN = maps_of(trained.model, scans)
    fresh = _untrained(trained, seed)
    model = copy.deepcopy(trained.model)
    blocks = list(range(len(model.encoder.blocks)))[::-1]
    parts: list[tuple[str, Callable[[BrainAgeModel], nn.Module]]] = [("head", lambda m: m.head)]
    parts += [(f"block {index}", lambda m, index=index: m.encoder.blocks[index]) for index in blocks]  # type: ignore[misc]
    parts.append(("stem", lambda m: m.stem))
    rows = []
    for name, part in parts:
        part(model).load_state_dict(part(fresh).state_dict())
        _, random_SN = maps_of(model, scans)
        rows.append(
            {
                "random_down_to": name,
                "tokens": agreement(years_SN, random_SN),
                "regions": agreement(years_SN @ division_NR, random_SN @ division_NR),
            }
        )
    return rows


def label_shuffle(
    trained: TrainedModel, scans: Sequence[AgedScan], held_out: Sequence[AgedScan], seed: int = 0
) -> dict[str, Any]:
    """Agreement, on held-out scans, of heads refitted to the true and to shuffled ages.

    The encoder stays; the head is the linear probe that training starts from.
    """
    division_NR = divide_tokens(trained.region_share_NR.numpy())
    order = np.random.default_rng(seed).permutation(len(scans))
    shuffled = [replace(scan, age=scans[other].age) for scan, other in zip(scans, order, strict=True)]
    truth = np.array([scan.age for scan in held_out])
    found = {}
    for name, learned in (("true", scans), ("shuffled", shuffled)):
        model = copy.deepcopy(trained.model)
        copies = as_they_are_and_mirrored(learned, _BATCH)
        linear_probe(model, [scan.age for scan in learned], copies, _fabric())
        found[name] = maps_of(model, held_out)
    as_trained = maps_of(trained.model, held_out)[1]

    def compared(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
        return {"tokens": agreement(one, other), "regions": agreement(one @ division_NR, other @ division_NR)}

    return {
        "learned_from": len(scans),
        "held_out": len(held_out),
        "mae_true": round(float(np.abs(found["true"][0] - truth).mean()), 2),
        "mae_shuffled": round(float(np.abs(found["shuffled"][0] - truth).mean()), 2),
        "true_with_shuffled": compared(found["true"][1], found["shuffled"][1]),
        "true_with_trained": compared(found["true"][1], as_trained),
    }


def rescan_stability(trained: TrainedModel, scans: Sequence[AgedScan], seed: int = 0) -> list[dict[str, Any]]:
    """Regions' contributions when the same scan is noisier, shifted or brighter.

    ``change`` is the median change of a region's contribution, years, and ``relative`` the same as a share of
    its standard deviation over the scans.
    """
    division_NR = divide_tokens(trained.region_share_NR.numpy())
    rng = np.random.default_rng(seed)
    ages_S, years_SN = maps_of(trained.model, scans)
    regions_SR = years_SN @ division_NR
    spread_R = regions_SR.std(0)
    told = spread_R > 1e-6
    rows = []
    for name, change in (
        (f"noise, {NOISE:g} of white matter's intensity", _noisier),
        (f"shift by {SHIFT_MM:g} mm", _shifted),
        (f"{100 * (BRIGHTER - 1):g} % brighter", _brighter),
    ):
        again = [replace(scan, volume=change(scan.volume, rng)) for scan in scans]
        ages_again_S, again_SN = maps_of(trained.model, again)
        moved_SR = np.abs(again_SN @ division_NR - regions_SR)
        rows.append(
            {
                "rescan": name,
                "age_change": round(float(np.median(np.abs(ages_again_S - ages_S))), 3),
                "regions": agreement(regions_SR, again_SN @ division_NR),
                "tokens": agreement(years_SN, again_SN),
                "change": round(float(np.median(moved_SR[:, told])), 4),
                "relative": round(float(np.median(moved_SR[:, told] / spread_R[told])), 3),
            }
        )
    return rows


def model_agreement(
    trained: TrainedModel, other: TrainedModel, scans: Sequence[AgedScan]
) -> dict[str, float] | None:
    """Agreement with another model's maps of the same scans; None where its regions are others."""
    if other.region_names != trained.region_names or len(other.model.index_N) != len(trained.model.index_N):
        return None
    division_NR = divide_tokens(trained.region_share_NR.numpy())
    (ages_S, one_SN), (other_ages_S, other_SN) = (maps_of(model.model, scans) for model in (trained, other))
    return {
        "age_difference": round(float(np.median(np.abs(ages_S - other_ages_S))), 3),
        "regions": agreement(one_SN @ division_NR, other_SN @ division_NR),
        "tokens": agreement(one_SN, other_SN),
    }


def _untrained(trained: TrainedModel, seed: int) -> BrainAgeModel:
    """A model of the same sizes that learned nothing, its head as large as the trained one's."""
    model = trained.model
    layout = TokenLayout(model.index_N, model.prior_NE, model.expert_names, model.grid)
    # Not the seed that the model itself started from.
    torch.manual_seed(trained.recipe.train.seed + 1 + seed)
    fresh = BrainAgeModel(model.recipe, layout, float(model.baseline), float(model.scale)).eval()
    nn.init.normal_(fresh.head.weight_ND, std=float(model.head.weight_ND.detach().std()))
    return fresh


def _noisier(volume: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    values = volume.float().numpy()
    noise = NOISE * rng.standard_normal(values.shape, dtype=np.float32)
    return torch.from_numpy(np.where(values > 0, np.maximum(values + noise, 0), 0)).half()


def _shifted(volume: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    way = rng.standard_normal(3)
    voxels = SHIFT_MM / 2 * way / np.linalg.norm(way)  # the model grid has voxels of 2 mm
    return torch.from_numpy(ndimage.shift(volume[0].float().numpy(), voxels, order=1))[None].half()


def _brighter(volume: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    return volume * BRIGHTER


def _fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)
