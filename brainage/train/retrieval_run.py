"""A whole training of a dual encoder, to the file that evaluation and search need."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from lightning.fabric import Fabric

from brainage.data.captioned_images import CaptionedImages
from brainage.data.tokenizer import tokenizer_of, vocabulary_of
from brainage.models.dual_encoder import DualEncoder
from brainage.models.dual_encoder_weights import TrainedRetriever, save_retriever
from brainage.models.model_file import model_fingerprint
from brainage.retrieval_config import RetrievalRecipe
from brainage.train.devices import start_fabric
from brainage.train.fit import Progress, fit, quiet
from brainage.train.initial_weights import origin
from brainage.train.retrieval import Measure, RetrievalTask
from brainage.train.same_run import claim, digest
from brainage.train.versions import versions


def train_retriever(
    train: CaptionedImages,
    validation: CaptionedImages,
    recipe: RetrievalRecipe,
    out: Path,
    measure: Measure | None = None,
    progress: Progress = quiet,
    fabric: Fabric | None = None,
) -> TrainedRetriever:
    """Train in ``out``, going on after an interruption, and write ``model.safetensors``.

    Args:
        train: to learn from.
        validation: to report the recall on.
        recipe: of model, augmentation and optimisation.
        out: folder of this run.
        measure: the recall, such as :func:`brainage.evaluate.retrieval.recall_table`.
        progress: shows how far the epochs are.
        fabric: of :func:`~brainage.train.devices.start_fabric`; started here by default.

    Raises:
        ConfigError: the recipe does not fit.
        InputError: the recipe's tokenizer cannot be read.
        CheckpointError: ``out`` holds another training, or ``init`` names no model.
    """
    fabric = fabric or start_fabric(recipe.train)
    first = origin(recipe.init)
    claim(out, recipe, {"images": len(train), "captions": digest(train.captions), "init": first}, fabric)
    tokenizer = tokenizer_of(recipe.tokenizer, train.captions)
    torch.manual_seed(recipe.train.seed)
    task = RetrievalTask(
        DualEncoder(recipe, vocabulary_of(tokenizer)), tokenizer, train, recipe, validation, measure
    )
    model = cast(DualEncoder, fit(task, recipe.train, out, progress, fabric)).cpu().eval()
    facts = {
        "name": recipe.name,
        "fingerprint": model_fingerprint(model, recipe.model_copy(update={"init": None})),
        "num_images": len(train),
        "num_captions": len(train.captions),
        "num_skipped": len(train.skipped),
        "init": first,
        "versions": versions("torch", "pillow", "tokenizers"),
    }
    trained = TrainedRetriever(model, tokenizer, recipe, facts)
    if fabric.is_global_zero:
        save_retriever(out / "model.safetensors", trained)
    fabric.barrier()
    return trained
