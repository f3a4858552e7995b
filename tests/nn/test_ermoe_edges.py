"""Where the ERMoE layer could break: no tokens, no eligible expert, NaN, half precision, long training."""

from __future__ import annotations

import pytest
import torch

from brainage.nn import ERMoE
from brainage.nn.stiefel import OrthonormalFrames, orthonormality_error

COUPLINGS = ["shared", "joint", "independent"]


@pytest.mark.parametrize("products", ["with matrices", "with factors"])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_an_expert_without_tokens_has_a_gradient_of_zero(reference, coupling, products, monkeypatch):
    if products == "with factors":
        reference.factor_every_frame(monkeypatch)
    layer = reference.make_layer(coupling)
    prior = torch.ones(30, 7)
    prior[:, 3] = 0
    layer(*reference.make_tokens(tokens=30), prior).square().sum().backward()
    hidden = layer.experts.hidden
    own = [hidden.first_left.weight_MDC, hidden.second_right.weight_MDC, hidden.first_spectrum_EC]
    own += [hidden.second_spectrum_EC, hidden.bias_EH, layer.experts.bias_ED]
    for parameter in own:
        assert not parameter.grad[3].any()
        assert parameter.grad[2].any()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_all_tokens_below_the_threshold_are_skipped(reference, coupling):
    layer = reference.make_layer(coupling, threshold=0.9999, fallback="skip")
    y, record = layer(*reference.make_tokens(tokens=10), return_routing=True)
    assert record.fallback_BN.all()
    assert not y.any()
    y.sum().backward()
    gradients = [parameter.grad for parameter in layer.parameters() if parameter.grad is not None]
    assert gradients
    assert all(not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("multiple", ["exact slices", "padded slices", "factored"])
@pytest.mark.parametrize("fallback", ["best", "skip"])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_nan_in_one_token_stays_there(reference, coupling, fallback, multiple, monkeypatch):
    if multiple == "padded slices":
        monkeypatch.setattr("brainage.nn.dispatch._slice_multiple", lambda *_: 8)
    elif multiple == "factored":
        reference.factor_every_frame(monkeypatch)
    layer = reference.make_layer(coupling, fallback=fallback)
    x, context = reference.make_tokens(batch=2, tokens=20)
    expected = layer(x, context)
    (expected_gradient,) = torch.autograd.grad(expected[:, 5:].square().sum(), x)
    with torch.no_grad():
        x[0, 3] = torch.nan
    y, record = layer(x, context, return_routing=True)
    others = torch.ones(2, 20, dtype=torch.bool)
    others[0, 3] = False
    torch.testing.assert_close(y[others], expected[others])
    assert record.gates_BNK.isfinite().all()
    assert y[0, 3].isnan().all() if fallback == "best" else not y[0, 3].any()
    (gradient,) = torch.autograd.grad(y[:, 5:].square().sum(), x)
    torch.testing.assert_close(gradient[:, 5:], expected_gradient[:, 5:])


@pytest.mark.parametrize(
    ("coupling", "orthogonalization", "precision"),
    [
        ("shared", "cayley", "float32"),
        ("shared", "cayley", "bfloat16 autocast"),
        ("shared", "qr", "float32"),
        ("shared", "qr", "bfloat16 autocast"),
        ("independent", "cayley", "bfloat16 autocast"),
    ],
)
def test_bases_stay_orthonormal_for_a_thousand_steps(coupling, orthogonalization, precision):
    layer = ERMoE(12, 3, 3, 14, coupling=coupling, orthogonalization=orthogonalization)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=1e-2, weight_decay=0.0)
    x, context, target = torch.randn(3, 1, 24, 12)
    before = layer.routing_bases().detach()
    for _ in range(1000):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != "float32"):
            y = layer(x, context)
        optimiser.zero_grad()
        (y - target).square().mean().backward()
        optimiser.step()
    assert (layer.routing_bases() - before).abs().max() > 0.1  # they did move
    for module in layer.modules():
        if isinstance(module, OrthonormalFrames):
            assert orthonormality_error(module()) < 1e-5


@pytest.mark.parametrize("products", ["with matrices", "with factors"])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_autocast_stays_close_to_full_precision(reference, coupling, products, monkeypatch):
    if products == "with factors":
        reference.factor_every_frame(monkeypatch)
    layer = reference.make_layer(coupling).float()
    x, context = (tensor.detach().float() for tensor in reference.make_tokens(tokens=300))
    expected, expected_record = layer(x, context, return_routing=True)
    with torch.autocast("cpu", torch.bfloat16):
        y, record = layer(x, context, return_routing=True)
    assert y.dtype == torch.float32
    assert record.scores_BNE.dtype == torch.float32
    assert (record.scores_BNE - expected_record.scores_BNE).abs().mean() < 0.01
    same = (record.experts_BNK == expected_record.experts_BNK).all(-1)
    assert same.float().mean() > 0.9
    # Scores near the threshold may change sides; elsewhere the outputs agree to bfloat16's precision.
    assert (y - expected)[same].abs().median() < 0.01 * expected.abs().mean()


def test_a_batch_without_tokens_gives_none_back(reference):
    layer = reference.make_layer()
    y, record = layer(*reference.make_tokens(tokens=0), return_routing=True)
    assert y.shape == (1, 0, 29)
    assert record.scores_BNE.shape == (1, 0, 7)
