"""The balancing losses on numbers worked out by hand, and from the record of any router."""

from __future__ import annotations

import math

import pytest
import torch
from torch import tensor

from brainage.errors import ConfigError
from brainage.nn import RoutingRecord, balancing_loss, importance_loss, load_loss, make_moe
from brainage.nn.routers import ThresholdTopK
from brainage.nn.softmax_routing import SoftmaxTopK

SPARSE = {
    "ermoe": {"rank": 3},
    "ermoe learned": {"rank": 3, "scores": "learned"},
    "ermoe free": {"rank": 3, "orthogonalization": "none"},
    "vmoe": {},
    "vmoe limited": {"capacity_factor": 1.0},
    "cosine": {},
    "emoe": {"rank": 5},
}


def record_of(scores: torch.Tensor, **settings: object) -> RoutingRecord:
    experts = scores.argsort(dim=-1, descending=True)[..., :1]
    ones = torch.ones_like(scores)
    return RoutingRecord(scores, experts, ones[..., :1], ones > 0, ones[..., 0] == 0, **settings)


def test_importance_by_hand():
    # Sums over the two tokens (1.5, 0.5): mean 1, variance 1/4. Even probabilities give 0.
    assert float(importance_loss(tensor([[[1.0, 0.0], [0.5, 0.5]]]))) == pytest.approx(0.25)
    assert float(importance_loss(torch.full((2, 3, 4), 0.25))) == pytest.approx(0)


def test_load_by_hand():
    # E = 2, K = 1, sigma = 1, logits (1, 0) with noise (0, 0.5): the threshold is 1, the loads are
    # Phi(0) = 1/2 and Phi(-1) = 0.15865525; CV^2 = ((a - b) / (a + b))^2.
    a, b = 0.5, 0.15865525
    loss = load_loss(tensor([[[1.0, 0.0]]]), 1, 1.0, noise_BNE=tensor([[[0.0, 0.5]]]))
    assert float(loss) == pytest.approx(((a - b) / (a + b)) ** 2)


def test_load_with_a_closed_expert_by_hand():
    # As above beside a third expert of logit 9 that is closed: the loads are (a, b, 0).
    a, b = 0.5, 0.15865525
    mean = (a + b) / 3
    logits, noise = tensor([[[1.0, 0.0, 9.0]]]), tensor([[[0.0, 0.5, 0.0]]])
    loss = load_loss(logits, 1, 1.0, tensor([[[True, True, False]]]), noise)
    assert float(loss) == pytest.approx(((a**2 + b**2) / 3 - mean**2) / mean**2)


def test_a_token_with_no_more_open_experts_than_it_takes_loads_them_fully():
    # K = 2 of the two open experts: loads (1, 1, 0), mean 2/3, variance 2/9, so CV^2 = 1/2.
    logits = tensor([[[1.0, 0.0, 9.0]]], requires_grad=True)
    loss = load_loss(logits, 2, 1.0, tensor([[[True, True, False]]]), torch.zeros(1, 1, 3))
    loss.backward()
    assert loss.item() == pytest.approx(0.5)
    assert not logits.grad.any()


def test_scores_by_hand():
    # softmax((0.1 ln 3, 0) / 0.1) = (3/4, 1/4): CV^2 = ((3/4 - 1/4) / 1)^2.
    scores = tensor([[[0.1 * math.log(3), 0.0]]])
    assert float(balancing_loss(record_of(scores, temperature=0.1))) == pytest.approx(0.25)
    assert float(balancing_loss(ThresholdTopK(2, 1)(scores))) == pytest.approx(0.25)


def test_logits_by_hand():
    # softmax(ln 3, 0) = (3/4, 1/4). With the first closed to it, a second token gives (0, 1): sums
    # (3/4, 5/4), so CV^2 = (1/4)^2 / 1^2.
    logits = tensor([[[math.log(3), 0.0], [5.0, 0.0]]])
    assert float(balancing_loss(SoftmaxTopK(2, 1)(logits[:, :1]))) == pytest.approx(0.25)
    record = SoftmaxTopK(2, 1)(logits, tensor([[1.0, 1.0], [0.0, 1.0]]))
    assert float(balancing_loss(record)) == pytest.approx(1 / 16)


def test_noise_brings_in_the_load_loss():
    scores = torch.randn(2, 300, 4) + tensor([1.0, 0.0, 0.0, -1.0])
    torch.manual_seed(1)
    loss = balancing_loss(record_of(scores, noise_std=0.25))
    torch.manual_seed(1)
    expected = (importance_loss(scores.softmax(-1)) + load_loss(scores, 1, 0.25)) / 2
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("closed", [False, True])
def test_the_loss_of_every_sparse_router_reaches_its_parameters(name, closed):
    prior = torch.ones(9, 4)
    if closed:
        prior[:5, 0] = 0
        prior[7] = 0  # a token to which every expert is closed
    layer = make_moe(name.split()[0], 12, 4, 10, **SPARSE[name]).train()
    x, context = torch.randn(2, 2, 9, 12)
    _, record = layer(x, context, prior, return_routing=True)
    loss = balancing_loss(record)
    assert loss.ndim == 0
    assert loss > 0
    loss.backward()
    gradients = [p.grad for p in layer.parameters() if p.grad is not None]
    assert sum(g.abs().sum() for g in gradients) > 0
    assert all(g.isfinite().all() for g in gradients)
    assert not record.detach().scores_BNE.requires_grad
    assert balancing_loss(record.detach()).isfinite()


def test_a_prior_that_closes_everything_balances_nothing():
    scores = torch.randn(1, 3, 4, requires_grad=True)
    loss = balancing_loss(SoftmaxTopK(4, 2)(scores, torch.zeros(3, 4)))
    loss.backward()
    assert loss == 0
    assert not scores.grad.any()


@pytest.mark.parametrize("settings", [{"noise_std": 0.25}, {"temperature": 0.1}, {}])
def test_descending_flattens_the_load(settings):
    scores = torch.randn(1, 200, 4) + tensor([1.0, 0.0, 0.0, -1.0])

    def loss(bias: torch.Tensor) -> torch.Tensor:
        return balancing_loss(record_of(scores + bias, **settings))

    bias = torch.zeros(4, requires_grad=True)
    optimiser = torch.optim.Adam([bias], lr=0.1)
    before = float(loss(bias.detach()))
    for _ in range(40):
        optimiser.zero_grad()
        loss(bias).backward()
        optimiser.step()
    assert float(loss(bias.detach())) < 0.2 * before


@pytest.mark.parametrize(
    ("call", "field"), [(lambda s: load_loss(s, 2, 0.0), "sigma"), (lambda s: load_loss(s, 5, 1.0), "top_k")]
)
def test_bad_settings_name_the_field(call, field):
    with pytest.raises(ConfigError) as error:
        call(torch.randn(1, 3, 4))
    assert error.value.field == field
