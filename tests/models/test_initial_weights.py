"""Encoders that begin from a classifier of this package."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from brainage.errors import CheckpointError, ConfigError
from brainage.models.classifier_weights import TrainedClassifier, save_classifier
from brainage.models.image_classifier import ImageClassifier
from brainage.models.image_encoder import ImageEncoder
from brainage.models.initial_weights import load_encoder
from brainage.vision_config import ImageModelRecipe, VisionRecipe

SIZES = {"image_size": 16, "patch": 4, "stem": "conv", "pooled_norm": True, "layer_scale": 0.1, "dim": 16}
SIZES |= {"depth": 2, "num_heads": 2, "hidden_dim": 16, "moe_blocks": (1,), "num_experts": 4, "rank": 3}


def recipe(**changed: object) -> ImageModelRecipe:
    return ImageModelRecipe.model_validate({**SIZES, **changed})


def saved(path: Path, **changed: object) -> ImageClassifier:
    """A classifier with statistics of its own, and its file."""
    torch.manual_seed(0)
    settings = recipe(**changed)
    model = ImageClassifier(settings, 3)
    torch.nn.init.normal_(model.head.weight)
    model(torch.rand(8, 3, settings.image_size, settings.image_size) * 255)
    save_classifier(path, TrainedClassifier(model.eval(), VisionRecipe(model=settings), ("a", "b", "c")))
    return model


@pytest.mark.parametrize("router", ["ermoe", "vmoe", "emoe", "soft", "dense", "cosine"])
def test_the_encoder_is_the_classifiers(tmp_path: Path, router: str) -> None:
    original = saved(tmp_path / "m.safetensors", router=router)
    torch.manual_seed(1)
    encoder = ImageEncoder(recipe(router=router, drop_path=0.2, dropout=0.1, layer_scale=0.5)).eval()
    images = torch.rand(2, 3, 16, 16) * 255
    with torch.no_grad():
        expected, before = original.encoder(images).pooled_BD, encoder(images).pooled_BD
        loaded = load_encoder(encoder, tmp_path / "m.safetensors")
        torch.testing.assert_close(encoder(images).pooled_BD, expected, atol=0, rtol=0)
    assert not torch.allclose(before, expected, atol=0.1)
    assert loaded.resampled is None
    torch.testing.assert_close(loaded.head[0], original.head.weight)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_positions_are_resampled_and_the_class_token_keeps_its_own(tmp_path: Path, pooling: str) -> None:
    original = saved(tmp_path / "m.safetensors", pooling=pooling)
    ramp_NN = torch.arange(4.0).expand(4, 4)
    with torch.no_grad():
        original.encoder.transformer.position_ND[-16:] = ramp_NN.reshape(16, 1)
    settings = VisionRecipe(model=recipe(pooling=pooling))
    save_classifier(tmp_path / "m.safetensors", TrainedClassifier(original, settings, ("a", "b", "c")))
    encoder = ImageEncoder(recipe(pooling=pooling, image_size=32))
    assert load_encoder(encoder, tmp_path / "m.safetensors").resampled == (4, 4)
    position_ND = encoder.transformer.position_ND.detach()
    square_NN = position_ND[-64:, 0].reshape(8, 8)
    torch.testing.assert_close(square_NN, square_NN[:1].expand(8, 8))
    # Twice as fine, pixel centres at quarters: a ramp stays one inside, nearly so for a cubic kernel.
    torch.testing.assert_close(square_NN[0, 3:5], torch.tensor([1.25, 1.75]), atol=0.06, rtol=0)
    assert len(position_ND) == 64 + (pooling == "cls")
    if pooling == "cls":
        torch.testing.assert_close(position_ND[0], original.encoder.transformer.position_ND[0])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dim", 32),
        ("router", "vmoe"),
        ("moe_blocks", (0, 1)),
        ("mean", (0.5, 0.5, 0.5)),
        ("layer_scale", None),
    ],
)
def test_another_model_is_refused_by_the_name_of_the_setting(
    tmp_path: Path, field: str, value: object
) -> None:
    saved(tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match=rf"^{field}\b.*as in m\.safetensors"):
        load_encoder(ImageEncoder(recipe(**{field: value})), tmp_path / "m.safetensors")


def test_other_files_are_refused(tmp_path: Path) -> None:
    encoder = ImageEncoder(recipe())
    with pytest.raises(CheckpointError, match="no such file"):
        load_encoder(encoder, tmp_path / "none.safetensors")
    saved(tmp_path / "m.safetensors")
    content = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_encoder(encoder, tmp_path / "cut.safetensors")
    (tmp_path / "brain.safetensors").write_bytes(content.replace(b"brainage-images-2", b"brainage-regions9"))
    with pytest.raises(CheckpointError, match="brainage vision train"):
        load_encoder(encoder, tmp_path / "brain.safetensors")
