"""Trained weights for an image encoder to begin from: this package's classifiers, or published ones."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch

from brainage.errors import ConfigError
from brainage.models.classifier_weights import load_classifier
from brainage.models.image_encoder import ImageEncoder
from brainage.models.model_file import format_name
from brainage.models.published_vit import Loaded, load_published, resample_positions
from brainage.vision_config import ImageModelRecipe

MAY_DIFFER = {"image_size", "dropout", "drop_path", "balancing", "layer_scale"}
"""Settings in which an encoder may differ from the classifier whose weights it takes."""


def load_encoder(encoder: ImageEncoder, path: str | PathLike[str]) -> Loaded:
    """Give an encoder trained weights. Reading the file runs no code.

    Args:
        encoder: its image size may differ from the file's; positions are then resampled.
        path: ``model.safetensors`` of ``brainage vision train``, whose encoder is taken as it is, router and
            experts included; or a published vision transformer, see
            :func:`~brainage.models.published_vit.load_published`.

    Raises:
        CheckpointError: no such file, or none of these.
        ConfigError: the recipe's sizes or router are not the file's.
    """
    if (format_name(path) or "").startswith("brainage"):
        return _load_trained(encoder, Path(path))
    return load_published(encoder, path)


@torch.no_grad()
def _load_trained(encoder: ImageEncoder, path: Path) -> Loaded:
    trained = load_classifier(path)
    given, wanted = trained.recipe.model, encoder.recipe
    for name in ImageModelRecipe.model_fields:
        value, expected = getattr(wanted, name), getattr(given, name)
        if name not in MAY_DIFFER and value != expected:
            raise ConfigError(name, value, f"must be {expected}, as in {path.name}")
    if (wanted.layer_scale is None) != (given.layer_scale is None):
        raise ConfigError(
            "layer_scale", wanted.layer_scale, f"must be {given.layer_scale}, as in {path.name}"
        )
    weights = trained.model.encoder.state_dict()
    resampled = None
    old, new = (recipe.image_size // recipe.patch for recipe in (given, wanted))
    if old != new:
        resampled = (old, old)
        position_ND = weights["transformer.position_ND"]
        # A class token comes before the patches.
        first_ND, patches_ND = position_ND[: -(old**2)], position_ND[-(old**2) :]
        weights["transformer.position_ND"] = torch.cat((first_ND, resample_positions(patches_ND, new)))
    encoder.load_state_dict(weights)
    head = trained.model.head
    return Loaded(resampled, (head.weight.detach(), head.bias.detach()))
