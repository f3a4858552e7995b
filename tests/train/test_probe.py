"""The head in closed form, and contributions that are differences from the average scan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from sklearn.linear_model import Ridge

from brainage.anatomy.grid import MODEL_GRID
from brainage.config import ModelRecipe
from brainage.data.datasets import AgedScan
from brainage.models.brain_age import BrainAgeModel, TokenLayout
from brainage.train.brain_age import predict_ages
from brainage.train.probe import PENALTY, centre_contributions, linear_probe

# Patches 500 and 620 are each other's mirror image.
LAYOUT = TokenLayout(torch.tensor([500, 505, 620]), torch.ones(3, 2), ("free 1", "free 2"), (10, 12, 10))


@pytest.fixture
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture(scope="module")
def scans() -> list[AgedScan]:
    """One patch darkens with age, the others are noise."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for age in torch.linspace(20, 80, 16).tolist():
        volume = torch.rand(1, *MODEL_GRID.shape, generator=generator)
        # Patch 500 of 10 x 12 x 10 is (4, 2, 0).
        volume[:, 32:40, 16:24, :8] *= 1 - age / 100
        made.append(AgedScan("sub-1", "", age, volume.half()))
    return made


def stacked(scans: list[AgedScan]) -> torch.Tensor:
    return torch.stack([scan.volume.float() for scan in scans])


def fit_probe(model: BrainAgeModel, scans: list[AgedScan], fabric: Fabric, mirror: bool = False) -> None:
    volumes = stacked(scans)
    copies = [volumes.split(3), volumes.flip(2).split(3)] if mirror else [volumes.split(3)]
    linear_probe(model, [scan.age for scan in scans], copies, fabric)


@pytest.fixture
def model() -> BrainAgeModel:
    torch.manual_seed(0)
    sizes = {"dim": 16, "depth": 1, "num_heads": 2, "hidden_dim": 16, "moe_blocks": (0,), "rank": 4}
    return BrainAgeModel(ModelRecipe(**sizes), LAYOUT, 50.0, 18.0)


def test_the_probe_fits_what_a_linear_head_can(
    model: BrainAgeModel, scans: list[AgedScan], fabric: Fabric
) -> None:
    truth = torch.tensor([scan.age for scan in scans])
    assert (predict_ages(model, scans, 4, fabric) == 50).all()
    fit_probe(model, scans[::2], fabric)
    unseen = slice(1, None, 2)
    error = (predict_ages(model, scans, 4, fabric) - truth)[unseen].abs().mean()
    assert error < 6  # the mean predictor's is 16
    by_token = model(stacked(scans)).contributions_BN
    assert by_token.std(0).argmax() == 0


def test_the_probe_also_fits_exchanged_hemispheres(
    model: BrainAgeModel, scans: list[AgedScan], fabric: Fabric
) -> None:
    fit_probe(model, scans[::2], fabric, mirror=True)
    mirrored = [replace(scan, volume=scan.volume.flip(1)) for scan in scans[1::2]]
    truth = torch.tensor([scan.age for scan in mirrored])
    assert (predict_ages(model, mirrored, 4, fabric) - truth).abs().mean() < 6


def test_the_probe_is_ridge_regression_on_the_tokens(
    model: BrainAgeModel, scans: list[AgedScan], fabric: Fabric
) -> None:
    fit_probe(model, scans, fabric)
    with torch.no_grad():
        model.eval()
        features = model.encode(stacked(scans))[0].flatten(1).double().numpy() * 18.0 / 3
    features -= features.mean(0)
    ages = np.array([scan.age for scan in scans])
    penalty = PENALTY * (features**2).sum(1).mean()
    ridge = Ridge(penalty).fit(features, ages)
    np.testing.assert_allclose(predict_ages(model, scans, 4, fabric), ridge.predict(features), atol=0.05)


def test_centring_moves_years_from_tokens_to_the_baseline(
    model: BrainAgeModel, scans: list[AgedScan], fabric: Fabric
) -> None:
    torch.nn.init.normal_(model.head.weight_ND)
    torch.nn.init.normal_(model.head.bias_N)
    before = predict_ages(model, scans, 4, fabric)
    centre_contributions(model, [stacked(scans)], fabric)
    torch.testing.assert_close(predict_ages(model, scans, 4, fabric), before, atol=1e-3, rtol=0)
    model.eval()
    contributions_BN = model(stacked(scans)).contributions_BN
    torch.testing.assert_close(contributions_BN.mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    assert float(model.baseline) == pytest.approx(float(before.mean()), abs=1e-2)
