"""The ERMoE layer by hand, its settings, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from brainage.errors import ConfigError
from brainage.nn import ERMoE
from brainage.nn.stiefel import qr_frame


@pytest.mark.parametrize(
    ("scores", "expected"),
    [("eigenbasis", [1.0, -1.0]), ("aligned_energy", [1 / 10**0.5, -2 / 10**0.5])],
)
def test_joint_layer_by_hand(reference, scores, expected):
    # D = 3, E = 2, R = H = 1. V_0 = e0, V_1 = e1. x = (1, 2, 0), c = (1, -1, 0), so the cosines are (1, -1),
    # the shares (1, -2) / (sqrt(5) sqrt(2)), and only expert 0 is eligible. h = gelu(1 * 3 * 1 + 0.5)
    # = gelu(3.5) = 3.5 Phi(3.5) = 3.5 * 0.99976737 = 3.49918580, y = e2 * 2 * h + (0.1, 0, 0).
    layer = reference.make_layer("joint", dim=3, experts=2, rank=1, hidden=1, scores=scores)
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
    assert record.scores_BNE.tolist() == [[pytest.approx(expected)]]
    assert y[0, 0].tolist() == pytest.approx([0.1, 0.0, 6.9983716], abs=1e-6)


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


def test_a_context_of_another_shape_is_refused(reference):
    x, context = reference.make_tokens(tokens=4)
    with pytest.raises(ConfigError, match="context_BND"):
        reference.make_layer()(x, context[:, :1])


def test_pretrained_frames_load_into_the_layer(reference):
    layer = reference.make_layer()
    frame = qr_frame(torch.randn(1, 29, 29, dtype=torch.float64))
    layer.experts.reading.load_frames(frame)
    torch.testing.assert_close(layer.routing_bases()[2], frame[0][:, 6:9], rtol=0, atol=1e-10)
