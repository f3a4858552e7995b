"""Regions taken away: the ends are known scans, and a linear model's attributions are known numbers."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from brainage.anatomy.grid import MODEL_GRID
from brainage.errors import ConfigError
from brainage.models.weights import TrainedModel
from brainage.predict.deletion import deletion_curves, random_curves, summarise
from brainage.predict.predictor import predict_scan
from brainage.predict.region_gates import RegionGates, attribute


class LinearGates(RegionGates):
    """A scan of which each region gives a known number of years, whatever the others do."""

    def __init__(self, years: list[float], average: float = 40.0) -> None:
        self.years_R, self.average = torch.tensor(years, dtype=torch.float32), average

    def __call__(self, amount_BR: Tensor) -> Tensor:
        return self.average + amount_BR.float() @ self.years_R

    def contributions(self) -> np.ndarray:
        return self.years_R.double().numpy()

    @property
    def full(self) -> Tensor:
        return torch.ones(1, len(self.years_R))


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 1.4, MODEL_GRID.shape).astype(np.float32)


def test_whole_and_empty_are_the_scan_and_the_average_scan(
    tiny_model: TrainedModel, volume: np.ndarray
) -> None:
    gates = RegionGates(tiny_model, volume)
    prediction = predict_scan(tiny_model, volume)
    with torch.no_grad():
        average = float(tiny_model.model.from_histograms(tiny_model.typical_mean_NF[None]).age_B)
    ages = gates.ages(np.stack([np.ones(gates.full.shape[1]), np.zeros(gates.full.shape[1])]))
    np.testing.assert_allclose(ages, [prediction.age, average], atol=1e-3)
    assert gates.contributions().sum() == pytest.approx(prediction.age - prediction.baseline, abs=1e-3)


def test_all_methods_agree_on_a_linear_model() -> None:
    pytest.importorskip("captum", reason="captum is not installed")
    years = [6.0, -3.0, 0.5, 0.0]
    found = attribute(LinearGates(years))
    assert list(found) == ["contribution", "gradient", "integrated gradients", "occlusion"]
    for method, one in found.items():
        np.testing.assert_allclose(one.years_R, years, atol=1e-5, err_msg=method)


class CurvedGates(LinearGates):
    """Regions that matter more together than alone. (A routed model also jumps, which no gradient sees.)"""

    def __call__(self, amount_BR: Tensor) -> Tensor:
        return super().__call__(amount_BR) + 4 * torch.sin(amount_BR[:, 0]) * amount_BR[:, 1].square()


def test_integrated_gradients_sum_to_the_way_from_the_average() -> None:
    pytest.importorskip("captum", reason="captum is not installed")
    gates = CurvedGates([6.0, -3.0] + [0.5] * 25)
    count = gates.full.shape[1]
    whole, average = gates.ages(np.stack([np.ones(count), np.zeros(count)]))
    assert whole - average == pytest.approx(6 - 3 + 12.5 + 4 * np.sin(1))
    total = attribute(gates)["integrated gradients"].years_R.sum()
    assert total == pytest.approx(whole - average, abs=1e-3)


def test_without_captum_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ConfigError, match="captum"):
        attribute(LinearGates([1.0]))


def test_curves_by_hand() -> None:
    gates = LinearGates([6.0, 3.0, 1.0])
    curves = deletion_curves(gates, np.array([6.0, 3.0, 1.0]))
    assert curves is not None
    np.testing.assert_allclose(curves.deletion, [1, 0.4, 0.1, 0], atol=1e-6)
    np.testing.assert_allclose(curves.insertion, [0, 0.6, 0.9, 1], atol=1e-6)
    # Trapezoids of insertion less deletion, -1, 0.2, 0.8 and 1, over three steps: (-0.4 + 0.5 + 0.9) / 3.
    assert curves.gain == pytest.approx(1 / 3)
    backwards = deletion_curves(gates, np.array([1.0, 3.0, 6.0]))
    assert backwards is not None
    assert backwards.gain == pytest.approx(-1 / 3)


def test_a_younger_scan_is_taken_apart_from_its_youngest_region() -> None:
    curves = deletion_curves(LinearGates([-6.0, -3.0, -1.0]), np.array([-6.0, -3.0, -1.0]))
    assert curves is not None
    assert curves.gain == pytest.approx(1 / 3)


def test_a_scan_like_the_average_has_no_curve() -> None:
    assert deletion_curves(LinearGates([2.0, -1.0]), np.array([2.0, -1.0])) is None
    assert random_curves(LinearGates([2.0, -1.0]), 3) == []


def test_random_orders_gain_nothing_on_average() -> None:
    gates = LinearGates(list(np.random.default_rng(0).uniform(0.1, 3, 20)))
    content = summarise({"random": random_curves(gates, 200), "none": []})
    assert set(content) == {"random"}
    assert content["random"]["gain"] == pytest.approx(0, abs=0.02)
    assert content["random"]["deletion"][0] == 1
    assert content["random"]["deletion"][-1] == 0
