"""A trained dual encoder in one safetensors file, with its recipe and its tokenizer as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from tokenizers import Tokenizer

from brainage.config import parse_recipe
from brainage.models.dual_encoder import DualEncoder
from brainage.models.model_file import ModelFormat
from brainage.retrieval_config import RetrievalRecipe

FORMAT = ModelFormat(
    name="brainage-retrieval-1",
    expected="a model that brainage retrieval train wrote (model.safetensors)",
    remedy="give the model.safetensors of a run of brainage retrieval train",
)


@dataclass(frozen=True, eq=False)
class TrainedRetriever:
    """A dual encoder with the context of its training.

    Attributes:
        model: in evaluation mode.
        tokenizer: of its captions.
        recipe: it was trained by.
        facts: JSON-ready facts: numbers of images and captions, fingerprint, versions.
    """

    model: DualEncoder
    tokenizer: Tokenizer
    recipe: RetrievalRecipe
    facts: Mapping[str, Any] = field(default_factory=dict)


def save_retriever(path: str | PathLike[str], trained: TrainedRetriever) -> None:
    """Write one safetensors file in full precision, whole or not at all."""
    # The tokenizer travels along; where it and the first weights lay is nobody's business.
    recipe = trained.recipe.model_copy(update={"init": None}).model_dump(mode="json")
    recipe["tokenizer"]["path"] = None
    header = {"recipe": recipe, "tokenizer": trained.tokenizer.to_str(), "facts": dict(trained.facts)}
    FORMAT.write(path, header, trained.model.state_dict())


def load_retriever(path: str | PathLike[str]) -> TrainedRetriever:
    """Read a file that :func:`save_retriever` wrote.

    Raises:
        CheckpointError: no such file, another kind of file, a damaged one, or one whose parts disagree.
    """
    with FORMAT.reading(path) as (header, state):
        recipe = parse_recipe(header["recipe"], RetrievalRecipe)
        try:
            tokenizer = Tokenizer.from_str(header["tokenizer"])
        except Exception as error:  # the library raises bare Exceptions
            raise ValueError("no tokenizer") from error
        model = DualEncoder(recipe, len(state["text.embed.weight"]))
        model.load_state_dict(state)
        return TrainedRetriever(model.eval(), tokenizer, recipe, dict(header["facts"]))
