"""SFCN: shapes, size and soft labels, each worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from brainage.benchmark_config import SfcnRecipe
from brainage.config import parse_recipe
from brainage.errors import ConfigError
from brainage.models.sfcn import Sfcn, bin_centres, soft_label_loss, soft_labels

SMALL = SfcnRecipe(channels=(4, 6), last=5, youngest=20, oldest=28, bin_years=2, sigma=1)


def phi(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def test_parameters_and_probabilities() -> None:
    model = Sfcn(SMALL)
    # 27 weights a pair of channels and a bias; batch normalisation has a gain and a shift; 4 bins of 2 years.
    first = 27 * 1 * 4 + 4 + 2 * 4
    second = 27 * 4 * 6 + 6 + 2 * 6
    mixing, head = 6 * 5 + 5 + 2 * 5, 5 * 4 + 4
    assert sum(p.numel() for p in model.parameters()) == first + second + mixing + head
    volumes = torch.rand(3, 1, 8, 12, 10)
    assert model.features(volumes).shape == (3, 5, 2, 3, 2)
    log_probabilities = model(volumes)
    assert log_probabilities.shape == (3, 4)
    torch.testing.assert_close(log_probabilities.exp().sum(1), torch.ones(3))


def test_the_network_of_the_paper_has_its_size() -> None:
    # 1 mm volumes of 160 x 192 x 160, five blocks, 40 bins of a year: 3.0 million parameters.
    model = Sfcn(SfcnRecipe(youngest=42, oldest=82, bin_years=1, sigma=1))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(2.95e6, rel=0.02)
    with torch.device("meta"):
        meta = Sfcn(SfcnRecipe(youngest=42, oldest=82, bin_years=1, sigma=1))
        assert meta.features(torch.empty(2, 1, 160, 192, 160)).shape == (2, 64, 5, 6, 5)


def test_expected_age() -> None:
    model = Sfcn(SMALL)
    assert bin_centres(SMALL).tolist() == [21, 23, 25, 27]
    probabilities = torch.tensor([[0.0, 0.5, 0.5, 0.0], [0.25, 0.25, 0.25, 0.25]])
    assert model.ages(probabilities.log()).tolist() == [24, 24]


def test_soft_labels_by_hand() -> None:
    centres = bin_centres(SMALL)
    label = soft_labels(torch.tensor([24.0]), centres, 2.0, 1.0)[0]
    # Bins [20, 22], [22, 24], [24, 26], [26, 28] are at -4..-2, -2..0, 0..2, 2..4 deviations from 24.
    outer, inner = phi(-2) - phi(-4), phi(0) - phi(-2)
    whole = 2 * (outer + inner)
    expected = [outer / whole, inner / whole, inner / whole, outer / whole]
    assert label.tolist() == pytest.approx(expected, abs=1e-6)


def test_ages_beyond_the_bins_count_as_the_middle_of_the_last() -> None:
    centres = bin_centres(SMALL)
    labels = soft_labels(torch.tensor([27.0, 40.0, 21.0, 3.0]), centres, 2.0, 1.0)
    assert torch.equal(labels[0], labels[1])
    assert torch.equal(labels[2], labels[3])
    assert labels[1].argmax() == 3


def test_the_loss_is_the_divergence() -> None:
    labels = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    predicted = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
    # 0 for the first; 1 * log(1 / 0.25) for the second; mean of the two.
    assert float(soft_label_loss(predicted.log(), labels)) == pytest.approx(math.log(4) / 2)


def test_bins_must_fill_the_range() -> None:
    with pytest.raises(ConfigError, match="bin_years"):
        parse_recipe({"youngest": 20, "oldest": 25, "bin_years": 2}, SfcnRecipe)
