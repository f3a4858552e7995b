"""ERMoE-ba: tokens, histograms, additivity, and regional experts that stay in their regions."""

from __future__ import annotations

import pytest
import torch

from brainage.config import ModelRecipe, parse_recipe
from brainage.errors import ConfigError
from brainage.models.brain_age import BrainAgeModel, HistogramStem, TokenLayout

GRID = (2, 3, 2)
SETTINGS = {
    "patch": 4,
    "dim": 16,
    "depth": 2,
    "num_heads": 2,
    "hidden_dim": 16,
    "moe_blocks": (1,),
    "rank": 4,
}


def layout() -> TokenLayout:
    index = torch.tensor([0, 3, 4, 7, 10])
    prior = torch.tensor([[0.5, 0.0], [0.5, 0.0], [0.0, 0.8], [0.0, 0.2], [0.0, 0.0]])
    return TokenLayout(index, torch.cat([prior, torch.ones(5, 1)], 1), ("front", "back", "free 1"), GRID)


def make(**changes: object) -> BrainAgeModel:
    torch.manual_seed(0)
    model = BrainAgeModel(ModelRecipe(**SETTINGS | {"free_experts": 1} | changes), layout(), 50.0, 20.0)
    torch.nn.init.normal_(model.head.weight_ND)
    torch.nn.init.normal_(model.head.bias_N)
    return model.eval()


def volumes(batch: int = 3) -> torch.Tensor:
    return torch.rand(batch, 1, 8, 12, 8, generator=torch.Generator().manual_seed(1)) * 1.4


def test_patches_are_the_blocks_of_the_grid_in_c_order() -> None:
    volume = volumes()
    patches = make().patches(volume)
    assert patches.shape == (3, 5, 4, 4, 4)
    for token, index in enumerate([0, 3, 4, 7, 10]):
        x, y, z = index // 6 * 4, index // 2 % 3 * 4, index % 2 * 4
        torch.testing.assert_close(patches[:, token], volume[:, 0, x : x + 4, y : y + 4, z : z + 4])


def test_a_volume_of_another_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match="volume_B1XYZ"):
        make()(torch.zeros(1, 1, 8, 12, 12))


def test_histogram_shares_a_voxel_between_its_two_nearest_bins() -> None:
    # Bins at 0, 0.3125, 0.625, ...: 0.125 lies 0.4 of the way from the first to the second.
    stem = HistogramStem(1, 8, bins=5)
    patch = torch.tensor([0.125, 0.0, 1.25, 9.0, -1.0, 0.625, 0.3125, 0.0])
    histogram = stem.histograms(patch.reshape(1, 8, 1, 1, 1)).reshape(8, 5)
    expected = torch.tensor(
        [
            [0.6, 0.4, 0, 0, 0],
            [1, 0, 0, 0, 0],
            [0, 0, 0, 0, 1],
            [0, 0, 0, 0, 1],  # above the ceiling
            [1, 0, 0, 0, 0],  # below 0
            [0, 0, 1, 0, 0],
            [0, 1, 0, 0, 0],
            [1, 0, 0, 0, 0],
        ]
    )
    torch.testing.assert_close(histogram, expected, atol=1e-6, rtol=0)


def test_histograms_of_cells_keep_their_places() -> None:
    stem = HistogramStem(1, 8, cells=2, bins=3)
    patch = torch.zeros(1, 1, 4, 4, 4)
    patch[..., 2:, :2, 2:] = 1.25  # octant (1, 0, 1), the sixth
    histogram = stem.histograms(patch).reshape(8, 3)
    assert histogram[5].tolist() == [0, 0, 1]
    assert histogram[[0, 1, 2, 3, 4, 6, 7], 0].tolist() == [1] * 7


def test_embeddings_see_the_roots_of_the_shares() -> None:
    stem = HistogramStem(1, 2, bins=3)
    torch.nn.init.eye_(stem.embed.weight)
    torch.nn.init.zeros_(stem.embed.bias)
    stem.norm = torch.nn.Identity()
    patch = torch.zeros(1, 1, 2, 2, 2)
    patch[..., 0, 0, 0] = 1.25  # one voxel in eight in the last bin
    patch[..., 0, 1, :] = 0.625  # two in the middle
    roots = torch.tensor([[[(5 / 8) ** 0.5, (2 / 8) ** 0.5]]])
    torch.testing.assert_close(stem(stem.histograms(patch)), roots)


@pytest.mark.parametrize("prior", ["soft", "hard", "none"])
def test_contributions_sum_to_the_age(prior: str) -> None:
    output = make(prior=prior)(volumes())
    torch.testing.assert_close(
        output.baseline + output.contributions_BN.double().sum(1), output.age_B.double(), atol=1e-4, rtol=0
    )
    assert output.age_B.std() > 0


