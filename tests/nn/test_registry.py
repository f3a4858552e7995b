"""Every router by its name: one interface, in the layer and in the transformer."""

from __future__ import annotations

import pytest
import torch

from brainage.errors import ConfigError
from brainage.nn import ERMoE, RoutingRecord, VisionTransformer, make_moe, routing_statistics

SETTINGS = {
    "ermoe": {"rank": 3},
    "vmoe": {},
    "cosine": {},
    "emoe": {"rank": 5},
    "soft": {"slots_per_expert": 3},
    "dense": {},
}


@pytest.mark.parametrize("router", SETTINGS)
def test_every_layer_has_the_same_interface(router):
    layer = make_moe(router, 12, 4, 10, **SETTINGS[router])
    x, context = torch.randn(2, 2, 9, 12)
    y, record = layer.eval()(x, context, torch.ones(9, 4), return_routing=True)
    assert torch.equal(layer(x, context, torch.ones(9, 4)), y)
    assert y.shape == x.shape
    assert isinstance(record, RoutingRecord)
    assert record.experts_BNK.shape == record.gates_BNK.shape
    assert record.fallback_BN.shape == (2, 9)
    assert routing_statistics(record)["below_threshold"] == 0 or router == "ermoe"


@pytest.mark.parametrize("router", SETTINGS)
def test_the_transformer_takes_any_router_and_every_parameter_learns(router):
    moe = {"router": router, "num_experts": 4, "hidden_dim": 10, **SETTINGS[router]}
    model = VisionTransformer(9, 12, 2, 2, 20, moe_blocks=(1,), moe=moe)
    tokens, records = model(torch.randn(4, 9, 12), return_routing=True)
    assert len(records) == 1
    (tokens * torch.rand(12)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_ermoe_is_the_default():
    moe = {"num_experts": 4, "rank": 3}
    assert isinstance(
        VisionTransformer(9, 12, 1, 2, 20, moe_blocks=(0,), moe=moe).blocks[0].feed_forward, ERMoE
    )


@pytest.mark.parametrize(
    ("router", "settings", "field"),
    [
        ("top", {}, "router"),
        ("vmoe", {"rank": 3}, "rank"),
        ("ermoe", {}, "rank"),
        ("soft", {}, "slots_per_expert"),
        ("emoe", {"rank": 13}, "rank"),
        ("emoe", {"rank": 0}, "rank"),
        ("emoe", {"rank": 3, "temperature": 0.0}, "temperature"),
        ("ermoe", {"rank": 12}, "rank"),
    ],
)
def test_bad_configuration_names_the_field(router, settings, field):
    with pytest.raises(ConfigError) as error:
        make_moe(router, 12, 4, 10, **settings)
    assert error.value.field == field
