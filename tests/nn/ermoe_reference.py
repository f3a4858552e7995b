"""What the tests of the ERMoE layer share: a layer in float64, and its definition as a loop over tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from brainage.nn import ERMoE
from brainage.nn.routers import eigenbasis_scores
from brainage.nn.stiefel import OrthonormalFrames, qr_frame


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


def raw_scores(layer, token, context):
    """Of one token: the cosine in each basis, or each basis's share in the alignment of both."""
    pairs = [(token @ basis, context @ basis) for basis in layer.routing_bases()]
    if layer.score is eigenbasis_scores:
        return [F.cosine_similarity(x, c, dim=0) for x, c in pairs]
    length_x, length_c = (torch.cat(parts).norm() for parts in zip(*pairs, strict=True))
    return [x @ c / (length_x * length_c) for x, c in pairs]


def token_loop(layer, x, context, prior=None):
    """The layer as its definition reads: one token at a time, one expert at a time."""
    weights, select = list(expert_weights(layer)), layer.select
    rows = []
    for b, n in ((b, n) for b in range(x.shape[0]) for n in range(x.shape[1])):
        score = {}
        for e, raw in enumerate(raw_scores(layer, x[b, n], context[b, n])):
            share = 1.0 if prior is None else float(prior[n, e])
            if share > 0:
                score[e] = share * raw if raw > 0 else raw
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


def factor_every_frame(monkeypatch):
    monkeypatch.setattr("brainage.nn.stiefel.SMALLEST_FACTORED", 1)
