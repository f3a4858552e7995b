"""Identities that the ERMoE layer must satisfy."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

COUPLINGS = ["shared", "joint", "independent"]


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_all_experts_without_threshold_equal_the_dense_weighted_sum(reference, coupling):
    layer = reference.make_layer(coupling, top_k=7, threshold=-1.0)
    x, context = reference.make_tokens(batch=2, tokens=20)
    y, record = layer(x, context, return_routing=True)
    assert record.used_BNK.all()
    assert not record.fallback_BN.any()
    gates = (record.scores_BNE + 1) / (record.scores_BNE + 1).sum(-1, keepdim=True)
    expected = torch.zeros_like(x)
    for e, (first, first_bias, second, second_bias) in enumerate(reference.expert_weights(layer)):
        expected = expected + gates[..., e, None] * F.linear(
            F.gelu(F.linear(x, first, first_bias)), second, second_bias
        )
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("hidden", [13, 40])
def test_one_expert_equals_the_factored_network(reference, coupling, hidden):
    layer = reference.make_layer(coupling, experts=1, rank=4, hidden=hidden, top_k=1)
    x, context = reference.make_tokens(tokens=10)
    ((first, first_bias, second, second_bias),) = reference.expert_weights(layer)
    expected = F.linear(F.gelu(F.linear(x, first, first_bias)), second, second_bias)
    torch.testing.assert_close(layer(x, context), expected)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_permuting_tokens_permutes_the_output(reference, coupling):
    layer = reference.make_layer(coupling)
    x, context = reference.make_tokens(tokens=30)
    order, prior = torch.randperm(30), torch.rand(30, 7)
    expected = layer(x, context, prior)[:, order]
    torch.testing.assert_close(layer(x[:, order], context[:, order], prior[order]), expected)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_relabelling_experts_changes_only_the_labels(reference, coupling):
    layer = reference.make_layer(coupling)
    relabelled = copy.deepcopy(layer)
    order = torch.randperm(7)
    old, new = layer.experts, relabelled.experts
    columns = torch.arange(29 if coupling == "shared" else 3)
    with torch.no_grad():
        if coupling == "shared":
            columns[:21] = columns[:21].view(7, 3)[order].flatten()
            new.reading.load_frames(old.reading()[:, :, columns])
        else:
            new.reading.load_bases(old.reading()[order])
            new.writing.load_frames(old.writing()[order])
        new.hidden.first_left.load_frames(old.hidden.first_left()[order][..., columns])
        new.hidden.second_right.load_frames(old.hidden.second_right()[order])
        new.hidden.first_spectrum_EC.copy_(old.hidden.first_spectrum_EC[order][:, columns])
        new.hidden.second_spectrum_EC.copy_(old.hidden.second_spectrum_EC[order])
        new.hidden.bias_EH.copy_(old.hidden.bias_EH[order])
        new.bias_ED.copy_(old.bias_ED[order])
    x, context = reference.make_tokens(tokens=40)
    y, record = layer(x, context, return_routing=True)
    z, relabelled_record = relabelled(x, context, return_routing=True)
    torch.testing.assert_close(z, y)
    torch.testing.assert_close(relabelled_record.gates_BNE, record.gates_BNE[..., order])


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_evaluation_with_kept_frames_equals_training(reference, coupling, monkeypatch):
    reference.factor_every_frame(monkeypatch)
    layer = reference.make_layer(coupling)
    x, context = reference.make_tokens()
    expected = layer(x, context)
    layer.eval()
    with torch.no_grad():
        first, again = layer(x, context), layer(x, context)
    torch.testing.assert_close(first, expected)
    assert torch.equal(first, again)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_what_is_kept_in_evaluation_follows_every_parameter(reference, coupling):
    layer = reference.make_layer(coupling).eval()
    x, context = reference.make_tokens()
    with torch.no_grad():
        before = layer(x, context)
        for name, parameter in layer.named_parameters():
            parameter.mul_(1.1).add_(0.05)
            changed = layer(x, context)
            torch.testing.assert_close(changed, copy.deepcopy(layer)(x, context), msg=name)
            assert (changed - before).abs().max() > 1e-6, name
            before = changed


@pytest.mark.parametrize("products", ["with matrices", "with factors"])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_forward_and_backward_are_deterministic(reference, coupling, products, monkeypatch):
    if products == "with factors":
        reference.factor_every_frame(monkeypatch)
    layer = reference.make_layer(coupling).float()
    x, context = (tensor.detach().float().requires_grad_() for tensor in reference.make_tokens(batch=2))
    runs = []
    for _ in range(2):
        y = layer(x, context)
        runs.append((y, *torch.autograd.grad(y.square().sum(), [x, context, *layer.parameters()])))
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))
