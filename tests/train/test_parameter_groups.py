"""Learning rates by depth."""

from __future__ import annotations

import pytest

from brainage.config import TrainRecipe
from brainage.models.dual_encoder import DualEncoder
from brainage.models.image_classifier import ImageClassifier
from brainage.retrieval_config import RetrievalRecipe
from brainage.train.parameter_groups import parameter_groups
from brainage.vision_config import ImageModelRecipe

TOWER = {"dim": 16, "depth": 3, "num_heads": 2, "hidden_dim": 16, "moe_blocks": (2,), "rank": 2}
IMAGE = {**TOWER, "image_size": 8, "patch": 4, "pooling": "cls"}


def rates(model, **settings):
    groups = parameter_groups(model, TrainRecipe(folds=0, lr=1.0, **settings))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    by_name = {names[id(p)]: (g.get("lr", 1.0), g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(by_name) == len(names) == sum(len(g["params"]) for g in groups)
    return by_name


def test_one_rate_makes_two_groups():
    model = ImageClassifier(ImageModelRecipe(**IMAGE), 5)
    assert len(parameter_groups(model, TrainRecipe())) == 2
    found = rates(model)
    assert found["head.weight"] == (1.0, 0.05)
    assert found["encoder.transformer.position_ND"] == (1.0, 0.0)


def test_deeper_blocks_learn_slower():
    found = rates(ImageClassifier(ImageModelRecipe(**IMAGE), 5), layer_decay=0.5)
    assert found["head.weight"][0] == 1
    assert found["encoder.transformer.norm.weight"][0] == 1
    for block, rate in ((2, 0.5), (1, 0.25), (0, 0.125)):
        assert found[f"encoder.transformer.blocks.{block}.attention.output.weight"][0] == rate
    for name in ("encoder.embed.weight", "encoder.class_token_D", "encoder.transformer.position_ND"):
        assert found[name][0] == pytest.approx(0.0625)


def test_towers_count_their_own_blocks():
    recipe = RetrievalRecipe.model_validate({"image": IMAGE, "text": {**TOWER, "depth": 1, "moe_blocks": ()}})
    found = rates(DualEncoder(recipe, 20), layer_decay=0.5)
    assert found["image.transformer.blocks.2.attention.output.weight"][0] == 0.5
    assert found["text.transformer.blocks.0.attention.output.weight"][0] == 0.5
    assert found["text.embed.weight"][0] == 0.25
    assert found["image_projection.weight"][0] == found["log_scale"][0] == 1
