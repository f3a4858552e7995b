"""The permutation of tokens into slices and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

from brainage.nn.dispatch import combine, gather_projections, gather_tokens, plan_dispatch


def random_routing(tokens, experts, slots, seed):
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(tokens, experts, generator=generator).argsort(1)[:, :slots]
    return chosen, torch.rand(tokens, slots, generator=generator) < 0.7


def test_plan_by_hand():
    # Token 0 goes to experts 1 and 0, token 1 to expert 1 alone (its second slot is not used).
    # Sorted: expert 0 has token 0 (pair 1); expert 1 has token 0 (pair 0) and token 1 (pair 2).
    plan = plan_dispatch(tensor([[1, 0], [1, 2]]), tensor([[True, True], [True, False]]), num_experts=3)
    assert plan.sizes_E == (1, 2, 0)
    assert plan.pair_S.tolist() == [1, 0, 2]
    assert plan.cell_S.tolist() == [0 * 3 + 0, 0 * 3 + 1, 1 * 3 + 1]
    assert plan.row_TK.tolist() == [[1, 0], [2, 3]]


def test_padded_plan_by_hand():
    # The same, each slice padded to a multiple of 2: rows [pair 1, -] [pair 0, pair 2] and none.
    plan = plan_dispatch(tensor([[1, 0], [1, 2]]), tensor([[True, True], [True, False]]), 3, multiple_of=2)
    assert plan.sizes_E == (2, 2, 0)
    assert plan.pair_S.tolist() == [1, 4, 0, 2]
    assert plan.cell_S.tolist() == [0, 6, 1, 4]
    assert plan.row_TK.tolist() == [[2, 0], [3, 4]]
    rows = gather_tokens(tensor([[5.0], [7.0]]), plan)
    assert rows.flatten().tolist() == [5, 0, 5, 7]


@given(st.integers(1, 20), st.integers(1, 6), st.data())
@settings(max_examples=60, deadline=None)
def test_every_pair_is_computed_once_by_its_expert(tokens, experts, data):
    slots = data.draw(st.integers(1, experts))
    multiple = data.draw(st.sampled_from([1, 4]))
    chosen, used = random_routing(tokens, experts, slots, data.draw(st.integers(0, 99)))
    plan = plan_dispatch(chosen, used, experts, multiple)

    labels = torch.arange(experts).repeat_interleave(tensor(plan.sizes_E))
    real = plan.pair_S < tokens * slots
    assert torch.equal(plan.pair_S[real].sort().values, used.flatten().nonzero().flatten())
    assert torch.equal(labels[real], chosen.flatten()[plan.pair_S[real]])
    assert torch.equal(plan.cell_S[real], plan.pair_S[real] // slots * experts + labels[real])
    assert all(size % multiple == 0 for size in plan.sizes_E)
    for expert in range(experts):  # token order within an expert: the sort is stable
        mine = plan.pair_S[real & (labels == expert)]
        assert torch.equal(mine, mine.sort().values)

    # With identity experts, combining gives back each token times the sum of its used gates.
    x = torch.randn(tokens, 3, dtype=torch.float64)
    gates = torch.rand(tokens, slots, dtype=torch.float64) * used
    rows = gather_tokens(x, plan)
    torch.testing.assert_close(combine(rows, gates, plan), x * gates.sum(1, keepdim=True))


@pytest.mark.parametrize("multiple", [1, 4])
def test_gradients_of_the_gathers(multiple):
    chosen, used = random_routing(9, 4, 3, seed=0)
    plan = plan_dispatch(chosen, used, 4, multiple)
    rows = sum(plan.sizes_E)
    double = {"dtype": torch.float64, "requires_grad": True}
    assert torch.autograd.gradcheck(lambda x: gather_tokens(x, plan), torch.randn(9, 2, **double))
    assert torch.autograd.gradcheck(lambda z: gather_projections(z, plan), torch.randn(9, 4, 2, **double))
    combined = lambda y, g: combine(y, g, plan)  # noqa: E731
    inputs = (torch.randn(rows, 2, **double), torch.randn(9, 3, **double))
    assert torch.autograd.gradcheck(combined, inputs)


def test_projections_are_those_of_the_rows_expert():
    chosen, used = random_routing(9, 4, 2, seed=1)
    plan = plan_dispatch(chosen, used, 4)
    projections = torch.randn(9, 4, 3)
    expected = projections[plan.pair_S // 2, chosen.flatten()[plan.pair_S]]
    assert torch.equal(gather_projections(projections, plan), expected)


def test_nan_of_another_token_does_not_reach_an_unused_slot():
    plan = plan_dispatch(tensor([[0, 1], [1, 0]]), tensor([[True, False], [True, True]]), 2)
    outputs = gather_tokens(tensor([[1.0], [torch.nan]]), plan)
    y = combine(outputs, tensor([[1.0, 0.0], [0.5, 0.5]]), plan)
    assert y[0].item() == 1.0
    assert y[1].isnan()
