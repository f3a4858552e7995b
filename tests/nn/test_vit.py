"""The transformer: what an ERMoE block compares, its records, regularisation, and bad settings."""

from __future__ import annotations

import pytest
import torch

from brainage.errors import ConfigError
from brainage.nn import ERMoE, VisionTransformer
from brainage.nn.routers import eigenbasis_scores
from brainage.nn.vit import DropPath
from brainage.nn.weight_decay import no_weight_decay_parameters

MOE = {"num_experts": 4, "rank": 3, "hidden_dim": 10}


def make_model(**settings):
    torch.manual_seed(0)
    settings = {"moe_blocks": (1, 2), "moe": MOE, **settings}
    return VisionTransformer(num_tokens=9, dim=12, depth=3, num_heads=2, hidden_dim=20, **settings).double()


def project(layer, x):
    return torch.einsum("bnd,edr->bner", x, layer.routing_bases())


@pytest.mark.parametrize("context", ["attention_mean", "attention_output"])
def test_context_is_that_of_the_tokens_that_are_routed(context):
    model = make_model(context=context)
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    _, records = model(x, return_routing=True)
    x, _ = model.blocks[0](x + model.position_ND)

    block = model.blocks[1]
    attended, mean_attention = block.attention.with_mean_attention(block.norm_attention(x))
    routed = block.norm_feed_forward(x + attended)
    compared = mean_attention @ routed if context == "attention_mean" else attended
    layer = block.feed_forward
    expected = eigenbasis_scores(project(layer, routed), project(layer, compared))
    torch.testing.assert_close(records[0].scores_BNE, expected)


def test_one_record_for_each_block_of_experts():
    model = make_model()
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    tokens, records = model(x, return_routing=True)
    assert [type(block.feed_forward) is ERMoE for block in model.blocks] == [False, True, True]
    assert len(records) == 2
    assert records[1].gates_BNK.shape == (2, 9, 2)
    assert torch.equal(model(x), tokens)
    assert make_model(moe_blocks=(), moe=None)(x, return_routing=True)[1] == []


def test_output_is_normalised():
    tokens = make_model()(torch.randn(2, 9, 12, dtype=torch.float64))
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(2, 9, dtype=torch.float64))


def test_prior_reaches_every_layer_of_experts():
    model = make_model()
    prior = torch.ones(9, 4)
    prior[:5, 0] = 0
    _, records = model(torch.randn(2, 9, 12, dtype=torch.float64), prior, return_routing=True)
    for record in records:
        assert not record.gates_BNE[:, :5, 0].any()
        assert not record.eligible_BNE[:, :5, 0].any()


def test_experts_take_the_hidden_width_of_the_model_by_default():
    model = make_model(moe={"num_experts": 4, "rank": 3})
    assert model.blocks[1].feed_forward.experts.hidden.bias_EH.shape == (4, 20)


def test_every_parameter_learns():
    model = make_model(drop_path=0.1, dropout=0.1)
    model(torch.randn(4, 9, 12, dtype=torch.float64)).square().mul(torch.rand(12)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    branch = torch.ones(4000, 2, 3)
    dropped = DropPath(0.25)(branch)
    assert all(len(sample.unique()) == 1 for sample in dropped[:50])
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float(dropped.mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(DropPath(0.25).eval()(branch), branch)


def test_drop_path_grows_with_depth():
    rates = [block.regularise[1].rate for block in make_model(drop_path=0.2).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2])


def test_evaluation_is_free_of_chance():
    model = make_model(drop_path=0.5, dropout=0.5).eval()
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"moe_blocks": (3,)}, "moe_blocks"),
        ({"moe_blocks": (-1,)}, "moe_blocks"),
        ({"moe": None}, "moe"),
        ({"moe": {"rank": 3}}, "moe"),
        ({"moe": {**MOE, "router": "best"}}, "router"),
        ({"moe": {**MOE, "slots": 3}}, "slots"),
        ({"context": "mean"}, "context"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"dropout": -0.1}, "dropout"),
        ({"moe": {**MOE, "rank": 12}}, "rank"),
    ],
)
def test_bad_configuration_names_the_field(settings, field):
    with pytest.raises(ConfigError) as error:
        make_model(**settings)
    assert error.value.field == field


def test_tokens_of_another_shape_are_refused():
    with pytest.raises(ConfigError, match="tokens_BND"):
        make_model()(torch.randn(2, 8, 12, dtype=torch.float64))


def test_padding_changes_nothing_for_the_tokens_before_it():
    moe = {"num_experts": 3, "rank": 2, "top_k": 2}
    model = VisionTransformer(6, 8, 2, 2, 12, (1,), moe).double().eval()
    tokens = torch.randn(2, 6, 8, dtype=torch.float64)
    present = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    prior = present.double().unsqueeze(-1).expand(-1, -1, 3)
    padded, records = model(tokens, prior, return_routing=True, present_BN=present)
    changed = tokens.clone()
    changed[1, 4:] = 7
    again = model(changed, prior, present_BN=present)
    torch.testing.assert_close(padded[present], again[present], atol=1e-12, rtol=0)
    assert not records[0].used_BNK[1, 4:].any()


def test_layer_scale_weighs_the_branches_and_learns():
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    plain, scaled, silent = (make_model(layer_scale=start) for start in (None, 1.0, 1e-12))
    torch.testing.assert_close(scaled(x), plain(x))
    torch.testing.assert_close(silent(x), silent.norm(x + silent.position_ND))
    gains = {name for name, _ in scaled.named_parameters() if name.endswith("gain_D")}
    assert len(gains) == 6
    assert gains <= no_weight_decay_parameters(scaled)
    scaled(x).square().sum().backward()
    assert all(block.scale_feed_forward.gain_D.grad.abs().sum() > 0 for block in scaled.blocks)
