"""The dense control: by hand, against a loop over tokens, and what it refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from brainage.errors import ConfigError
from brainage.nn import expert_load, make_moe


def make_layer(dim=13, experts=7, hidden=11, top_k=3):
    torch.manual_seed(0)
    return make_moe("dense", dim, experts, hidden, top_k=top_k).double()


def make_tokens(batch=1, tokens=100, dim=13):
    return torch.randn(batch, tokens, dim, dtype=torch.float64).requires_grad_()


def token_loop(layer, x):
    first, bias, second, second_bias = (parameter[0] for parameter in layer.network.parameters())
    rows = [second @ F.gelu(first @ token + bias) + second_bias for token in x.flatten(0, 1)]
    return torch.stack(rows).view_as(x)


def test_by_hand():
    # D = 2, K H = 1: h = gelu(1 * 1 + 1 * 2 + 0.5) = gelu(3.5) = 3.49918580, y = (2, 0) h + (0.1, 0.2).
    layer = make_layer(dim=2, experts=3, hidden=1, top_k=1)
    with torch.no_grad():
        layer.network.first_EHD.fill_(1)
        layer.network.bias_EH.fill_(0.5)
        layer.network.second_EDH.copy_(torch.tensor([2.0, 0.0]).view(1, 2, 1))
        layer.network.bias_ED.copy_(torch.tensor([0.1, 0.2]))
    y = layer(torch.tensor([[[1.0, 2.0]]], dtype=torch.float64))
    assert y[0, 0].tolist() == pytest.approx([7.0983716, 0.2], abs=1e-6)


def test_output_and_every_gradient_equal_the_token_loop():
    layer, x = make_layer(), make_tokens()
    assert layer.network.first_EHD.shape == (1, 33, 13)  # the active width of three experts
    y, expected = layer(x), token_loop(layer, x)
    torch.testing.assert_close(y, expected)
    weight, inputs = torch.randn_like(y), [x, *layer.parameters()]
    gradients = [torch.autograd.grad((out * weight).sum(), inputs) for out in (y, expected)]
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted)


def test_gradcheck():
    layer, x = make_layer(dim=5, experts=3, hidden=4, top_k=2), make_tokens(tokens=4, dim=5)
    names = [name for name, _ in layer.named_parameters()]

    def forward(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(forward, (x, *layer.parameters()))


def test_every_token_is_taken_by_the_one_expert_whatever_the_prior():
    layer, x = make_layer(), make_tokens(tokens=6)
    y, record = layer(x, None, torch.zeros(6, 7), return_routing=True)
    assert torch.equal(y, layer(x))
    assert expert_load(record).tolist() == [6]
    assert not record.fallback_BN.any()


def test_nan_in_one_token_stays_there():
    layer, x = make_layer(), make_tokens(batch=2, tokens=5)
    expected = layer(x)
    (expected_gradient,) = torch.autograd.grad(expected[:, 1:].sum(), x)
    with torch.no_grad():
        x[0, 0] = torch.nan
    y = layer(x)
    torch.testing.assert_close(y[:, 1:], expected[:, 1:])
    assert y[0, 0].isnan().all()
    (gradient,) = torch.autograd.grad(y[:, 1:].sum(), x)
    torch.testing.assert_close(gradient[:, 1:], expected_gradient[:, 1:])


def test_autocast_comes_close():
    layer, x = make_layer().float(), make_tokens().detach().float()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float32
    assert (y - layer(x)).abs().median() < 0.02 * y.abs().mean()


@given(st.integers(1, 3), st.integers(0, 4), st.integers(1, 8), st.integers(1, 6), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_any_shape_equals_the_token_loop(batch, tokens, dim, hidden, top_k):
    layer, x = make_layer(dim, 4, hidden, top_k), make_tokens(batch, tokens, dim)
    torch.testing.assert_close(layer(x), token_loop(layer, x) if x.numel() else x)


@pytest.mark.parametrize(("changes", "field"), [({"top_k": 8}, "top_k"), ({"hidden_dim": 0}, "hidden_dim")])
def test_bad_configuration_names_the_field(changes, field):
    with pytest.raises(ConfigError) as error:
        make_moe("dense", **{"dim": 13, "num_experts": 7, "hidden_dim": 11, **changes})
    assert error.value.field == field
