"""Scores and selection, on vectors worked out by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nan, tensor

from brainage.errors import ConfigError
from brainage.nn.routers import ThresholdTopK, eigenbasis_scores


def route(scores, prior=None, **settings):
    """Route a single token; lists in, record out."""
    prior = None if prior is None else tensor([prior])
    return ThresholdTopK(len(scores), **settings)(tensor([[scores]]), prior)


def chosen(record):
    """{expert: gate} of a single token."""
    pairs = zip(record.experts_BNK[0, 0].tolist(), record.gates_BNK[0, 0].tolist(), strict=True)
    return {expert: pytest.approx(gate) for expert, gate in pairs if gate > 0}


def test_score_by_hand():
    # Expert 0: (3, 4).(4, 3) / (5 . 5) = 24 / 25. Expert 1: (1, 0).(-2, 0) / 2 = -1. Expert 2: a zero vector.
    tokens = tensor([[[[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]]])
    context = tensor([[[[4.0, 3.0], [-2.0, 0.0], [1.0, 1.0]]]])
    torch.testing.assert_close(eigenbasis_scores(tokens, context), tensor([[[0.96, -1.0, 0.0]]]))


def test_a_square_basis_would_be_blind():
    """The reason for R < D: a rotation keeps every angle."""
    x, c = torch.randn(2, 1, 5, 1, 6, dtype=torch.float64)
    rotations = torch.linalg.qr(torch.randn(4, 6, 6, dtype=torch.float64)).Q
    project = lambda v: torch.einsum("bnxd,edr->bner", v, rotations)  # noqa: E731
    scores = eigenbasis_scores(project(x), project(c))
    torch.testing.assert_close(scores, scores[..., :1].expand_as(scores))


def test_the_two_best_above_threshold_share_by_score():
    # 0.6 and 0.3 are the best two: 0.6 / 0.9 and 0.3 / 0.9. The third is above T but not among the best.
    record = route([0.3, 0.6, -0.2, 0.1])
    assert chosen(record) == {1: 2 / 3, 0: 1 / 3}
    assert record.eligible_BNE.tolist() == [[[True, True, False, True]]]
    assert record.fallback_BN.tolist() == [[False]]


def test_a_single_eligible_expert_takes_all():
    record = route([0.3, 0.6, -0.2], threshold=0.5)
    assert chosen(record) == {1: 1.0}
    assert record.gates_BNK[0, 0].tolist() == [1.0, 0.0]


def test_a_score_equal_to_the_threshold_is_not_eligible():
    assert chosen(route([0.5, 0.75], threshold=0.5)) == {1: 1.0}


def test_negative_threshold_measures_strength_from_the_threshold():
    # T = -0.5: 0.5 - T = 1.0 and -0.1 - T = 0.4, so 1.0 / 1.4 and 0.4 / 1.4; -0.6 is below T.
    assert chosen(route([-0.1, 0.5, -0.6], threshold=-0.5, top_k=3)) == {1: 5 / 7, 0: 2 / 7}


@pytest.mark.parametrize(("fallback", "expected"), [("best", {2: 1.0}), ("skip", {})])
def test_nothing_eligible(fallback, expected):
    record = route([-0.3, -0.2, -0.1], fallback=fallback)
    assert chosen(record) == expected
    assert record.fallback_BN.tolist() == [[True]]
    assert not record.eligible_BNE.any()


def test_a_positive_prior_weights_a_positive_score():
    # 0.25 * 0.6 = 0.15 falls behind 0.3: gates 0.3 / 0.45 and 0.15 / 0.45. The record keeps the raw scores.
    record = route([0.6, 0.3], prior=[0.25, 1.0])
    assert record.experts_BNK.tolist() == [[[1, 0]]]
    assert chosen(record) == {1: 2 / 3, 0: 1 / 3}
    torch.testing.assert_close(record.scores_BNE, tensor([[[0.6, 0.3]]]))


def test_a_prior_never_raises_a_negative_score():
    # Multiplied by 0.1, -0.8 would become -0.08 and win over -0.2.
    assert chosen(route([-0.8, -0.2], prior=[0.1, 1.0])) == {1: 1.0}


def test_a_prior_of_zero_closes_an_expert():
    record = route([0.9, 0.3, 0.2], prior=[0.0, 1.0, 1.0])
    assert chosen(record) == {1: pytest.approx(0.6), 2: pytest.approx(0.4)}
    assert record.eligible_BNE.tolist() == [[[False, True, True]]]
    # Not even as a fallback, although its score is the best.
    assert chosen(route([-0.1, -0.5], prior=[0.0, 1.0])) == {1: 1.0}


@pytest.mark.parametrize("fallback", ["best", "skip"])
def test_a_token_closed_to_all_experts_passes_by(fallback):
    record = route([0.9, 0.3], prior=[0.0, 0.0], fallback=fallback)
    assert chosen(record) == {}
    assert record.fallback_BN.tolist() == [[True]]


def test_a_nan_score_is_never_eligible():
    assert chosen(route([nan, 0.3, 0.2])) == {1: 0.6, 2: 0.4}
    assert chosen(route([nan, nan], prior=[0.0, 1.0])) == {1: 1.0}
    assert chosen(route([nan, nan], fallback="skip", threshold=-1.0)) == {}


def test_prior_by_batch_equals_prior_for_all():
    scores, prior = torch.rand(3, 5, 4) * 2 - 1, torch.rand(5, 4)
    select = ThresholdTopK(4)
    shared, by_batch = select(scores, prior), select(scores, prior.expand(3, 5, 4))
    for field in dataclasses.fields(shared):
        first, second = getattr(shared, field.name), getattr(by_batch, field.name)
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def test_prior_of_another_shape_is_refused():
    with pytest.raises(ConfigError, match="prior_NE"):
        ThresholdTopK(4)(torch.rand(3, 5, 4), torch.rand(4, 5))


@given(st.data(), st.integers(1, 6), st.floats(-1, 0.9), st.sampled_from(["best", "skip"]))
@settings(max_examples=60, deadline=None)
def test_selection_properties(data, experts, threshold, fallback):
    score = st.floats(-1, 1, width=32)
    scores = tensor(data.draw(st.lists(st.lists(score, min_size=experts, max_size=experts), min_size=1)))[
        None
    ]
    scores.requires_grad_()
    top_k = data.draw(st.integers(1, experts))
    prior = (torch.rand(scores.shape[1:]) - 0.3).clamp(min=0)
    record = ThresholdTopK(experts, top_k, threshold, fallback)(scores, prior)

    open_to = prior[None] > 0
    assert not (record.gates_BNE > 0)[~open_to].any()
    used = record.used_BNK.sum(-1)
    assert torch.equal(record.fallback_BN, ~record.eligible_BNE.any(-1))
    eligible = record.eligible_BNE.sum(-1).clamp(max=top_k)
    alone = open_to.any(-1).long() if fallback == "best" else 0
    assert torch.equal(used, torch.where(record.fallback_BN, alone, eligible))
    torch.testing.assert_close(record.gates_BNK.sum(-1), (used > 0).float())
    record.gates_BNK.square().sum().backward()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"top_k": 5}, "top_k"),
        ({"top_k": 0}, "top_k"),
        ({"threshold": 1.0}, "threshold"),
        ({"threshold": -1.01}, "threshold"),
        ({"threshold": math.nan}, "threshold"),
        ({"fallback": "drop"}, "fallback"),
    ],
)
def test_bad_configuration_names_the_field(settings, field):
    with pytest.raises(ConfigError) as error:
        ThresholdTopK(4, **settings)
    assert error.value.field == field


def test_record_is_frozen():
    record = route([0.3, 0.6])
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.gates_BNK = torch.zeros(1, 1, 2)


def test_record_by_expert_and_detached():
    scores = tensor([[[0.3, 0.6, 0.1]]], requires_grad=True)
    record = ThresholdTopK(3)(scores)
    torch.testing.assert_close(record.gates_BNE, tensor([[[1 / 3, 2 / 3, 0.0]]]))
    assert record.gates_BNK.requires_grad
    assert not record.detach().gates_BNK.requires_grad
