"""Whether maps find the regions that aged, on simulated people of whom that is known.

A map is read in several ways: as it is; against the healthy people that the model knows, as the report does;
against healthy people of the same (simulated) scanner; and against the same person before aging, as the page
of several sessions does, there also by how much it changed in either direction.

Beside the methods stand the ages that the regions look by themselves, each by a model of its own, and what
the scan shows without any model: how much of a region's blocks is fluid.

P people, R regions that can age.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from brainage.anatomy.regions import to_patches
from brainage.models.weights import TrainedModel
from brainage.predict.reference import AgeReference
from brainage.predict.region_gates import RegionGates, attribute
from brainage.predict.regional_age import regional_ages, regional_references
from brainage.predict.regions import region_references
from brainage.predict.simulated_aging import AgedPerson, aging_names

AS_IT_IS, HEALTHY, ALIKE, BEFORE = "as it is", "healthy people", "same scanner", "same person before"
EITHER = "same person before, either way"
FLUID = "fluid, no model"
REGIONAL = "age of the region by itself"
_DARKER = 0.35  # of white matter's intensity: fluid, and where the brain has withdrawn
_RESAMPLES = 1000


@dataclass(eq=False)
class PersonMaps:
    """What the methods say of one person.

    Attributes:
        aged_R: whether each region aged.
        age_young, age_aged: predicted, years.
        young, aged: years (R,) by method.
        effect_R: predicted age of the aged scan less that with the region made young again, years; NaN where
            that was not simulated.
        own_R: what of that effect lies in the region's own contribution, years.
    """

    aged_R: np.ndarray
    age_young: float
    age_aged: float
    young: dict[str, np.ndarray] = field(default_factory=dict)
    aged: dict[str, np.ndarray] = field(default_factory=dict)
    effect_R: np.ndarray = field(default_factory=lambda: np.zeros(0))
    own_R: np.ndarray = field(default_factory=lambda: np.zeros(0))


def measure_person(trained: TrainedModel, person: AgedPerson) -> PersonMaps:
    """All methods on one person's scans."""
    names = aging_names()
    columns = [trained.region_names.index(name) for name in names]
    young, aged = RegionGates(trained, person.young), RegionGates(trained, person.aged)
    age_young, age_aged = (float(gates.ages(gates.full.numpy())[0]) for gates in (young, aged))
    maps = PersonMaps(np.isin(names, person.aged_regions), age_young, age_aged)
    for gates, volume, found in ((young, person.young, maps.young), (aged, person.aged, maps.aged)):
        found |= {method: one.years_R[columns] for method, one in attribute(gates).items()}
        found[FLUID] = _fluid(trained, volume)[columns]
        looks_R = regional_ages(trained, volume)
        if looks_R is not None and np.isfinite(looks_R[columns]).all():
            found[REGIONAL] = looks_R[columns]
    maps.effect_R, maps.own_R = np.full((2, len(names)), np.nan)
    for name, volume in person.restored.items():
        gates, place = RegionGates(trained, volume), names.index(name)
        maps.effect_R[place] = maps.age_aged - float(gates.ages(gates.full.numpy())[0])
        maps.own_R[place] = maps.aged["contribution"][place] - gates.contributions()[columns[place]]
    return maps


def truth_content(trained: TrainedModel, people: Iterable[AgedPerson]) -> dict[str, Any]:
    """How well each method, read in each way, finds the aged regions and ranks their effects; for JSON."""
    found = [measure_person(trained, person) for person in people]
    aged_PR = np.stack([maps.aged_R for maps in found])
    effect_PR = np.stack([maps.effect_R for maps in found])
    own_PR = np.stack([maps.own_R for maps in found])
    methods = []
    for method in found[0].aged:
        for way, score_PR in _readings(trained, found, method).items():
            methods.append(
                {
                    "method": method,
                    "against": way,
                    **_detection(aged_PR, score_PR),
                    "rank_correlation": _rank_correlation(effect_PR, score_PR),
                }
            )
    names = aging_names()
    known = np.isfinite(effect_PR)
    return {
        "people": len(found),
        "people_restored": int(known.any(1).sum()),
        "predicted_young": round(float(np.mean([maps.age_young for maps in found])), 2),
        "predicted_aged": round(float(np.mean([maps.age_aged for maps in found])), 2),
        "methods": methods,
        "own_share_of_effect": _slope(effect_PR[known], own_PR[known]),
        "regions": [
            {
                "region": name,
                "aged_in": int(aged_PR[:, r].sum()),
                "effect_years": _mean(effect_PR[:, r]),
                **_change(found, "contribution", aged_PR[:, r], r),
                "by_itself": _change(found, REGIONAL, aged_PR[:, r], r)
                if REGIONAL in found[0].aged
                else None,
            }
            for r, name in enumerate(names)
        ],
    }


