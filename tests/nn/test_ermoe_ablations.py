"""The ablations of ERMoE: free matrices, learned logits, a balancing loss on the scores."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from brainage.errors import ConfigError
from brainage.nn import ERMoE, VisionTransformer, balancing_loss, expert_load
from brainage.nn.routers import eigenbasis_scores
from brainage.nn.stiefel import OrthonormalFrames, orthonormality_error

COUPLINGS = ["shared", "joint", "independent"]


def make_layer(coupling="shared", **settings):
    torch.manual_seed(0)
    return ERMoE(13, 4, 3, 11, coupling=coupling, **settings).double()


def make_tokens(tokens=100):
    x, context = torch.randn(2, 1, tokens, 13, dtype=torch.float64)
    return x.requires_grad_(), context.requires_grad_()


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_free_matrices_begin_orthonormal_and_leave(coupling):
    layer = make_layer(coupling, orthogonalization="none", scores="eigenbasis").float()
    frames = [module for module in layer.modules() if isinstance(module, OrthonormalFrames)]
    assert all(orthonormality_error(frame()) < 1e-5 for frame in frames)
    optimiser = torch.optim.Adam(layer.parameters(), lr=1e-2)
    x, context, target = torch.randn(3, 1, 24, 13)
    for _ in range(30):
        optimiser.zero_grad()
        (layer(x, context) - target).square().mean().backward()
        optimiser.step()
    assert all(orthonormality_error(frame()) > 1e-2 for frame in frames)
    _, record = layer(x, context, return_routing=True)
    bases = layer.routing_bases()
    projected = [torch.einsum("bnd,edr->bner", tokens, bases) for tokens in (x, context)]
    torch.testing.assert_close(record.scores_BNE, eigenbasis_scores(*projected))


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_free_matrices_gradcheck(coupling):
    torch.manual_seed(0)
    layer = ERMoE(7, 3, 2, 5, coupling=coupling, orthogonalization="none").double()
    x, context = torch.randn(2, 1, 4, 7, dtype=torch.float64).requires_grad_()
    names = [name for name, _ in layer.named_parameters()]

    def forward(*parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x, context))

    assert torch.autograd.gradcheck(forward, tuple(layer.parameters()))


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_learned_logits_choose_among_the_same_experts(coupling, top_k):
    layer = make_layer(coupling, scores="learned", top_k=top_k)
    single = make_layer(coupling, top_k=1, threshold=-1.0)
    single.load_state_dict({k: v for k, v in layer.state_dict().items() if not k.startswith("router")})
    x, _ = make_tokens(30)
    y, record = layer(x, torch.full_like(x, torch.nan), return_routing=True)  # the context has no part

    logits = F.linear(x, layer.router.weight_ED)
    torch.testing.assert_close(record.scores_BNE, logits)
    outputs = []  # of each expert alone, the others being closed to every token
    for e in range(4):
        alone = torch.zeros(30, 4, dtype=torch.float64)
        alone[:, e] = 1
        outputs.append(single(x, x, alone))
    best = logits.topk(top_k, dim=-1)
    gates = best.values.softmax(-1) if top_k > 1 else logits.softmax(-1).amax(-1, keepdim=True)
    chosen = torch.stack(outputs, dim=2).gather(2, best.indices[..., None].expand(-1, -1, -1, 13))
    expected = (gates[..., None] * chosen).sum(2)
    torch.testing.assert_close(y, expected)
    inputs = [x, layer.router.weight_ED]
    weight = torch.randn_like(y)
    gradients = torch.autograd.grad((y * weight).sum(), inputs)
    expected_gradients = torch.autograd.grad((expected * weight).sum(), inputs)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient)
        assert gradient.any()


def test_learned_logits_obey_the_prior():
    layer, prior = make_layer(scores="learned"), torch.ones(50, 4)
    prior[:, 1] = 0
    x, context = make_tokens(50)
    _, record = layer(x, context, prior, return_routing=True)
    assert expert_load(record)[1] == 0
    assert expert_load(record).sum() == 100


def test_a_transformer_with_learned_logits_needs_no_attention_matrix(monkeypatch):
    moe = {"num_experts": 4, "rank": 3, "scores": "learned"}
    model = VisionTransformer(9, 12, 1, 2, 20, moe_blocks=(0,), moe=moe)
    monkeypatch.delattr("brainage.nn.attention.SelfAttention.with_mean_attention")
    assert model(torch.randn(2, 9, 12)).shape == (2, 9, 12)


def test_the_balancing_loss_on_scores_reaches_the_bases_alone():
    layer = make_layer()
    _, record = layer(*make_tokens(), return_routing=True)
    balancing_loss(record).backward()
    reached = {name for name, parameter in layer.named_parameters() if parameter.grad is not None}
    assert reached == {"experts.reading.weight_MDC"}
    assert layer.experts.reading.weight_MDC.grad.any()


def test_unknown_scores_are_refused():
    with pytest.raises(ConfigError, match="scores"):
        make_layer(scores="random")
