"""Soft MoE against a plain loop over slots and tokens, and the dense control."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from brainage.errors import ConfigError
from brainage.nn import expert_load, make_moe


def make_layer(dim=13, experts=7, hidden=11, slots=3):
    torch.manual_seed(0)
    layer = make_moe("soft", dim, experts, hidden, slots_per_expert=slots).double()
    with torch.no_grad():
        layer.scale.fill_(4.0)
    return layer


def make_tokens(batch=1, tokens=100, dim=13):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, tokens, dim, generator=generator, dtype=torch.float64).requires_grad_()


def expert_output(experts, e, token):
    hidden = F.gelu(experts.first_EHD[e] @ token + experts.bias_EH[e])
    return experts.second_EDH[e] @ hidden + experts.bias_ED[e]


def slot_loop(layer, x, prior=None):
    """The layer as its definition reads, one slot and one token at a time."""
    experts, slots, _ = layer.slots_EPD.shape
    rows = []
    for tokens in x:
        share = torch.ones(len(tokens), experts, dtype=x.dtype) if prior is None else prior
        read = []  # (weight of each token, output), one for each slot
        for e, p in ((e, p) for e in range(experts) for p in range(slots)):
            cosines = [F.cosine_similarity(token, layer.slots_EPD[e, p], dim=0) for token in tokens]
            strength = torch.stack(
                [s * (layer.scale * c).exp() for s, c in zip(share[:, e], cosines, strict=True)]
            )
            mixed = (strength[:, None] * tokens).sum(0) / strength.sum().clamp(min=1e-30)
            read.append((strength, expert_output(layer.experts, e, mixed)))
        for n in range(len(tokens)):
            total = sum(strength[n] for strength, _ in read)
            y = sum(strength[n] * output for strength, output in read)
            rows.append(y / total if total > 0 else y)
    return torch.stack(rows).view_as(x)


def random_prior(tokens, experts):
    prior = torch.rand(tokens, experts, dtype=torch.float64) * (torch.rand(tokens, experts) > 0.3)
    prior[:2] = 0  # tokens to which every expert is closed
    prior[:, -1] = 0  # an expert that is closed to every token
    return prior


@pytest.mark.parametrize("with_prior", [False, True])
def test_output_and_every_gradient_equal_the_slot_loop(with_prior):
    layer, x = make_layer(), make_tokens(batch=2, tokens=50)
    prior = random_prior(50, 7) if with_prior else None
    y = layer(x, None, prior)
    expected = slot_loop(layer, x, prior)
    torch.testing.assert_close(y, expected)
    weight = torch.randn_like(y)
    inputs = [x, *layer.parameters()]
    gradients = torch.autograd.grad((y * weight).sum(), inputs)
    expected_gradients = torch.autograd.grad((expected * weight).sum(), inputs)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert gradient.isfinite().all()
        torch.testing.assert_close(gradient, expected_gradient)


def test_gradcheck():
    layer, x = make_layer(dim=4, experts=2, hidden=3, slots=2), make_tokens(tokens=3, dim=4)
    names = [name for name, _ in layer.named_parameters()]

    def forward(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(forward, (x, *layer.parameters()))


def test_by_hand():
    # D = 2, E = 2, P = 1, H = 1, scale ln 3, phi = (1, 0) and (0, 1), tokens a = (2, 0) and b = (0, 1):
    # cosines are the identity, exponentials 3 and 1. Slot 0 reads 3/4 a + 1/4 b = (1.5, 0.25), slot 1
    # 1/4 a + 3/4 b = (0.5, 0.75). Experts: gelu(0 x + b1) = gelu(1) = 0.84134475, times (1, 0) and (0, 1).
    # Token a reads 3/4 of slot 0 and 1/4 of slot 1.
    layer = make_layer(dim=2, experts=2, hidden=1, slots=1)
    with torch.no_grad():
        layer.scale.fill_(torch.tensor(3.0, dtype=torch.float64).log())
        layer.slots_EPD.copy_(torch.eye(2).unsqueeze(1))
        layer.experts.first_EHD.copy_(torch.tensor([[2.0, -2.0]]))
        layer.experts.bias_EH.copy_(torch.tensor([[-1.5], [1.5]]))  # 2.5 - 1.5 = 1 and -0.5 + 1.5 = 1
        layer.experts.second_EDH.copy_(torch.eye(2).unsqueeze(-1))
        layer.experts.bias_ED.zero_()
    x = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    y, record = layer(x, return_routing=True)
    torch.testing.assert_close(y, 0.84134475 * torch.tensor([[[0.75, 0.25], [0.25, 0.75]]]).double())
    assert record.experts_BNK.tolist() == [[[0, 1], [1, 0]]]
    torch.testing.assert_close(record.gates_BNK, torch.tensor([[[0.75, 0.25]] * 2]).double())
    assert expert_load(record).tolist() == [2, 2]


def test_order_of_tokens_does_not_matter():
    layer, x, order = make_layer(), make_tokens(batch=2, tokens=20), torch.randperm(20)
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])


def test_relabelling_experts_changes_only_the_labels():
    layer, relabelled, order, x = make_layer(), make_layer(), torch.randperm(7), make_tokens(tokens=20)
    with torch.no_grad():
        relabelled.slots_EPD.copy_(layer.slots_EPD[order])
        for old, new in zip(layer.experts.parameters(), relabelled.experts.parameters(), strict=True):
            new.copy_(old[order])
    y, record = layer(x, return_routing=True)
    z, relabelled_record = relabelled(x, return_routing=True)
    torch.testing.assert_close(z, y)
    torch.testing.assert_close(relabelled_record.gates_BNE, record.gates_BNE[..., order])


def test_one_slot_of_one_expert_is_the_network_of_the_mean():
    layer, x = make_layer(experts=1, slots=1), make_tokens(tokens=5)
    with torch.no_grad():
        layer.scale.zero_()
    expected = expert_output(layer.experts, 0, x[0].mean(0)).expand(1, 5, 13)
    torch.testing.assert_close(layer(x), expected)


def test_nan_stays_in_its_sequence():
    layer, x = make_layer(), make_tokens(batch=2, tokens=20)
    expected = layer(x)
    with torch.no_grad():
        x[0, 3] = torch.nan
    y = layer(x)
    assert y[0].isnan().all()
    torch.testing.assert_close(y[1], expected[1])


def test_closed_experts_have_no_weight_and_a_token_without_any_passes_by():
    layer, x, prior = make_layer(), make_tokens(tokens=30), random_prior(30, 7)
    y, record = layer(x, None, prior, return_routing=True)
    assert not (record.gates_BNE[0] > 0)[prior == 0].any()
    assert record.fallback_BN[0].tolist() == (~(prior > 0).any(1)).tolist()
    assert not y[0, :2].any()
    torch.testing.assert_close(record.gates_BNE.sum(-1), (~record.fallback_BN).double())
    with pytest.raises(ConfigError, match="prior_NE"):
        layer(x, None, prior.T)


def test_autocast_comes_close():
    layer, x = make_layer().float(), make_tokens(tokens=100).detach().float()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float32
    assert (y - layer(x)).abs().median() < 0.02 * y.abs().mean()


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_any_shape_equals_the_slot_loop(data):
    small = st.integers(1, 4)
    dim = data.draw(st.integers(2, 6))
    layer = make_layer(dim, data.draw(small), data.draw(small), data.draw(small))
    x = make_tokens(data.draw(small), data.draw(small), dim)
    torch.testing.assert_close(layer(x), slot_loop(layer, x))


@pytest.mark.parametrize("field", ["slots_per_expert", "hidden_dim", "num_experts"])
def test_bad_configuration_names_the_field(field):
    sizes = {"dim": 4, "num_experts": 2, "hidden_dim": 3, "slots_per_expert": 1, field: 0}
    with pytest.raises(ConfigError) as error:
        make_moe("soft", **sizes)
    assert error.value.field == field
