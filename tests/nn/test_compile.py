"""``torch.compile``: graphs give what the layers give, and hold what docs/moe_layer.md says they hold."""

from __future__ import annotations

import pytest
import torch

from brainage.nn import make_moe

SIZES = {"dim": 16, "num_experts": 4, "hidden_dim": 32}
SETTINGS = {
    "ermoe": {"rank": 3, "top_k": 2},
    "emoe": {"rank": 12, "top_k": 2},
    "vmoe": {"top_k": 2},
    "cosine": {"top_k": 2},
    "soft": {"slots_per_expert": 3},
    "dense": {"top_k": 2},
}


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def called(layer, x_BND):
    output = layer(x_BND, x_BND.mean(1, keepdim=True).expand_as(x_BND))
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("router", SETTINGS)
def test_a_compiled_layer_gives_the_same(router):
    torch.manual_seed(0)
    layer = make_moe(router, **SIZES, **SETTINGS[router]).eval()
    whole = router in ("soft", "dense")
    compiled = torch.compile(called, backend="eager", fullgraph=whole)
    with torch.no_grad():
        for tokens in (5, 9):
            x_BND = torch.randn(2, tokens, 16)
            torch.testing.assert_close(compiled(layer, x_BND), called(layer, x_BND))
