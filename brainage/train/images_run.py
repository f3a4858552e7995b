"""A whole training of an image classifier, to the file that evaluation needs."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from lightning.fabric import Fabric

from brainage.data.images import ImageSource
from brainage.models.classifier_weights import TrainedClassifier, save_classifier
from brainage.models.image_classifier import ImageClassifier
from brainage.models.model_file import model_fingerprint
from brainage.train.devices import start_fabric
from brainage.train.fit import Progress, fit, quiet
from brainage.train.images import ImageTask
from brainage.train.initial_weights import origin
from brainage.train.same_run import claim, digest
from brainage.train.versions import versions
from brainage.vision_config import VisionRecipe


def train_classifier(
    train: ImageSource,
    validation: ImageSource,
    recipe: VisionRecipe,
    out: Path,
    progress: Progress = quiet,
    fabric: Fabric | None = None,
) -> TrainedClassifier:
    """Train in ``out``, going on after an interruption, and write ``model.safetensors``.

    Raises:
        ConfigError: the recipe does not fit.
        CheckpointError: ``out`` holds another training, or ``init`` names no model.
    """
    fabric = fabric or start_fabric(recipe.train)
    first = origin(recipe.init)
    claim(out, recipe, {"images": len(train), "classes": digest(train.classes), "init": first}, fabric)
    torch.manual_seed(recipe.train.seed)
    task = ImageTask(ImageClassifier(recipe.model, len(train.classes)), train, recipe, validation)
    model = cast(ImageClassifier, fit(task, recipe.train, out, progress, fabric)).cpu().eval()
    facts = {
        "name": recipe.name,
        "fingerprint": model_fingerprint(model, model.recipe),
        "num_images": len(train),
        "num_skipped": len(train.skipped),
        "init": first,
        "versions": versions("torch", "pillow"),
    }
    trained = TrainedClassifier(model, recipe, train.classes, facts)
    if fabric.is_global_zero:
        save_classifier(out / "model.safetensors", trained)
    fabric.barrier()
    return trained
