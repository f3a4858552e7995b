"""Scans whose regions do not age together as the training's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from brainage.models.regional_age import RegionalAges
from brainage.models.weights import TrainedModel
from brainage.predict.regional_pattern import regional_pattern

REGIONS, PEOPLE = 6, 400


def cohort(seed: int, people: int = PEOPLE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True ages, predicted ages, and the regions' ages, which share half of their deviation."""
    rng = np.random.default_rng(seed)
    ages = rng.uniform(20, 90, people)
    shared, own = rng.normal(0, 7, (people, 1)), rng.normal(0, 7, (people, REGIONS))
    return ages, ages + shared[:, 0], ages[:, None] + shared + own


def knowing(trained: TrainedModel, people: int = PEOPLE) -> TrainedModel:
    ages, predicted, looks = cohort(0, people)
    regional = RegionalAges(np.zeros((REGIONS, 10)), np.zeros(REGIONS), ages, looks)
    return dataclasses.replace(trained, regional=regional, residuals_C=torch.from_numpy(predicted - ages))


def test_as_many_new_people_are_unusual_as_promised(tiny_model: TrainedModel) -> None:
    pattern = regional_pattern(knowing(tiny_model))
    assert pattern is not None
    _, predicted, looks = cohort(1, 2000)
    distances = np.array([pattern.distance(l_R, age) for l_R, age in zip(looks, predicted, strict=True)])
    assert (distances > pattern.limit).mean() == pytest.approx(0.025, abs=0.02)
    assert np.sqrt(np.mean(distances**2)) == pytest.approx(1, abs=0.1)


def test_another_scanner_is_seen_where_the_mean_stays(tiny_model: TrainedModel) -> None:
    pattern = regional_pattern(knowing(tiny_model))
    assert pattern is not None
    assert pattern.distance(np.full(REGIONS, 50.0), 50.0) < pattern.limit
    # 25 years up in half of the regions and down in the others: the mean says nothing.
    shifted = np.full(REGIONS, 50.0) + 25.0 * np.tile([1, -1], REGIONS // 2)
    assert pattern.distance(shifted, 50.0) > pattern.limit


def test_a_predicted_age_beyond_the_cohort_is_read_at_its_end(tiny_model: TrainedModel) -> None:
    trained = knowing(tiny_model)
    pattern = regional_pattern(trained)
    assert pattern is not None
    assert trained.regional is not None
    oldest, looks = float(trained.regional.ages_C.max()), np.full(REGIONS, 88.0)
    assert pattern.distance(looks, 140.0) == pattern.distance(looks, oldest)


def test_too_few_people_say_nothing(tiny_model: TrainedModel) -> None:
    assert regional_pattern(knowing(tiny_model, 60)) is None
    assert regional_pattern(tiny_model) is None
