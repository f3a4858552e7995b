"""Intervals by hand, and region tables that add up."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from brainage.anatomy.grid import MODEL_GRID
from brainage.models.weights import TrainedModel
from brainage.predict.predictor import interval_half_width, predict_scan
from brainage.predict.regions import UNLABELLED, region_table


def test_half_width_is_the_conformal_quantile() -> None:
    # Nine residuals: ceil(10 * 0.9) = 9, the largest; ceil(10 * 0.5) = 5, the middle one.
    residuals = np.array([1, -2, 3, -4, 5, -6, 7, -8, 9.0])
    assert interval_half_width(residuals, 0.9) == 9
    assert interval_half_width(residuals, 0.5) == 5


@pytest.mark.parametrize("count", [0, 1, 8])
def test_too_few_residuals_promise_nothing(count: int) -> None:
    assert interval_half_width(np.ones(count), 0.9) is None


def test_intervals_cover_at_their_level() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        half = interval_half_width(rng.standard_normal(50), 0.9)
        covered.append(np.mean(np.abs(rng.standard_normal(200)) <= half))
    assert 0.89 < np.mean(covered) < 0.93


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 1.4, MODEL_GRID.shape).astype(np.float32)


def test_contributions_sum_to_the_age(tiny_model: TrainedModel, volume: np.ndarray) -> None:
    prediction = predict_scan(tiny_model, volume)
    total = prediction.baseline + prediction.contributions_N.astype(float).sum()
    assert total == pytest.approx(prediction.age, abs=1e-4)
    low, high = prediction.interval
    assert (low + high) / 2 == pytest.approx(prediction.age)
    assert prediction.gates_NE.sum(1) == pytest.approx(np.ones(len(prediction.gates_NE)), abs=1e-5)
    assert (np.abs(prediction.alignment_N) <= 1 + 1e-5).all()


def test_regions_sum_to_the_age(tiny_model: TrainedModel, volume: np.ndarray) -> None:
    prediction = predict_scan(tiny_model, volume)
    table = region_table(tiny_model, prediction, np.eye(4), MODEL_GRID.shape, MODEL_GRID.affine)
    assert prediction.baseline + table["contribution_years"].sum() == pytest.approx(prediction.age, abs=1e-4)
    labelled = table[table["region"] != UNLABELLED]
    assert labelled["coverage"].tolist() == pytest.approx([1.0] * len(labelled))
    shares = labelled.filter(like="share_").sum(axis=1)
    assert shares.tolist() == pytest.approx([1.0] * len(labelled), abs=1e-3)


def test_a_field_of_view_without_the_left_covers_right_regions_only(
    tiny_model: TrainedModel, volume: np.ndarray
) -> None:
    prediction = predict_scan(tiny_model, volume)
    right = MODEL_GRID.affine.copy()
    right[0, 3] = 1.0  # the first voxel's centre, mm to the right of the midplane
    shape = (MODEL_GRID.shape[0] // 2, *MODEL_GRID.shape[1:])
    table = region_table(tiny_model, prediction, np.eye(4), shape, right).set_index("region")
    coverage = table[table.index != UNLABELLED].groupby("hemisphere")["coverage"].mean()
    assert coverage["R"] > 0.95
    assert coverage["L"] < 0.05


def test_a_scan_unlike_the_training_scans_lies_far_away(tiny_model: TrainedModel, volume: np.ndarray) -> None:
    stem = tiny_model.model.stem
    seen = stem.histograms(tiny_model.model.patches(torch.from_numpy(volume)[None, None]))[0]
    same = dataclasses.replace(tiny_model, typical_mean_NF=seen, typical_std_NF=torch.full_like(seen, 0.1))
    assert predict_scan(same, volume).unusual == pytest.approx(0, abs=1e-5)
    assert predict_scan(same, 0.2 * volume).unusual > 1
