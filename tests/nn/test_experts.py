"""The experts' start: output scale and spectra."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from brainage.nn import ERMoE


@pytest.mark.parametrize("hidden", [32, 256])
@pytest.mark.parametrize("coupling", ["shared", "joint", "independent"])
def test_output_begins_at_the_scale_of_a_default_dense_network(coupling, hidden):
    x = torch.randn(1, 400, 64)

    @torch.no_grad()
    def spread(networks):
        outputs = torch.stack([network() for network in networks])
        return float((outputs - outputs.mean(dim=2, keepdim=True)).square().mean().sqrt())

    def dense():
        return nn.Sequential(nn.Linear(64, hidden), nn.GELU(), nn.Linear(hidden, 64))(x)

    def expert():
        return ERMoE(64, 1, 16, hidden, top_k=1, coupling=coupling)(x, x)

    assert spread([expert] * 8) == pytest.approx(spread([dense] * 8), rel=0.2)


def test_shared_experts_begin_with_more_of_their_own_block():
    # D = 8, E = 2, R = 3, H = 24. With amplitudes 2 on the own 3 directions and 1 on the other 5, the squares
    # sum to 17; they must sum to H / 3 = 8, so the amplitudes are sqrt(8 / 17) times that.
    layer = ERMoE(8, 2, 3, 24)
    low = math.sqrt(8 / 17)
    expected = torch.full((2, 8), low)
    expected[0, :3] = expected[1, 3:6] = 2 * low
    torch.testing.assert_close(layer.experts.hidden.first_spectrum_EC.detach(), expected)
