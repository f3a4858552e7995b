"""Mixtures with learned logits against a plain loop over tokens, and the identities they must satisfy."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from brainage.errors import ConfigError
from brainage.nn import expert_load, make_moe

ROUTERS = {"vmoe": {"noise_std": 0.0}, "cosine": {}, "emoe": {"rank": 2}}


def make_layer(router, dim=13, experts=7, hidden=11, **changes):
    torch.manual_seed(0)
    return make_moe(router, dim, experts, hidden, **{**ROUTERS[router], **changes}).double()


def make_tokens(batch=1, tokens=100, dim=13, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, tokens, dim, generator=generator, dtype=torch.float64).requires_grad_()


def vmoe_logits(router, token):
    return [row @ token for row in router.weight_ED]


def cosine_logits(router, token):
    projected = router.projection_PD @ token
    cosines = [F.cosine_similarity(projected, row, dim=0) for row in router.embedding_EP]
    return [cosine * router.log_scale.exp() for cosine in cosines]


def emoe_logits(router, token):
    energy = [(column @ token) ** 2 for column in router.basis()[0].T]
    shares = [value / sum(energy) for value in energy]
    divided = router.mask_ER.exp() / router.mask_ER.exp().sum(0)
    return [
        sum(weight * gain * share for weight, gain, share in zip(masks, router.gain_R, shares, strict=True))
        + bias
        for masks, bias in zip(divided, router.bias_E, strict=True)
    ]


LOGITS = {"vmoe": vmoe_logits, "cosine": cosine_logits, "emoe": emoe_logits}


def expert_output(experts, e, token):
    hidden = F.gelu(experts.first_EHD[e] @ token + experts.bias_EH[e])
    return experts.second_EDH[e] @ hidden + experts.bias_ED[e]


def token_loop(layer, name, x, prior=None):
    """The layer as its definition reads: one token at a time, one expert at a time."""
    rows = []
    for b, n in ((b, n) for b in range(x.shape[0]) for n in range(x.shape[1])):
        share = [1.0] * layer.select.num_experts if prior is None else prior[n].tolist()
        exponentials = [
            p * logit.exp() for p, logit in zip(share, LOGITS[name](layer.router, x[b, n]), strict=True)
        ]
        ranked = sorted(range(len(share)), key=lambda e: -float(exponentials[e].detach()))
        taken = [e for e in ranked if share[e] > 0][: layer.select.top_k]
        total = sum(exponentials[e] for e in (taken if layer.select.normalize_gates else ranked))
        row = torch.zeros_like(x[b, n])
        for e in taken:
            row = row + exponentials[e] / total * expert_output(layer.experts, e, x[b, n])
        rows.append(row)
    return torch.stack(rows).view_as(x)


@pytest.mark.parametrize(("top_k", "normalize"), [(1, False), (2, False), (2, True), (7, False)])
@pytest.mark.parametrize("name", ROUTERS)
def test_output_and_every_gradient_equal_the_token_loop(name, top_k, normalize):
    layer = make_layer(name, top_k=top_k, normalize_gates=normalize)
    x = make_tokens()
    prior = torch.rand(100, 7, dtype=torch.float64) * (torch.rand(100, 7) > 0.3)
    prior[:3] = 0
    y, record = layer(x, x, prior, return_routing=True)
    assert record.fallback_BN.sum() >= 3
    assert not (record.gates_BNE[0] > 0)[prior == 0].any()
    expected = token_loop(layer, name, x, prior)
    torch.testing.assert_close(y, expected)
    weight = torch.randn_like(y)
    inputs = [x, *layer.parameters()]
    gradients = torch.autograd.grad((y * weight).sum(), inputs)
    expected_gradients = torch.autograd.grad((expected * weight).sum(), inputs)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient)
        assert gradient.any()


@pytest.mark.parametrize("name", ROUTERS)
def test_gradcheck(name):
    layer = make_layer(name, dim=5, experts=3, hidden=4)
    x = make_tokens(tokens=4, dim=5)
    names = [parameter for parameter, _ in layer.named_parameters()]

    def forward(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(forward, (x, *layer.parameters()))


@pytest.mark.parametrize("name", ROUTERS)
def test_one_expert_equals_the_dense_network(name):
    layer = make_layer(name, experts=1, top_k=1)
    x = make_tokens(tokens=6)
    expected = torch.stack([expert_output(layer.experts, 0, token) for token in x[0]])[None]
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("name", ROUTERS)
def test_permuting_tokens_permutes_the_output(name):
    layer, x, order = make_layer(name), make_tokens(tokens=20), torch.randperm(20)
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])


@pytest.mark.parametrize("name", ROUTERS)
def test_relabelling_experts_changes_only_the_labels(name):
    layer, relabelled, order = make_layer(name), make_layer(name), torch.randperm(7)
    with torch.no_grad():
        for parameter, value in relabelled.named_parameters():
            if parameter.rpartition("_")[2].startswith("E"):  # a row for each expert
                value.copy_(layer.get_parameter(parameter)[order])
    x = make_tokens(tokens=20)
    y, record = layer(x, return_routing=True)
    z, relabelled_record = relabelled(x, return_routing=True)
    torch.testing.assert_close(z, y)
    torch.testing.assert_close(relabelled_record.gates_BNE, record.gates_BNE[..., order])


@pytest.mark.parametrize("name", ROUTERS)
def test_an_expert_without_tokens_has_a_gradient_of_zero(name):
    layer = make_layer(name)
    prior = torch.ones(30, 7)
    prior[:, 3] = 0
    layer(make_tokens(tokens=30), None, prior).square().sum().backward()
    for parameter in layer.experts.parameters():
        assert not parameter.grad[3].any()
        assert parameter.grad.any()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize("name", ROUTERS)
def test_a_token_closed_to_all_experts_passes_by(name):
    layer = make_layer(name, normalize_gates=True)
    y, record = layer(make_tokens(tokens=5), None, torch.zeros(5, 7), return_routing=True)
    assert record.fallback_BN.all()
    assert not record.used_BNK.any()
    y.sum().backward()
    assert not y.any()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize("name", ROUTERS)
def test_nan_in_one_token_stays_there(name):
    layer, x = make_layer(name), make_tokens(batch=2, tokens=20)
    expected = layer(x)
    (expected_gradient,) = torch.autograd.grad(expected[:, 5:].square().sum(), x)
    with torch.no_grad():
        x[0, 3] = torch.nan
    y, record = layer(x, return_routing=True)
    others = torch.ones(2, 20, dtype=torch.bool)
    others[0, 3] = False
    torch.testing.assert_close(y[others], expected[others])
    assert y[0, 3].isnan().all()
    assert record.gates_BNK.isfinite().all()
    (gradient,) = torch.autograd.grad(y[:, 5:].square().sum(), x)
    torch.testing.assert_close(gradient[:, 5:], expected_gradient[:, 5:])


@pytest.mark.parametrize("name", ROUTERS)
def test_autocast_keeps_the_routing_and_comes_close(name):
    layer = make_layer(name).float()
    x = make_tokens(tokens=300).detach().float()
    expected, expected_record = layer(x, return_routing=True)
    with torch.autocast("cpu", torch.bfloat16):
        y, record = layer(x, return_routing=True)
    assert y.dtype == record.scores_BNE.dtype == torch.float32
    assert torch.equal(record.experts_BNK, expected_record.experts_BNK)
    assert (y - expected).abs().median() < 0.01 * expected.abs().mean()


@given(st.data(), st.sampled_from(sorted(ROUTERS)))
@settings(max_examples=15, deadline=None)
def test_any_shape_equals_the_token_loop(data, name):
    dim, experts = data.draw(st.integers(2, 8)), data.draw(st.integers(1, 5))
    top_k = data.draw(st.integers(1, experts))
    layer = make_layer(name, dim, experts, data.draw(st.integers(1, 6)), top_k=top_k)
    x = make_tokens(data.draw(st.integers(1, 3)), data.draw(st.integers(0, 4)), dim)
    expected = token_loop(layer, name, x) if x.numel() else x
    torch.testing.assert_close(layer(x), expected)


def test_vmoe_by_hand():
    # D = 2, E = 3, H = 1. x = (1, 2), logits (ln 1, ln 3, ln 4) at W = (0, 0), (ln 3, 0), (0, ln 2): softmax
    # (1, 3, 4) / 8, K = 1: expert 2 with gate 1/2. h = gelu((1, 1).x + 0.5) = gelu(3.5) = 3.49918580,
    # y = 1/2 ((2, 0) h + (0.1, 0.2)) = (3.5491858, 0.1).
    layer = make_layer("vmoe", dim=2, experts=3, hidden=1, top_k=1)
    with torch.no_grad():
        layer.router.weight_ED.copy_(torch.tensor([[0, 0], [3, 1], [1, 2]]).double().clamp(min=1).log())
        layer.experts.first_EHD.fill_(1)
        layer.experts.bias_EH.fill_(0.5)
        layer.experts.second_EDH.copy_(torch.tensor([2.0, 0.0]).view(1, 2, 1))
        layer.experts.bias_ED.copy_(torch.tensor([0.1, 0.2]))
    y, record = layer(torch.tensor([[[1.0, 2.0]]], dtype=torch.float64), return_routing=True)
    assert record.experts_BNK.tolist() == [[[2]]]
    assert record.gates_BNK.tolist() == [[[pytest.approx(0.5)]]]
    assert y[0, 0].tolist() == pytest.approx([3.5491858, 0.1], abs=1e-6)
    # A prior of 1/4 on expert 2: (1, 3, 1) / 5, so that expert 1 takes the token with gate 3/5.
    prior = torch.tensor([[1.0, 1.0, 0.25]], dtype=torch.float64)
    _, record = layer(torch.tensor([[[1.0, 2.0]]], dtype=torch.float64), None, prior, return_routing=True)
    assert record.experts_BNK.tolist() == [[[1]]]
    assert record.gates_BNK.tolist() == [[[pytest.approx(0.6)]]]


def test_a_dropped_token_passes_by():
    layer = make_layer("vmoe", top_k=1, capacity_factor=0.2)
    x = make_tokens()
    y, record = layer(x, return_routing=True)
    assert int(expert_load(record).max()) <= math.ceil(0.2 * 100 / 7)
    assert torch.equal((y[0] == 0).all(-1), ~record.used_BNK[0, :, 0])
    y.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_noise_is_for_training_alone():
    layer, x = make_layer("vmoe", noise_std=30.0), make_tokens()
    _, first = layer(x, return_routing=True)
    _, second = layer(x, return_routing=True)
    assert not torch.equal(first.experts_BNK, second.experts_BNK)
    assert torch.equal(first.scores_BNE, second.scores_BNE)  # the record keeps the logits without noise
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    assert int(expert_load(layer(x, return_routing=True)[1]).sum()) == 200


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"router": "cosine", "temperature": 0.001}, "temperature"),
        ({"router": "cosine", "projection_dim": 0}, "projection_dim"),
        ({"top_k": 8}, "top_k"),
        ({"top_k": 0}, "top_k"),
        ({"hidden": 0}, "hidden_dim"),
        ({"noise_std": -1.0}, "noise_std"),
        ({"capacity_factor": 0.0}, "capacity_factor"),
        ({"rank": 3}, "rank"),
    ],
)
def test_bad_configuration_names_the_field(changes, field):
    with pytest.raises(ConfigError) as error:
        make_layer(**{"router": "vmoe", **changes})
    assert error.value.field == field


def test_prior_of_another_shape_is_refused():
    with pytest.raises(ConfigError, match="prior_NE"):
        make_layer("vmoe")(make_tokens(tokens=4), None, torch.ones(7, 4))