@pytest.mark.parametrize("router", ["ermoe", "emoe", "vmoe", "cosine", "soft", "dense"])
def test_every_router_predicts_and_learns(router: str) -> None:
    model = make(router=router).train()
    output = model(volumes())
    output.age_B.sum().backward()
    layer = model.encoder.blocks[1].feed_forward
    assert all(record.num_experts == len(model.routed_names) for record in output.routing)
    moved = [p.grad.abs().sum() for p in layer.parameters() if p.grad is not None]
    assert sum(moved) > 0
    assert all(torch.isfinite(value) for value in moved)
    total = output.baseline + output.contributions_BN.sum(1)
    torch.testing.assert_close(total, output.age_B, atol=1e-4, rtol=0)


def test_an_unknown_router_is_refused() -> None:
    with pytest.raises(ConfigError, match="router"):
        parse_recipe({"router": "best"}, ModelRecipe)


@pytest.mark.parametrize(
    "ablation", [{"orthogonalization": "qr"}, {"orthogonalization": "none"}, {"scores": "learned"}]
)
def test_ablations_of_a_recipe_reach_the_layer(ablation: dict[str, str]) -> None:
    layer = make(**ablation).encoder.blocks[1].feed_forward
    assert layer.experts.reading.orthogonalization == ablation.get("orthogonalization", "cayley")
    assert layer.uses_context == ("scores" not in ablation)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"rank": 16, "dim": 16}, "rank"),
        ({"dim": 8, "num_heads": 2}, "rank"),  # the default rank is 8
        ({"router": "emoe", "rank": 17, "dim": 16}, "rank"),
        ({"top_k": 0}, "top_k"),
        ({"threshold": 1.0}, "threshold"),
        ({"threshold": -1.1}, "threshold"),
        ({"orthogonalization": "svd"}, "orthogonalization"),
        ({"scores": "random"}, "scores"),
        ({"scores": "learned", "router": "vmoe"}, "scores"),
        ({"balancing": -0.1}, "balancing"),
        ({"balancing": 0.01, "router": "soft"}, "balancing"),
        ({"balancing": 0.01, "router": "dense"}, "balancing"),
    ],
)
def test_a_bad_recipe_names_field_value_and_rule(settings: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_recipe(settings, ModelRecipe)
    assert error.value.field == field
    assert error.value.value == settings.get(field, 8)
    assert error.value.rule


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"rank": 6}, "rank"), ({"rank": 6, "coupling": "joint"}, "rank"), ({"top_k": 4}, "top_k")],
)
def test_settings_that_do_not_fit_the_number_of_experts_are_refused(
    settings: dict[str, object], field: str
) -> None:
    with pytest.raises(ConfigError) as error:
        make(**settings)  # three experts of width 16
    assert error.value.field == field
    assert error.value.value == settings[field]


def test_contributions_sum_to_the_age_under_bf16() -> None:
    model = make()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(volumes())
    assert output.age_B.dtype == torch.float32
    torch.testing.assert_close(
        output.baseline + output.contributions_BN.sum(1), output.age_B, atol=1e-4, rtol=0
    )


def test_what_lies_outside_the_tokens_changes_nothing() -> None:
    model, volume = make(), volumes(1)
    other = volume.clone()
    other[:, :, :4, 4:8, :4] = 1.0  # patch 2, no token
    torch.testing.assert_close(model(volume).age_B, model(other).age_B, atol=0, rtol=0)
    other[:, :, :4, :4, :4] = 1.0  # patch 0 is one
    assert model(volume).age_B != model(other).age_B


def test_regional_experts_take_tokens_of_their_region_only() -> None:
    (record,) = make(prior="hard", top_k=2, threshold=-1.0)(volumes(8)).routing
    gates = record.gates_BNE
    assert (gates[:, [2, 3, 4], 0] == 0).all()
    assert (gates[:, [0, 1, 4], 1] == 0).all()
    assert (gates[:, 4, 2] == 1).all()
    assert (gates[:, 0, 0] > 0).all()


def test_without_the_prior_every_expert_is_open_to_every_token() -> None:
    (record,) = make(prior="none", top_k=3, threshold=-1.0)(volumes(8)).routing
    assert (record.experts_BNK.sort(-1).values == torch.arange(3)).all()


def test_cells_that_do_not_divide_the_patch_are_refused() -> None:
    with pytest.raises(ConfigError, match="cells"):
        make(cells=3)
