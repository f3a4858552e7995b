"""The image classifier and its file."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from brainage.errors import CheckpointError, ConfigError
from brainage.models.classifier_weights import (
    TrainedClassifier,
    load_classifier,
    save_classifier,
)
from brainage.models.image_classifier import ImageClassifier
from brainage.models.image_encoder import patches_of
from brainage.models.model_file import model_fingerprint
from brainage.nn import no_weight_decay_parameters
from brainage.vision_config import ImageModelRecipe, VisionRecipe

SMALL = {"image_size": 8, "patch": 4, "dim": 16, "depth": 2, "num_heads": 2, "hidden_dim": 16}
SMALL |= {"moe_blocks": (1,), "num_experts": 4, "rank": 3}


def classifier(**settings):
    torch.manual_seed(0)
    model = ImageClassifier(ImageModelRecipe(**{**SMALL, **settings}), 5).eval()
    torch.nn.init.normal_(model.head.weight)
    return model


def test_patches_by_hand():
    # Channel 0 is 0..15 row by row, channel 1 that plus 100: the first patch of 2 x 2 holds 0, 1, 4, 5.
    images = torch.arange(16.0).view(1, 1, 4, 4) + torch.tensor([0.0, 100.0]).view(1, 2, 1, 1)
    patches = patches_of(images, 2)
    assert patches[0, 0].tolist() == [0, 1, 4, 5, 100, 101, 104, 105]
    assert patches[0, 1].tolist() == [2, 3, 6, 7, 102, 103, 106, 107]


@pytest.mark.parametrize("router", ["ermoe", "emoe", "vmoe", "cosine", "soft", "dense"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_every_router_and_pooling(router, pooling):
    model = classifier(router=router, pooling=pooling)
    images = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    output = model(images)
    assert output.logits_BC.shape == (3, 5)
    assert output.routing[0].scores_BNE.shape[1] == (5 if pooling == "cls" else 4)
    # Images do not see each other.
    torch.testing.assert_close(model(images[1:2]).logits_BC, output.logits_BC[1:2])


def test_begins_with_equal_classes_and_normalises():
    torch.manual_seed(0)
    model = ImageClassifier(ImageModelRecipe(**SMALL), 5)
    assert not model(torch.zeros(2, 3, 8, 8)).logits_BC.any()
    model = classifier()
    shifted = classifier(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    images = torch.rand(2, 3, 8, 8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.recipe.mean, model.recipe.std))
    torch.testing.assert_close(model(images * 255).logits_BC, shifted((images - mean) / std * 255).logits_BC)


def test_active_width_follows_the_recipe():
    layer = classifier(router="vmoe", expert_hidden_dim=7).encoder.transformer.blocks[1].feed_forward
    assert layer.experts.first_EHD.shape == (4, 7, 16)


def test_wrong_shapes_and_sizes_are_named():
    with pytest.raises(ConfigError, match="images_BCHW"):
        classifier()(torch.zeros(1, 3, 9, 9))
    with pytest.raises(ConfigError, match="num_classes"):
        ImageClassifier(ImageModelRecipe(**SMALL), 1)
    for wrong in ({"patch": 3}, {"num_heads": 3}, {"moe_blocks": (2,)}, {"router": "soft", "balancing": 0.1}):
        with pytest.raises(ValidationError):
            ImageModelRecipe(**{**SMALL, **wrong})


def saved(path):
    model = classifier()
    recipe = VisionRecipe(model=model.recipe)
    facts = {"fingerprint": model_fingerprint(model, model.recipe)}
    save_classifier(path, TrainedClassifier(model, recipe, ("a", "b", "c", "d", "e"), facts))
    return model


def test_file_round_trip(tmp_path):
    model = saved(tmp_path / "model.safetensors")
    loaded = load_classifier(tmp_path / "model.safetensors")
    images = torch.rand(2, 3, 8, 8) * 255
    assert torch.equal(loaded.model(images).logits_BC, model(images).logits_BC)
    assert loaded.classes == ("a", "b", "c", "d", "e")
    assert model_fingerprint(loaded.model, loaded.recipe.model) == loaded.facts["fingerprint"]
    loaded.model.head.bias.data[0] += 1
    assert model_fingerprint(loaded.model, loaded.recipe.model) != loaded.facts["fingerprint"]


def test_other_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load_classifier(tmp_path / "none.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_text("no weights")
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_classifier(text)
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other, {"format": "brainage-1"})
    with pytest.raises(CheckpointError, match="format 'brainage-1'"):
        load_classifier(other)
    whole = tmp_path / "model.safetensors"
    saved(whole)
    whole.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        load_classifier(whole)


def test_conv_stem_tells_images_apart_at_once():
    """No part of tokens or pooled vectors is the same for all images of a batch, nearly alike as they are."""
    torch.manual_seed(0)
    recipe = ImageModelRecipe(**{**SMALL, "stem": "conv", "layer_scale": 0.1, "pooled_norm": True})
    encoder = ImageClassifier(recipe, 5).encoder
    images = 120 + 10 * torch.rand(16, 3, 1, 1) + torch.rand(16, 3, 8, 8)
    tokens = encoder.embed((images / 255 - encoder.mean_C11) / encoder.std_C11)
    pooled = encoder(images).pooled_BD
    for vectors in (tokens.flatten(0, 1), pooled):
        torch.testing.assert_close(vectors.mean(dim=0), torch.zeros(16), atol=1e-5, rtol=0)
        assert 0.5 < vectors.var(dim=0).mean() < 1.1


def test_conv_stem_predicts_each_image_by_itself():
    model = classifier(stem="conv", pooled_norm=True)
    images = torch.rand(4, 3, 8, 8) * 255
    model.train()(images)
    alone = torch.cat([model.eval()(image[None]).logits_BC for image in images])
    torch.testing.assert_close(model(images).logits_BC, alone)
    exempt = no_weight_decay_parameters(model)
    assert {"encoder.embed.1.weight", "encoder.embed.1.bias"} <= exempt
    assert "encoder.embed.0.weight" not in exempt
