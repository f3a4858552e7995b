"""The recipes of the 2-D track that the package ships."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from brainage.config import load_recipe
from brainage.models.dual_encoder import DualEncoder
from brainage.models.image_classifier import ImageClassifier
from brainage.retrieval_config import RetrievalRecipe
from brainage.vision_config import VisionRecipe

PIPELINES = Path(__file__).resolve().parent.parent / "pipelines"
IMAGENET = sorted(path.stem for path in PIPELINES.glob("imagenet_*.yaml"))


@pytest.mark.parametrize("router", ["ermoe", "vmoe", "dense"])
def test_small_images(router):
    recipe = load_recipe(PIPELINES / f"tiny_images_{router}.yaml", VisionRecipe)
    assert recipe.model.router == router
    model = ImageClassifier(recipe.model, 40).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64)).logits_BC.shape == (1, 40)


def test_imagenet_has_every_router_at_every_size():
    routers = ("ermoe", "emoe", "vmoe", "soft", "dense")
    assert {f"imagenet_{router}_{size}16" for router in routers for size in ("ti", "s", "b")} == set(IMAGENET)


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet(name):
    """All can be read; the smallest are built, with about as many weights as their mixtures ask for."""
    recipe = load_recipe(PIPELINES / f"{name}.yaml", VisionRecipe)
    assert f"_{recipe.model.router}_" in name
    if name.endswith("_ti16"):
        model = ImageClassifier(recipe.model, 1000)
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        assert 5 < millions < 14


@pytest.mark.parametrize("name", ["ucm", "coco", "flickr30k"])
def test_retrieval(name):
    recipe = load_recipe(PIPELINES / f"{name}_retrieval_ermoe.yaml", RetrievalRecipe)
    assert recipe.image.router == "ermoe"
    if name == "ucm":
        model = DualEncoder(recipe, recipe.tokenizer.vocabulary).eval()
        with torch.no_grad():
            size = recipe.image.image_size
            output = model(
                torch.zeros(1, 3, size, size), torch.ones(1, recipe.text.length, dtype=torch.int64)
            )
        assert output.image_BD.shape == output.text_BD.shape == (1, recipe.embed_dim)
