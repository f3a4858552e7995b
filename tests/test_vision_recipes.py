"""The recipes for images that the package ships."""

from __future__ import annotations

import pytest
import torch

from brainage.config import load_recipe
from brainage.models.image_classifier import ImageClassifier
from brainage.vision_config import VisionRecipe


@pytest.mark.parametrize("router", ["ermoe", "vmoe", "dense"])
def test_shipped_recipe_builds_a_model_of_its_router(repository, router):
    recipe = load_recipe(repository / "pipelines" / f"tiny_images_{router}.yaml", VisionRecipe)
    assert recipe.model.router == router
    model = ImageClassifier(recipe.model, 40).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64)).logits_BC.shape == (1, 40)
