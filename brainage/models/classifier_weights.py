"""A trained classifier in one safetensors file, with its recipe and classes. Reading it runs no code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from brainage.config import parse_recipe
from brainage.models.image_classifier import ImageClassifier
from brainage.models.model_file import ModelFormat
from brainage.vision_config import VisionRecipe

FORMAT = ModelFormat(
    name="brainage-images-2",
    expected="a classifier that brainage vision train wrote (model.safetensors)",
    remedy="give the model.safetensors of a run of brainage vision train",
)


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """A classifier with the context of its training.

    Attributes:
        model: in evaluation mode.
        recipe: it was trained by.
        classes: folder names of the classes, in the order of the logits.
        facts: JSON-ready facts: number of images, fingerprint, versions.
    """

    model: ImageClassifier
    recipe: VisionRecipe
    classes: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


def save_classifier(path: str | PathLike[str], trained: TrainedClassifier) -> None:
    """Write one safetensors file in full precision, whole or not at all."""
    header = {
        # Where the first weights lay is nobody's business.
        "recipe": trained.recipe.model_copy(update={"init": None}).model_dump(mode="json"),
        "classes": trained.classes,
        "facts": dict(trained.facts),
    }
    FORMAT.write(path, header, trained.model.state_dict())


def load_classifier(path: str | PathLike[str]) -> TrainedClassifier:
    """Read a file that :func:`save_classifier` wrote.

    Raises:
        CheckpointError: no such file, another kind of file, a damaged one, or one whose parts disagree.
    """
    with FORMAT.reading(path) as (header, state):
        recipe = parse_recipe(header["recipe"], VisionRecipe)
        classes = tuple(map(str, header["classes"]))
        model = ImageClassifier(recipe.model, len(classes))
        model.load_state_dict(state)
        return TrainedClassifier(model.eval(), recipe, classes, dict(header["facts"]))