def _change(found: Sequence[PersonMaps], method: str, aged_P: np.ndarray, region: int) -> dict[str, Any]:
    """What became of one region of the same people, where it aged and where it did not."""
    change_P = np.array([maps.aged[method][region] - maps.young[method][region] for maps in found])
    return {
        "change_where_aged": _mean(change_P[aged_P]),
        "change_where_not": _mean(change_P[~aged_P]),
        "auc_same_scanner": _auc(aged_P, _against_others(found, method)[:, region]),
        "auc_before": _auc(aged_P, change_P),
    }


def _readings(trained: TrainedModel, found: Sequence[PersonMaps], method: str) -> dict[str, np.ndarray]:
    aged_PR = np.stack([maps.aged[method] for maps in found])
    readings = {AS_IT_IS: aged_PR}
    references = _references(trained, method)
    if references is not None:
        readings[HEALTHY] = np.stack([_standardised(references, maps, method) for maps in found])
    if len(found) > 2:
        readings[ALIKE] = _against_others(found, method)
    readings[BEFORE] = aged_PR - np.stack([maps.young[method] for maps in found])
    readings[EITHER] = np.abs(readings[BEFORE])
    return readings


def _references(trained: TrainedModel, method: str) -> list[AgeReference] | None:
    """Healthy people for each region that can age, where the model knows them."""
    known: Sequence[AgeReference | None] | None = None
    if method == "contribution":
        known = region_references(trained)
    elif method == REGIONAL:
        known = [one.healthy if one else None for one in regional_references(trained) or ()]
    if not known:
        return None
    chosen = [known[trained.region_names.index(name)] for name in aging_names()]
    found = [reference for reference in chosen if reference is not None]
    return found if len(found) == len(chosen) else None


def _fluid(trained: TrainedModel, volume: np.ndarray) -> np.ndarray:
    """Share (R,) of dark voxels in the blocks of each region, by how much of the region they hold."""
    index_N = trained.model.index_N.numpy()
    dark_N = (to_patches(volume, trained.recipe.model.patch)[index_N] < _DARKER).mean(1)
    share_NR = trained.region_share_NR.double().numpy()
    return dark_N @ share_NR / np.maximum(share_NR.sum(0), 1e-9)


def _standardised(references: Sequence[AgeReference], maps: PersonMaps, method: str) -> np.ndarray:
    """Deviation from healthy people of the predicted age, in their standard deviations."""
    scores = []
    for reference, years in zip(references, maps.aged[method], strict=True):
        mean, spread = reference.at(maps.age_aged)
        scores.append((years - mean) / spread)
    return np.array(scores)


def _against_others(found: Sequence[PersonMaps], method: str) -> np.ndarray:
    """Deviation (P, R) from the young scans of the other people, in their standard deviations."""
    young_PR = np.stack([maps.young[method] for maps in found])
    rows = []
    for person, maps in enumerate(found):
        others = np.delete(young_PR, person, axis=0)
        rows.append((maps.aged[method] - others.mean(0)) / np.maximum(others.std(0, ddof=1), 1e-6))
    return np.stack(rows)


def _detection(aged_PR: np.ndarray, score_PR: np.ndarray) -> dict[str, Any]:
    """Area under the ROC curve within each person, with its interval over people."""
    areas = np.array([roc_auc_score(aged, score) for aged, score in zip(aged_PR, score_PR, strict=True)])
    draws = np.random.default_rng(0).integers(0, len(areas), (_RESAMPLES, len(areas)))
    low, high = np.quantile(areas[draws].mean(1), [0.025, 0.975])
    by_region = [_auc(aged_PR[:, r], score_PR[:, r]) for r in range(aged_PR.shape[1])]
    return {
        "auc": round(float(areas.mean()), 3),
        "auc_ci95": [round(float(low), 3), round(float(high), 3)],
        "auc_within_regions": _mean(np.array([auc for auc in by_region if auc is not None])),
    }


def _rank_correlation(effect_PR: np.ndarray, score_PR: np.ndarray) -> float | None:
    """Spearman's, of scores and true effects among a person's aged regions, mean over people."""
    found = []
    for effect, score in zip(effect_PR, score_PR, strict=True):
        known = np.isfinite(effect)
        if known.sum() > 2 and np.ptp(score[known]) > 0:
            found.append(float(spearmanr(effect[known], score[known]).statistic))
    return round(float(np.mean(found)), 3) if found else None


def _auc(truth_P: np.ndarray, score_P: np.ndarray) -> float | None:
    if truth_P.all() or not truth_P.any():
        return None
    return round(float(roc_auc_score(truth_P, score_P)), 3)


def _slope(effect: np.ndarray, own: np.ndarray) -> float | None:
    """Years of a region's own contribution for each year of its true effect, least squares through 0."""
    total = float((effect**2).sum())
    return round(float((effect * own).sum()) / total, 3) if total else None


def _mean(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return round(float(values.mean()), 3) if values.size else None
