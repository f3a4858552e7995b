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


def with_residuals(model: TrainedModel, residuals: np.ndarray, ages: np.ndarray | None) -> TrainedModel:
    reference = None if ages is None else torch.from_numpy(ages)
    return dataclasses.replace(model, residuals_C=torch.from_numpy(residuals), reference_ages_C=reference)


def test_without_ages_of_the_calibration_subjects_one_width_fits_all(tiny_model: TrainedModel) -> None:
    # Nine residuals: ceil(10 * 0.9) = 9, the largest.
    model = with_residuals(tiny_model, np.array([1, -2, 3, -4, 5, -6, 7, -8, 9.0]), None)
    assert interval_half_width(model, 20.0) == interval_half_width(model, 80.0) == 9


def test_intervals_are_wide_where_the_model_errs_much(tiny_model: TrainedModel) -> None:
    rng = np.random.default_rng(0)
    ages = rng.uniform(20, 90, 200)
    model = with_residuals(tiny_model, rng.normal(0, np.where(ages < 50, 3, 9)), ages)
    young, old = interval_half_width(model, 25.0), interval_half_width(model, 80.0)
    assert young is not None
    assert old is not None
    assert 2 < old / young < 4


@pytest.mark.parametrize("ages", [None, np.ones(8)])
def test_too_few_residuals_promise_nothing(tiny_model: TrainedModel, ages: np.ndarray | None) -> None:
    assert interval_half_width(with_residuals(tiny_model, np.ones(8), ages), 50.0) is None


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
