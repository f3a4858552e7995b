"""What a recipe that breaks rules is told."""

from __future__ import annotations

import pytest

from brainage.cli.device_options import with_options
from brainage.config import BrainAgeRecipe, parse_recipe
from brainage.errors import ConfigError
from brainage.retrieval_config import RetrievalRecipe
from brainage.vision_config import VisionRecipe


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
