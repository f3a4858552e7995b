"""A trained classifier in one safetensors file, with its recipe and classes. Reading it runs no code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from brainage.config import parse_recipe
from brainage.errors import BrainageError, CheckpointError
from brainage.files import replacing
from brainage.models.image_classifier import ImageClassifier
from brainage.vision_config import VisionRecipe

FORMAT = "brainage-images-1"
_EXPECTED = "a classifier that brainage vision train wrote (model.safetensors)"


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
        "recipe": trained.recipe.model_dump(mode="json"),
        "classes": trained.classes,
        "facts": dict(trained.facts),
    }
    state = {name: value.detach().cpu().contiguous() for name, value in trained.model.state_dict().items()}
    with replacing(path) as partial:
        save_file(state, partial, {"format": FORMAT, "brainage": json.dumps(header, allow_nan=False)})


def load_classifier(path: str | PathLike[str]) -> TrainedClassifier:
    """Read a file that :func:`save_classifier` wrote.

    Raises:
        CheckpointError: no such file, another kind of file, a damaged one, or one whose parts disagree.
    """
    path = Path(path)
    remedy = "give the model.safetensors of a run of brainage vision train"
    if not path.is_file():
        raise CheckpointError(path, "no such file", _EXPECTED, remedy)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(path, "no safetensors file, or a damaged one", _EXPECTED, remedy) from error
    if metadata.get("format") != FORMAT:
        found = f"a safetensors file of the format {metadata.get('format', 'unnamed')!r}"
        raise CheckpointError(path, found, _EXPECTED, remedy)
    try:
        header = json.loads(metadata["brainage"])
        recipe = parse_recipe(header["recipe"], VisionRecipe)
        classes = tuple(map(str, header["classes"]))
        model = ImageClassifier(recipe.model, len(classes))
        model.load_state_dict(state)
        return TrainedClassifier(model.eval(), recipe, classes, dict(header["facts"]))
    except (KeyError, TypeError, ValueError, RuntimeError, BrainageError) as error:
        raise CheckpointError(path, "a model whose parts do not fit together", _EXPECTED, remedy) from error


def fingerprint_of(model: ImageClassifier) -> str:
    """Sixteen hexadecimal digits that stand for the model's recipe and weights."""
    digest = hashlib.sha256(json.dumps(model.recipe.model_dump(mode="json"), sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
