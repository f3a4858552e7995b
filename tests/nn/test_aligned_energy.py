"""Scores by aligned energy: by hand, their sum, their gradient, and what the paper's scores cannot see."""

from __future__ import annotations

import pytest
import torch
from torch import nan, tensor

from brainage.nn import ERMoE
from brainage.nn.routers import aligned_energy_scores, eigenbasis_scores


def test_by_hand():
    # |x| = sqrt(9 + 16 + 144) = 13, |c| = sqrt(16 + 9 + 25 * 1) = sqrt(50); products 24, -12 and 0.
    x = tensor([[[[3.0, 4.0], [12.0, 0.0], [0.0, 0.0]]]])
    c = tensor([[[[4.0, 3.0], [-1.0, 0.0], [24.0**0.5, 0.0]]]])
    expected = tensor([[[24.0, -12.0, 0.0]]]) / (13 * 50**0.5)
    torch.testing.assert_close(aligned_energy_scores(x, c), expected)


def test_scores_of_orthogonal_bases_sum_to_the_cosine():
    torch.manual_seed(0)
    x, c = torch.randn(2, 3, 5, 4, 6, dtype=torch.float64)
    cosine = torch.cosine_similarity(x.flatten(-2), c.flatten(-2), dim=-1)
    torch.testing.assert_close(aligned_energy_scores(x, c).sum(-1), cosine)


def test_sees_the_basis_that_holds_the_token_where_the_cosine_does_not():
    # All but a hundredth of the token lies in basis 0, at 37 degrees from its context; the rest is parallel.
    x, c = tensor([[[[3.0, 4.0], [0.05, 0.0]]]]), tensor([[[[4.0, 3.0], [0.05, 0.0]]]])
    assert eigenbasis_scores(x, c).argmax() == 1
    assert aligned_energy_scores(x, c).argmax() == 0


def test_zero_and_nan_tokens():
    x = torch.zeros(1, 3, 2, 4)
    x[0, 1] = 1.0
    x[0, 2] = nan
    x.requires_grad_()
    scores = aligned_energy_scores(x, torch.ones(1, 3, 2, 4))
    assert scores[0, 0].tolist() == [0.0, 0.0]
    torch.testing.assert_close(scores[0, 1], tensor([0.5, 0.5]))
    scores[0, :2].sum().backward()
    assert x.grad[0, :2].isfinite().all()


@pytest.mark.parametrize("coupling", ["shared", "joint", "independent"])
def test_layer_routes_by_it_with_exact_gradients(coupling):
    torch.manual_seed(0)
    layer = ERMoE(7, 3, 2, 5, coupling=coupling, scores="aligned_energy").double()
    x, context = torch.randn(2, 1, 4, 7, dtype=torch.float64).requires_grad_()
    _, record = layer(x, context, return_routing=True)
    bases = layer.routing_bases()
    projected = [torch.einsum("bnd,edr->bner", tokens, bases) for tokens in (x, context)]
    torch.testing.assert_close(record.scores_BNE, aligned_energy_scores(*projected))
    names = [name for name, _ in layer.named_parameters()]

    def forward(*parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x, context))

    assert torch.autograd.gradcheck(forward, tuple(layer.parameters()))
