"""Experts by patch and by class, zero-shot classes, and their pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from brainage.data.images import Images
from brainage.data.tokenizer import learn_tokenizer
from brainage.errors import ConfigError
from brainage.models.dual_encoder import DualEncoder
from brainage.models.dual_encoder_weights import TrainedRetriever
from brainage.models.image_encoder import ImageEncoder
from brainage.nn import RoutingRecord
from brainage.predict.image_experts import expert_maps, experts_by_class
from brainage.predict.image_probe import features_of, zero_shot
from brainage.report.expert_overlay import expert_colours, expert_overlay
from brainage.retrieval_config import RetrievalRecipe
from brainage.vision_config import ImageModelRecipe

SIZES = {"image_size": 8, "patch": 4, "dim": 16, "depth": 2, "num_heads": 2, "hidden_dim": 16}
SIZES |= {"moe_blocks": (1,), "num_experts": 4, "rank": 3}


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("router", ["ermoe", "soft"])
def test_maps_are_the_first_choices_of_the_patches(pooling, router):
    torch.manual_seed(0)
    encoder = ImageEncoder(ImageModelRecipe(**{**SIZES, "pooling": pooling, "router": router})).eval()
    pixels = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    maps = expert_maps(encoder, pixels)
    first = encoder(pixels).routing[-1].experts_BNK[:, -4:, 0].reshape(3, 2, 2)
    np.testing.assert_array_equal(maps, first.numpy())
    with pytest.raises(ConfigError, match="must be one of the 1"):
        expert_maps(encoder, pixels, 1)


def test_a_dense_model_has_no_experts():
    encoder = ImageEncoder(ImageModelRecipe(**{**SIZES, "router": "dense"}))
    with pytest.raises(ConfigError, match="one of the 0"):
        expert_maps(encoder, torch.zeros(1, 3, 8, 8))


def test_experts_by_class_by_hand():
    """Two images of two tokens: class 1 gives expert 0 all; class 0 shares one token evenly."""
    experts = torch.tensor([[[0, 1], [0, 1]], [[1, 0], [1, 0]]])
    gates = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.5, 0.5]]])
    scores = torch.zeros(2, 2, 3)
    record = RoutingRecord(scores, experts, gates, scores > -1, torch.zeros(2, 2, dtype=torch.bool))
    (table,) = experts_by_class([[record]], torch.tensor([1, 0]), 2)
    np.testing.assert_allclose(table, [[0.25, 0.75, 0], [1, 0, 0]])


def test_overlay_colours_the_patches():
    image = np.full((8, 8, 3), 200, dtype=np.uint8)
    sheet = np.asarray(expert_overlay([image], [np.array([[0, 1], [2, -1]])], ["a.png"], tile=64))
    lower = sheet[2 * 10 + 64 : 2 * 10 + 128, 10:74]
    colours = expert_colours(3)
    for (row, column), expert in (((0, 0), 0), ((0, 1), 1), ((1, 0), 2)):
        found = lower[32 * row + 16, 32 * column + 16].astype(int)
        np.testing.assert_allclose(found, (colours[expert].astype(int) + 200) / 2, atol=2)
    assert (lower[48, 48] == 200).all()
    with pytest.raises(ConfigError, match="as many"):
        expert_overlay([image], [], ["a"])


def test_the_key_of_many_experts_stays_on_the_sheet():
    maps = [np.arange(12).reshape(3, 4), np.full((3, 4), 3)]
    images, names = [np.full((6, 8, 3), 255, dtype=np.uint8)] * 2, ["a", "b"]
    sheet = np.asarray(expert_overlay(images, maps, names, tile=120, title="a long title " * 3, columns=1))
    key = sheet[-(6 * 18 + 10) :].reshape(-1, 3)
    for colour in expert_colours(12):
        assert (key == colour).all(axis=1).any()


def test_zero_shot_takes_the_nearest_prompt():
    tokenizer = learn_tokenizer(["dark bright"], 300)
    tower = {name: SIZES[name] for name in SIZES if name not in ("image_size", "patch")}
    recipe = RetrievalRecipe.model_validate(
        {"image": SIZES, "text": {**tower, "length": 8, "moe_blocks": ()}, "embed_dim": 4}
    )
    torch.manual_seed(0)
    trained = TrainedRetriever(DualEncoder(recipe, tokenizer.get_vocab_size()).eval(), tokenizer, recipe)
    images = Images(torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8), torch.arange(6) % 2, ("a", "b"), ())
    result = zero_shot(trained, images, ["dark", "bright"], ["{}", "so {}"])
    swapped = zero_shot(trained, images, ["bright", "dark"], ["{}", "so {}"])
    assert result["top1"] + swapped["top1"] == pytest.approx(1)
    with pytest.raises(ConfigError, match="must hold"):
        zero_shot(trained, images, ["dark", "bright"], ["a photo"])
    with pytest.raises(ConfigError, match="must name the 2"):
        zero_shot(trained, images, ["dark"], ["{}"])
    features, labels = features_of(trained.model.image, images, 4)
    assert features.shape == (6, 16)
    assert labels.tolist() == [0, 1, 0, 1, 0, 1]
