"""What a recipe that breaks rules is told."""

from __future__ import annotations

import inspect

import pytest

from brainage.cli.training_options import with_options
from brainage.config import BrainAgeRecipe, ModelRecipe, RouterRecipe, parse_recipe
from brainage.errors import ConfigError
from brainage.models.image_encoder import transformer_of
from brainage.nn.registry import ROUTERS
from brainage.retrieval_config import RetrievalRecipe
from brainage.vision_config import ImageModelRecipe, VisionRecipe


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (
            {"model": {"rank": 200}},
            BrainAgeRecipe,
            "model.rank = 200: must be smaller than dim (128) for the router ermoe.",
        ),
        (
            {"model": {"patch": 5}},
            VisionRecipe,
            "model: patch (5) must divide image_size (64).",
        ),
        ({"model": {"ranks": 3}}, VisionRecipe, "model.ranks = 3: is no setting of this recipe."),
        (
            {"model": {"router": "cosine", "router_settings": {"capacity_factor": 1.5}}},
            VisionRecipe,
            "model: router_settings.capacity_factor is a setting of vmoe, not of the router cosine.",
        ),
        (
            {"model": {"router_settings": {"noise_std": 1}}},
            BrainAgeRecipe,
            "model: router_settings.noise_std is a setting of vmoe and cosine, not of the router ermoe.",
        ),
        (
            {"augment": {"mixup": 0.2}},
            RetrievalRecipe,
            "recipe: augment.mixup must be 0: a mixture of two images has no caption.",
        ),
        (
            {"train": {"folds": 0, "batch_size": 12, "devices": 5}, "crop_pct": 2},
            VisionRecipe,
            "crop_pct = 2: Input should be less than or equal to 1; train: batch_size (12) must be a "
            "multiple of devices x num_nodes x accumulate (5), since it counts the items of a whole "
            "optimiser step.",
        ),
    ],
)
def test_each_fault_is_field_value_and_rule(content, kind, said):
    with pytest.raises(ConfigError) as error:
        parse_recipe(content, kind)
    assert str(error.value) == said


def test_options_take_the_place_of_the_recipes_settings():
    recipe = VisionRecipe.model_validate({"train": {"folds": 0, "batch_size": 12, "devices": 3}})
    assert with_options(recipe, devices=None, precision=None) == recipe
    changed = with_options(recipe, devices=2, num_nodes=3, deterministic=True, precision="32-true")
    assert changed.train.model_dump(exclude_defaults=True) == {
        "folds": 0,
        "batch_size": 12,
        "devices": 2,
        "num_nodes": 3,
        "deterministic": True,
        "precision": "32-true",
    }
    with pytest.raises(ConfigError, match="accumulate"):
        with_options(recipe, accumulate=5)


@pytest.mark.parametrize("kind", [ModelRecipe, ImageModelRecipe])
def test_settings_of_a_router_are_those_of_its_layer_and_leave_other_files_alone(kind):
    assert "router_settings" not in kind().model_dump(mode="json")
    for router in ("emoe", "vmoe", "cosine"):
        own = set(inspect.signature(ROUTERS[router]).parameters) & set(RouterRecipe.model_fields)
        for name in RouterRecipe.model_fields:
            content = {"router": router, "rank": 4, "router_settings": {name: 1}}
            if name not in own:
                with pytest.raises(ConfigError, match=f"router_settings.{name} is a setting of"):
                    parse_recipe(content, kind)
                continue
            recipe = parse_recipe(content, kind)
            assert parse_recipe(recipe.model_dump(mode="json"), kind) == recipe


def test_settings_of_a_router_reach_its_layer():
    settings = {"noise_std": 0.5, "capacity_factor": 1.25, "normalize_gates": True}
    recipe = ImageModelRecipe(router="vmoe", router_settings=RouterRecipe(**settings))
    layer = transformer_of(recipe, 4).blocks[-1].feed_forward
    assert (layer.noise_std, layer.capacity_factor, layer.select.normalize_gates) == (0.5, 1.25, True)
