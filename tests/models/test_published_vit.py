"""Published checkpoints: the same logits as the original, resampled positions, upcycled experts."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from brainage.errors import CheckpointError, ConfigError
from brainage.models.image_classifier import ImageClassifier
from brainage.models.image_encoder import ImageEncoder
from brainage.models.published_vit import load_published
from brainage.vision_config import ImageModelRecipe

SIZES = {"image_size": 32, "patch": 8, "dim": 24, "depth": 3, "num_heads": 3, "hidden_dim": 48}
SIZES |= {"moe_blocks": (), "pooling": "cls", "norm_eps": 1e-12}
SIZES |= {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """``transformers``' ViT with random weights, and its file."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
        num_labels=7,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("vit")
    model.save_pretrained(folder)
    return model, folder / "model.safetensors"


def classifier(path, **changed):
    torch.manual_seed(1)
    model = ImageClassifier(ImageModelRecipe(**{**SIZES, **changed}), 7).eval()
    loaded = load_published(model.encoder, path)
    weight, bias = loaded.head
    model.head.load_state_dict({"weight": weight, "bias": bias})
    return model, loaded


def test_logits_equal_the_originals(original):
    model, path = original
    ours, loaded = classifier(path)
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        expected = model((images - 0.5) / 0.5).logits
        torch.testing.assert_close(ours(images * 255).logits_BC, expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.1
    assert loaded.resampled is None
    assert loaded.unused == ()


def test_timm_names_are_the_same_file(original, tmp_path):
    _, path = original
    ours, _ = classifier(path)
    names = {
        "encoder.class_token_D": "cls_token",
        "encoder.transformer.position_ND": "pos_embed",
        "encoder.embed.": "patch_embed.proj.",
        "encoder.transformer.blocks.": "blocks.",
        ".attention.query_key_value.": ".attn.qkv.",
        ".attention.output.": ".attn.proj.",
        ".feed_forward.0.": ".mlp.fc1.",
        ".feed_forward.2.": ".mlp.fc2.",
        ".norm_attention.": ".norm1.",
        ".norm_feed_forward.": ".norm2.",
        "encoder.transformer.norm.": "norm.",
    }
    timm = {}
    for name, value in ours.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        timm[name] = value.clone()
    timm["cls_token"] = timm["cls_token"][None, None]
    timm["pos_embed"] = timm["pos_embed"][None]
    timm["patch_embed.proj.weight"] = timm["patch_embed.proj.weight"].view(24, 3, 8, 8)
    save_file(timm, tmp_path / "timm.safetensors")
    again, _ = classifier(tmp_path / "timm.safetensors")
    for name, value in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_positions_are_resampled_as_the_original_does_it(original):
    model, path = original
    ours, loaded = classifier(path, image_size=48)
    assert loaded.resampled == (4, 4)
    images = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        expected = model((images - 0.5) / 0.5, interpolate_pos_encoding=True).logits
    torch.testing.assert_close(ours(images * 255).logits_BC, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("settings", "exact"),
    [
        ({"router": "ermoe", "rank": 5, "num_experts": 4}, True),
        ({"router": "ermoe", "rank": 5, "num_experts": 4, "scores": "aligned_energy"}, True),
        ({"router": "ermoe", "rank": 5, "num_experts": 4, "coupling": "independent"}, False),
        ({"router": "vmoe", "num_experts": 4, "top_k": 4}, True),
    ],
)
def test_upcycled_experts(original, settings, exact):
    _, path = original
    plain, _ = classifier(path)
    moe, loaded = classifier(path, moe_blocks=(2,), **settings)
    images = torch.rand(4, 3, 32, 32) * 255
    gap = (moe(images).logits_BC - plain(images).logits_BC).abs().max()
    assert set(loaded.upcycled) == {2}
    if exact:
        assert loaded.upcycled[2] < 1e-5
        assert gap < 1e-3
    else:
        assert loaded.upcycled[2] > 0.1


def test_without_class_token(original):
    _, path = original
    encoder = ImageEncoder(ImageModelRecipe(**{**SIZES, "pooling": "mean"}))
    assert load_published(encoder, path).unused == ()


def test_files_and_sizes_that_do_not_fit(original, tmp_path):
    _, path = original
    encoder = ImageEncoder(ImageModelRecipe(**SIZES))
    with pytest.raises(CheckpointError, match="no such file"):
        load_published(encoder, tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("x")
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_published(encoder, tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="found other weights"):
        load_published(encoder, tmp_path / "other.safetensors")
    weights = load_file(path)
    save_file({**weights, "deit.embeddings.distillation_token": torch.zeros(1)}, tmp_path / "d.safetensors")
    with pytest.raises(CheckpointError, match="two class tokens"):
        load_published(encoder, tmp_path / "d.safetensors")
    del weights["vit.encoder.layer.1.output.dense.bias"]
    save_file(weights, tmp_path / "cut.safetensors")
    with pytest.raises(CheckpointError, match=r"no weight blocks\.1\.mlp\.fc2\.bias"):
        load_published(encoder, tmp_path / "cut.safetensors")
    for changed, said in (
        ({"dim": 36}, "must be 24"),
        ({"patch": 16}, "must be 8"),
        ({"depth": 2}, "must be 3"),
        ({"hidden_dim": 32}, "must be 48"),
        ({"stem": "conv"}, "must be patch"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_published(ImageEncoder(ImageModelRecipe(**{**SIZES, **changed})), path)
    with pytest.raises(ConfigError, match="DenseLayer"):
        load_published(
            ImageEncoder(ImageModelRecipe(**{**SIZES, "router": "dense", "moe_blocks": (1,)})), path
        )
