"""Outputs and every gradient of the ERMoE layer against a plain loop over tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

COUPLINGS = ["shared", "joint", "independent"]


@pytest.mark.parametrize(
    ("orthogonalization", "fallback", "scores"),
    [
        ("cayley", "best", "eigenbasis"),
        ("cayley", "skip", "eigenbasis"),
        ("qr", "best", "eigenbasis"),
        ("cayley", "best", "aligned_energy"),
        ("none", "skip", "aligned_energy"),
    ],
)
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_output_and_every_gradient_equal_the_token_loop(
    reference, coupling, orthogonalization, fallback, scores
):
    layer = reference.make_layer(
        coupling,
        threshold={"eigenbasis": 0.3, "aligned_energy": 0.06}[scores],
        orthogonalization=orthogonalization,
        fallback=fallback,
        scores=scores,
    )
    x, context = reference.make_tokens()
    prior = torch.rand(100, 7, dtype=torch.float64)
    prior[:, 2:] *= torch.rand(100, 5) > 0.3
    prior[:3] = 0
    inputs = [x, context, *layer.parameters()]
    y, record = layer(x, context, prior, return_routing=True)
    assert 0.1 < record.fallback_BN.double().mean() < 0.9  # the case holds both kinds of tokens

    weight = torch.randn_like(y)
    gradients = torch.autograd.grad((y * weight).sum(), inputs)
    expected = reference.token_loop(layer, x, context, prior)
    expected_gradients = torch.autograd.grad((expected * weight).sum(), inputs)
    torch.testing.assert_close(y, expected)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("hidden", [31, 29, 13])
def test_products_with_factors_equal_the_token_loop(reference, coupling, hidden, monkeypatch):
    layer = reference.make_layer(coupling, hidden=hidden, threshold=0.3, scores="eigenbasis")
    x, context = reference.make_tokens()
    inputs = [x, context, *layer.parameters()]
    expected = reference.token_loop(layer, x, context)
    weight = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad((expected * weight).sum(), inputs)
    reference.factor_every_frame(monkeypatch)
    y = layer(x, context)
    torch.testing.assert_close(y, expected)
    for gradient, other in zip(
        torch.autograd.grad((y * weight).sum(), inputs), expected_gradients, strict=True
    ):
        torch.testing.assert_close(gradient, other)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_gradcheck(reference, coupling):
    layer = reference.make_layer(coupling, dim=7, experts=3, rank=2, hidden=9)
    x, context = reference.make_tokens(tokens=5, dim=7)
    names = [name for name, _ in layer.named_parameters()]

    def forward(x, context, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x, context))

    assert torch.autograd.gradcheck(forward, (x, context, *layer.parameters()))


@given(st.data(), st.sampled_from(COUPLINGS), st.sampled_from(["cayley", "qr"]))
@settings(max_examples=30, deadline=None)
def test_any_shape_equals_the_token_loop(reference, data, coupling, orthogonalization):
    dim = data.draw(st.integers(3, 9))
    rank = data.draw(
        st.integers(2, dim - 1)
    )  # with R = 1 all cosines are 1 or -1, and the ties are arbitrary
    experts = data.draw(st.integers(1, 5 if coupling == "independent" else dim // rank))
    settings = {
        "top_k": data.draw(st.integers(1, experts)),
        "threshold": data.draw(st.sampled_from([-1.0, -0.5, 0.0, 0.5])),
        "orthogonalization": orthogonalization,
        "scores": data.draw(st.sampled_from(["eigenbasis", "aligned_energy"])),
    }
    hidden = data.draw(st.integers(1, 12))
    layer = reference.make_layer(coupling, dim, experts, rank, hidden, **settings)
    batch, tokens = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    x, context = reference.make_tokens(batch, tokens, dim, seed=data.draw(st.integers(0, 9)))
    torch.testing.assert_close(layer(x, context), reference.token_loop(layer, x, context))


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_all_tokens_below_the_threshold_take_the_best_expert(reference, coupling):
    layer = reference.make_layer(coupling, threshold=0.9999)
    x, context = reference.make_tokens(tokens=10)
    y, record = layer(x, context, return_routing=True)
    assert record.fallback_BN.all()
    assert torch.equal(record.experts_BNK[..., 0], record.scores_BNE.argmax(-1))
    assert record.gates_BNK.unique().tolist() == [0.0, 1.0]
    torch.testing.assert_close(y, reference.token_loop(layer, x, context))
