"""The balancing losses on numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import tensor

from brainage.errors import ConfigError
from brainage.nn import importance_loss, load_loss, score_balancing_loss


def test_importance_by_hand():
    # Sums over the two tokens (1.5, 0.5): mean 1, variance 1/4. Even probabilities give 0.
    assert float(importance_loss(tensor([[[1.0, 0.0], [0.5, 0.5]]]))) == pytest.approx(0.25)
    assert float(importance_loss(torch.full((2, 3, 4), 0.25))) == pytest.approx(0)


def test_load_by_hand():
    # E = 2, K = 1, noise_std 2 so that sigma = 1, logits (1, 0) with noise (0, 0.5): the threshold is 1, the
    # loads are Phi(0) = 1/2 and Phi(-1) = 0.15865525; CV^2 = ((a - b) / (a + b))^2.
    a, b = 0.5, 0.15865525
    loss = load_loss(tensor([[[1.0, 0.0]]]), 1, 2.0, noise_BNE=tensor([[[0.0, 0.5]]]))
    assert float(loss) == pytest.approx(((a - b) / (a + b)) ** 2)


def test_scores_by_hand():
    # softmax((0.1 ln 3, 0) / 0.1) = (3/4, 1/4): CV^2 = ((3/4 - 1/4) / 1)^2.
    assert float(score_balancing_loss(tensor([[[0.1 * math.log(3), 0.0]]]))) == pytest.approx(0.25)


@pytest.mark.parametrize("loss", [lambda s: load_loss(s, 2, 1.0), score_balancing_loss])
def test_descending_flattens_the_load(loss):
    scores = (torch.randn(1, 200, 4) + tensor([1.0, 0.0, 0.0, -1.0])).requires_grad_()
    bias = torch.zeros(4, requires_grad=True)
    optimiser = torch.optim.Adam([bias], lr=0.1)
    before = float(loss(scores.detach()))
    for _ in range(40):
        optimiser.zero_grad()
        loss(scores.detach() + bias).backward()
        optimiser.step()
    assert float(loss(scores.detach() + bias.detach())) < 0.2 * before


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda s: load_loss(s, 2, 0.0), "noise_std"),
        (lambda s: load_loss(s, 5, 1.0), "top_k"),
        (lambda s: score_balancing_loss(s, 0.0), "temperature"),
    ],
)
def test_bad_settings_name_the_field(call, field):
    with pytest.raises(ConfigError) as error:
        call(torch.randn(1, 3, 4))
    assert error.value.field == field
