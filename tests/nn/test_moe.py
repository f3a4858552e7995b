"""The ERMoE layer against a plain loop over tokens, and the identities that it must satisfy."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from brainage.errors import ConfigError
from brainage.nn import ERMoE
from brainage.nn.stiefel import OrthonormalFrames, orthonormality_error, qr_frame

COUPLINGS = ["shared", "joint", "independent"]


def make_layer(coupling="shared", dim=29, experts=7, rank=3, hidden=31, **settings):
    torch.manual_seed(0)
    layer = ERMoE(dim, experts, rank, hidden, coupling=coupling, **settings).double()
    for module in layer.modules():  # drawn in float32, the frames are orthonormal to 1e-7 only
        if isinstance(module, OrthonormalFrames):
            module.load_frames(qr_frame(module()))
    return layer


def make_tokens(batch=1, tokens=100, dim=29, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x, context = torch.randn(2, batch, tokens, dim, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), context.requires_grad_()


def expert_weights(layer):
    """``(W1, b1, W2, b2)`` of every expert, written out as full matrices."""
    experts, hidden = layer.experts, layer.experts.hidden
    left, right = hidden.first_left(), hidden.second_right()
    if hidden.transposed:
        left, right = left.mT, right.mT
    shared = hasattr(experts, "num_experts")
    reading = experts.reading().expand(len(left), -1, -1)
    writing = experts.writing().expand(len(left), -1, -1)
    for e in range(len(left)):
        first = left[e] @ torch.diag(hidden.first_spectrum_EC[e]) @ reading[e].T
        second = writing[e] @ torch.diag(hidden.second_spectrum_EC[e]) @ right[e].T
        bias = writing[e] @ experts.bias_ED[e] if shared else experts.bias_ED[e]
        yield first, hidden.bias_EH[e], second, bias


def token_loop(layer, x, context, prior=None):
    """The layer as its definition reads: one token at a time, one expert at a time."""
    weights, bases, select = list(expert_weights(layer)), layer.routing_bases(), layer.select
    rows = []
    for b, n in ((b, n) for b in range(x.shape[0]) for n in range(x.shape[1])):
        score = {}
        for e, basis in enumerate(bases):
            share = 1.0 if prior is None else float(prior[n, e])
            if share > 0:
                cosine = F.cosine_similarity(x[b, n] @ basis, context[b, n] @ basis, dim=0)
                score[e] = share * cosine if cosine > 0 else cosine
        ranked = sorted(score, key=lambda e: -score[e].item())
        taken = [e for e in ranked if score[e] > select.threshold][: select.top_k]
        strength = {e: score[e] - min(select.threshold, 0) for e in taken}
        if not taken and ranked and select.fallback == "best":
            strength = {ranked[0]: torch.ones((), dtype=x.dtype)}
        row = torch.zeros_like(x[b, n])
        for e, value in strength.items():
            first, first_bias, second, second_bias = weights[e]
            hidden = F.gelu(first @ x[b, n] + first_bias)
            row = row + value / sum(strength.values()) * (second @ hidden + second_bias)
        rows.append(row)
    return torch.stack(rows).view_as(x)


@pytest.mark.parametrize("fallback", ["best", "skip"])
@pytest.mark.parametrize("orthogonalization", ["cayley", "qr"])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_output_and_every_gradient_equal_the_token_loop(coupling, orthogonalization, fallback):
    settings = {"threshold": 0.3, "orthogonalization": orthogonalization, "fallback": fallback}
    layer = make_layer(coupling, **settings)
    x, context = make_tokens()
    prior = torch.rand(100, 7, dtype=torch.float64)
    prior[:, 2:] *= torch.rand(100, 5) > 0.3
    prior[:3] = 0
    inputs = [x, context, *layer.parameters()]
    y, record = layer(x, context, prior, return_routing=True)
    assert 0.1 < record.fallback_BN.double().mean() < 0.9  # the case holds both kinds of tokens

    weight = torch.randn_like(y)
    gradients = torch.autograd.grad((y * weight).sum(), inputs)
    expected = token_loop(layer, x, context, prior)
    expected_gradients = torch.autograd.grad((expected * weight).sum(), inputs)
    torch.testing.assert_close(y, expected)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient)


def factor_every_frame(monkeypatch):
    monkeypatch.setattr("brainage.nn.stiefel.SMALLEST_FACTORED", 1)


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("hidden", [31, 29, 13])
def test_products_with_factors_equal_the_token_loop(coupling, hidden, monkeypatch):
    layer = make_layer(coupling, hidden=hidden, threshold=0.3)
    x, context = make_tokens()
    inputs = [x, context, *layer.parameters()]
    expected = token_loop(layer, x, context)
    weight = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad((expected * weight).sum(), inputs)
    factor_every_frame(monkeypatch)
    y = layer(x, context)
    torch.testing.assert_close(y, expected)
    for gradient, other in zip(
        torch.autograd.grad((y * weight).sum(), inputs), expected_gradients, strict=True
    ):
        torch.testing.assert_close(gradient, other)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_evaluation_with_kept_frames_equals_training(coupling, monkeypatch):
    factor_every_frame(monkeypatch)
    layer = make_layer(coupling)
    x, context = make_tokens()
    expected = layer(x, context)
    layer.eval()
    with torch.no_grad():
        first, again = layer(x, context), layer(x, context)
    torch.testing.assert_close(first, expected)
    assert torch.equal(first, again)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_gradcheck(coupling):
    layer = make_layer(coupling, dim=7, experts=3, rank=2, hidden=9)
    x, context = make_tokens(tokens=5, dim=7)
    names = [name for name, _ in layer.named_parameters()]

    def forward(x, context, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x, context))

    assert torch.autograd.gradcheck(forward, (x, context, *layer.parameters()))


def test_joint_layer_by_hand():
    # D = 3, E = 2, R = H = 1. V_0 = e0, V_1 = e1. x = (1, 2, 0), c = (1, -1, 0), so a = (1, -1) and only
    # expert 0 is eligible. h = gelu(1 * 3 * 1 + 0.5) = gelu(3.5), y = e2 * 2 * gelu(3.5) + (0.1, 0, 0),
    # gelu(3.5) = 3.5 Phi(3.5) = 3.5 * 0.99976737 = 3.49918580.
    layer = make_layer("joint", dim=3, experts=2, rank=1, hidden=1)
    layer.experts.reading.load_bases(torch.eye(3)[:2].unsqueeze(-1))
    layer.experts.hidden.first_left.load_frames(torch.ones(2, 1, 1))
    layer.experts.hidden.second_right.load_frames(torch.ones(2, 1, 1))
    layer.experts.writing.load_frames(torch.eye(3)[2].expand(2, 3).unsqueeze(-1))
    with torch.no_grad():
        layer.experts.hidden.first_spectrum_EC.fill_(3.0)
        layer.experts.hidden.second_spectrum_EC.fill_(2.0)
        layer.experts.hidden.bias_EH.fill_(0.5)
        layer.experts.bias_ED.copy_(torch.tensor([0.1, 0.0, 0.0]).expand(2, 3))
    x = torch.tensor([[[1.0, 2.0, 0.0]]], dtype=torch.float64)
    y, record = layer(x, torch.tensor([[[1.0, -1.0, 0.0]]], dtype=torch.float64), return_routing=True)
    assert record.scores_BNE.tolist() == [[pytest.approx([1.0, -1.0])]]
    assert y[0, 0].tolist() == pytest.approx([0.1, 0.0, 6.9983716], abs=1e-6)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_all_experts_without_threshold_equal_the_dense_weighted_sum(coupling):
    layer = make_layer(coupling, top_k=7, threshold=-1.0)
    x, context = make_tokens(batch=2, tokens=20)
    y, record = layer(x, context, return_routing=True)
    assert record.used_BNK.all()
    assert not record.fallback_BN.any()
    gates = (record.scores_BNE + 1) / (record.scores_BNE + 1).sum(-1, keepdim=True)
    expected = torch.zeros_like(x)
    for e, (first, first_bias, second, second_bias) in enumerate(expert_weights(layer)):
        expected = expected + gates[..., e, None] * F.linear(
            F.gelu(F.linear(x, first, first_bias)), second, second_bias
        )
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("hidden", [13, 40])
def test_one_expert_equals_the_factored_network(coupling, hidden):
    layer = make_layer(coupling, experts=1, rank=4, hidden=hidden, top_k=1)
    x, context = make_tokens(tokens=10)
    ((first, first_bias, second, second_bias),) = expert_weights(layer)
    expected = F.linear(F.gelu(F.linear(x, first, first_bias)), second, second_bias)
    torch.testing.assert_close(layer(x, context), expected)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_permuting_tokens_permutes_the_output(coupling):
    layer = make_layer(coupling)
    x, context = make_tokens(tokens=30)
    order, prior = torch.randperm(30), torch.rand(30, 7)
    expected = layer(x, context, prior)[:, order]
    torch.testing.assert_close(layer(x[:, order], context[:, order], prior[order]), expected)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_relabelling_experts_changes_only_the_labels(coupling):
    layer = make_layer(coupling)
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
    x, context = make_tokens(tokens=40)
    y, record = layer(x, context, return_routing=True)
    z, relabelled_record = relabelled(x, context, return_routing=True)
    torch.testing.assert_close(z, y)
    torch.testing.assert_close(relabelled_record.gates_BNE, record.gates_BNE[..., order])


@pytest.mark.parametrize("products", ["with matrices", "with factors"])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_an_expert_without_tokens_has_a_gradient_of_zero(coupling, products, monkeypatch):
    if products == "with factors":
        factor_every_frame(monkeypatch)
    layer = make_layer(coupling)
    prior = torch.ones(30, 7)
    prior[:, 3] = 0
    layer(*make_tokens(tokens=30), prior).square().sum().backward()
    hidden = layer.experts.hidden
    own = [hidden.first_left.weight_MDC, hidden.second_right.weight_MDC, hidden.first_spectrum_EC]
    own += [hidden.second_spectrum_EC, hidden.bias_EH, layer.experts.bias_ED]
    for parameter in own:
        assert not parameter.grad[3].any()
        assert parameter.grad[2].any()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_all_tokens_below_the_threshold_take_the_best_expert(coupling):
    layer = make_layer(coupling, threshold=0.9999)
    x, context = make_tokens(tokens=10)
    y, record = layer(x, context, return_routing=True)
    assert record.fallback_BN.all()
    assert torch.equal(record.experts_BNK[..., 0], record.scores_BNE.argmax(-1))
    assert record.gates_BNK.unique().tolist() == [0.0, 1.0]
    torch.testing.assert_close(y, token_loop(layer, x, context))


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_all_tokens_below_the_threshold_are_skipped(coupling):
    layer = make_layer(coupling, threshold=0.9999, fallback="skip")
    y, record = layer(*make_tokens(tokens=10), return_routing=True)
    assert record.fallback_BN.all()
    assert not y.any()
    y.sum().backward()
    gradients = [parameter.grad for parameter in layer.parameters() if parameter.grad is not None]
    assert gradients
    assert all(not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("multiple", ["exact slices", "padded slices", "factored"])
@pytest.mark.parametrize("fallback", ["best", "skip"])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_nan_in_one_token_stays_there(coupling, fallback, multiple, monkeypatch):
    if multiple == "padded slices":
        monkeypatch.setattr("brainage.nn.dispatch._slice_multiple", lambda *_: 8)
    elif multiple == "factored":
        factor_every_frame(monkeypatch)
    layer = make_layer(coupling, fallback=fallback)
    x, context = make_tokens(batch=2, tokens=20)
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
def test_autocast_stays_close_to_full_precision(coupling, products, monkeypatch):
    if products == "with factors":
        factor_every_frame(monkeypatch)
    layer = make_layer(coupling).float()
    x, context = (tensor.detach().float() for tensor in make_tokens(tokens=300))
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


@pytest.mark.parametrize("products", ["with matrices", "with factors"])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_forward_and_backward_are_deterministic(coupling, products, monkeypatch):
    if products == "with factors":
        factor_every_frame(monkeypatch)
    layer = make_layer(coupling).float()
    x, context = (tensor.detach().float().requires_grad_() for tensor in make_tokens(batch=2))
    runs = []
    for _ in range(2):
        y = layer(x, context)
        runs.append((y, *torch.autograd.grad(y.square().sum(), [x, context, *layer.parameters()])))
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


@given(st.data(), st.sampled_from(COUPLINGS), st.sampled_from(["cayley", "qr"]))
@settings(max_examples=30, deadline=None)
def test_any_shape_equals_the_token_loop(data, coupling, orthogonalization):
    dim = data.draw(st.integers(3, 9))
    rank = data.draw(
        st.integers(2, dim - 1)
    )  # with R = 1 all cosines are 1 or -1, and the ties are arbitrary
    experts = data.draw(st.integers(1, 5 if coupling == "independent" else dim // rank))
    settings = {
        "top_k": data.draw(st.integers(1, experts)),
        "threshold": data.draw(st.sampled_from([-1.0, -0.5, 0.0, 0.5])),
        "orthogonalization": orthogonalization,
    }
    hidden = data.draw(st.integers(1, 12))
    layer = make_layer(coupling, dim, experts, rank, hidden, **settings)
    batch, tokens = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    x, context = make_tokens(batch, tokens, dim, seed=data.draw(st.integers(0, 9)))
    torch.testing.assert_close(layer(x, context), token_loop(layer, x, context))


def test_a_batch_without_tokens_gives_none_back():
    layer = make_layer()
    y, record = layer(*make_tokens(tokens=0), return_routing=True)
    assert y.shape == (1, 0, 29)
    assert record.scores_BNE.shape == (1, 0, 7)


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"rank": 16}, "rank", "same for all experts"),
        ({"rank": 20, "coupling": "independent"}, "rank", "same for all experts"),
        ({"rank": 5}, "rank", "orthogonal to each other"),
        ({"rank": 5, "coupling": "joint"}, "rank", "orthogonal to each other"),
        ({"rank": 0}, "rank", "at least 1"),
        ({"top_k": 5}, "top_k", "num_experts"),
        ({"threshold": 1.0}, "threshold", "cosines"),
        ({"threshold": -1.5}, "threshold", "cosines"),
        ({"coupling": "none"}, "coupling", "one of"),
        ({"orthogonalization": "svd"}, "orthogonalization", "one of"),
        ({"fallback": "drop"}, "fallback", "one of"),
        ({"hidden_dim": 0}, "hidden_dim", "at least 1"),
    ],
)
def test_bad_configuration_names_field_value_and_rule(changes, field, reason):
    settings = {"dim": 16, "num_experts": 4, "rank": 4, "hidden_dim": 8, **changes}
    with pytest.raises(ConfigError, match=reason) as error:
        ERMoE(**settings)
    assert error.value.field == field
    assert error.value.value == changes[field]


def test_a_context_of_another_shape_is_refused():
    x, context = make_tokens(tokens=4)
    with pytest.raises(ConfigError, match="context_BND"):
        make_layer()(x, context[:, :1])


def test_pretrained_frames_load_into_the_layer():
    layer = make_layer()
    frame = qr_frame(torch.randn(1, 29, 29, dtype=torch.float64))
    layer.experts.reading.load_frames(frame)
    torch.testing.assert_close(layer.routing_bases()[2], frame[0][:, 6:9], rtol=0, atol=1e-10)
