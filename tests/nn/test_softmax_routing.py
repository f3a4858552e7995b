"""Learned routers and the capacity, on vectors worked out by hand."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainage.nn import expert_load, make_moe
from brainage.nn.eigenbasis_router import EnergyRouter
from brainage.nn.softmax_routing import CosineRouter, SoftmaxTopK, within_capacity
from brainage.nn.stiefel import orthonormality_error


def test_cosine_logits_by_hand():
    # tau = 1/2 and P = I: cosines of (3, 4) with (1, 0), (0, -2) and (4, 3) are 3/5, -4/5 and 24/25, doubled.
    router = CosineRouter(2, 3, projection_dim=2, temperature=0.5)
    with torch.no_grad():
        router.projection_PD.copy_(torch.eye(2))
        router.embedding_EP.copy_(torch.tensor([[1.0, 0.0], [0.0, -2.0], [4.0, 3.0]]))
    logits = router(torch.tensor([[[3.0, 4.0], [0.0, 0.0]]]))
    torch.testing.assert_close(logits, torch.tensor([[[1.2, -1.6, 1.92], [0.0, 0.0, 0.0]]]))


def test_cosine_temperature_has_a_lower_bound():
    router = CosineRouter(4, 3)
    with torch.no_grad():
        router.log_scale.fill_(50)
    assert float(router(torch.randn(1, 20, 4)).detach().abs().max()) <= 100.001


def test_energy_logits_by_hand():
    # Q = (e0, e1) of D = 3, E = 2. x = (3, 4, 7): energies 9 and 16, shares 0.36 and 0.64. Masks: component 0
    # is divided (3/4, 1/4), component 1 (1/2, 1/2); gains (2, 1), bias (0, 1), tau 1/2. Logits:
    # 2 (0.75 * 2 * 0.36 + 0.5 * 0.64) = 1.72 and 2 (0.25 * 2 * 0.36 + 0.5 * 0.64 + 1) = 3.
    router = EnergyRouter(3, 2, 2, temperature=0.5)
    router.basis.load_frames(torch.eye(3, 2)[None])
    with torch.no_grad():
        router.mask_ER.copy_(torch.tensor([[3.0, 1.0], [1.0, 1.0]]).log())
        router.gain_R.copy_(torch.tensor([2.0, 1.0]))
        router.bias_E.copy_(torch.tensor([0.0, 1.0]))
    logits = router(torch.tensor([[[3.0, 4.0, 7.0], [0.0, 0.0, 7.0]]]))
    torch.testing.assert_close(logits, torch.tensor([[[1.72, 3.0], [0.0, 2.0]]]))


def test_energy_does_not_depend_on_the_length_of_a_token():
    router, x = EnergyRouter(6, 3, 4), torch.randn(1, 9, 6)
    torch.testing.assert_close(router(5 * x), router(x))


def test_eigenbasis_stays_orthonormal_in_training():
    layer = make_moe("emoe", 12, 3, 8, rank=6)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=1e-2, weight_decay=0.0)
    x, target = torch.randn(2, 1, 24, 12)
    before = layer.router.basis().detach()
    for _ in range(200):
        optimiser.zero_grad()
        (layer(x) - target).square().mean().backward()
        optimiser.step()
    assert (layer.router.basis() - before).abs().max() > 0.01
    assert orthonormality_error(layer.router.basis()) < 1e-5


def test_capacity_by_hand():
    # E = 2, K = 2, T = 3, factor 2/3: C = ceil(2/3 * 6 / 2) = 2. First choices 0, 0, 0: tokens 0 and 1 fill
    # expert 0, token 2 is dropped there. Second choices 1, 1, 1: tokens 0 and 1 again, token 2 is dropped.
    record = SoftmaxTopK(2)(torch.tensor([[[3.0, 0.0]] * 3]).log1p())
    limited = within_capacity(record, 2 / 3)
    assert limited.used_BNK.tolist() == [[[True, True], [True, True], [False, False]]]
    assert torch.equal(limited.gates_BNK[:, :2], record.gates_BNK[:, :2])
    # First choices come first: token 2's first choice, expert 1, goes before token 0's and 1's second choice.
    record = SoftmaxTopK(2)(torch.tensor([[[3.0, 0.0], [3.0, 0.0], [0.0, 3.0]]]))
    limited = within_capacity(record, 2 / 3)
    assert limited.used_BNK.tolist() == [[[True, True], [True, False], [True, False]]]


@given(st.integers(1, 5), st.integers(0, 12), st.floats(0.1, 3), st.data())
@settings(max_examples=30, deadline=None)
def test_capacity_bounds_every_load_and_drops_no_more_than_it_must(experts, tokens, factor, data):
    top_k = data.draw(st.integers(1, experts))
    prior = (torch.rand(tokens, experts) > 0.3).float()
    record = SoftmaxTopK(experts, top_k)(torch.randn(2, tokens, experts), prior)
    limited = within_capacity(record, factor)
    capacity = math.ceil(factor * 2 * tokens * top_k / experts)
    assert torch.equal(expert_load(limited), expert_load(record).clamp(max=capacity))
    kept = limited.used_BNK
    assert torch.equal(limited.gates_BNK[kept], record.gates_BNK[kept])
