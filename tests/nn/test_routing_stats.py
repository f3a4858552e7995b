"""Routing statistics on loads worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from brainage.nn import RoutingRecord, StiefelBasis, routing_statistics, subspace_overlap
from brainage.nn.routing_stats import expert_load


def record_of(load, without=0):
    """A record of one slot per token with the given load; ``without`` more tokens reach no expert."""
    experts = torch.arange(len(load)).repeat_interleave(torch.tensor(load))
    experts = torch.cat((experts, torch.zeros(without, dtype=torch.long)))
    tokens = len(experts)
    gates = (torch.arange(tokens) < tokens - without).float()
    return RoutingRecord(
        scores_BNE=torch.zeros(1, tokens, len(load)),
        experts_BNK=experts.view(1, tokens, 1),
        gates_BNK=gates.view(1, tokens, 1),
        eligible_BNE=torch.zeros(1, tokens, len(load), dtype=torch.bool),
        fallback_BN=gates.view(1, tokens) == 0,
    )


def test_uneven_load_by_hand():
    # n = (3, 1, 0, 0): the 16 differences |n_i - n_j| sum to 2 (2 + 3 + 3 + 1 + 1 + 0) = 20, so that
    # Gini = 20 / (2 4 4) = 5/8, over 3/4 is 5/6. Mean 1, variance (4 + 0 + 1 + 1) / 4 = 3/2. f = (3/4, 1/4).
    # Two of the six tokens reach no expert.
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert routing_statistics(record_of([3, 1, 0, 0], without=2)) == {
        "gini": pytest.approx(5 / 8),
        "gini_normalized": pytest.approx(5 / 6),
        "cv_squared": pytest.approx(3 / 2),
        "max_violation": pytest.approx(2.0),
        "entropy": pytest.approx(entropy),
        "effective_experts": pytest.approx(math.exp(entropy)),
        "dead_experts": 2,
        "below_threshold": pytest.approx(1 / 3),
    }


def test_even_load():
    statistics = routing_statistics(record_of([5, 5, 5]))
    zero = ("gini", "gini_normalized", "cv_squared", "max_violation", "dead_experts", "below_threshold")
    assert [statistics[name] for name in zero] == pytest.approx([0] * 6)
    assert statistics["effective_experts"] == pytest.approx(3)


def test_one_expert_takes_all():
    statistics = routing_statistics(record_of([0, 4, 0]))
    assert statistics["gini"] == pytest.approx(2 / 3)
    assert statistics["gini_normalized"] == pytest.approx(1)
    assert statistics["effective_experts"] == pytest.approx(1)
    assert statistics["max_violation"] == pytest.approx(2)


def test_a_single_expert_is_even():
    statistics = routing_statistics(record_of([4]))
    assert statistics["gini"] == statistics["gini_normalized"] == statistics["max_violation"] == 0


def test_no_load_has_no_shape():
    statistics = routing_statistics(record_of([0, 0], without=3))
    assert math.isnan(statistics["gini"])
    assert math.isnan(statistics["effective_experts"])
    assert statistics["dead_experts"] == 2
    assert statistics["below_threshold"] == 1


def test_unused_slots_are_no_load():
    assert expert_load(record_of([1, 2], without=4)).tolist() == [1, 2]


def test_overlap_by_hand():
    # span(e0, e1) and span(e1, e2) share one direction of two; e0 alone against itself is 1.
    eye = torch.eye(4)
    overlap = subspace_overlap(torch.stack((eye[:, :2], eye[:, 1:3], eye[:, 2:])))
    torch.testing.assert_close(overlap, torch.tensor([[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]]))


def test_overlap_of_random_bases_is_rank_over_dim():
    overlap = subspace_overlap(StiefelBasis(20, 32, 8, "independent")().detach())
    others = overlap[~torch.eye(20, dtype=torch.bool)]
    assert float(others.mean()) == pytest.approx(8 / 32, rel=0.03)
