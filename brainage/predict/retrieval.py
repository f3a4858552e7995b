"""How a trained dual encoder does on images with captions."""

from __future__ import annotations

import time
from typing import Any

from lightning.fabric import Fabric

from brainage.data.captioned_images import CaptionedImages
from brainage.data.tokenizer import encode
from brainage.evaluate.retrieval import recall_table
from brainage.models.dual_encoder_weights import TrainedRetriever
from brainage.nn import RoutingRecord
from brainage.predict.image_routing import rows_by_block
from brainage.train.retrieval import embed_captions, embed_images


def evaluate_retriever(
    trained: TrainedRetriever,
    images: CaptionedImages,
    block: int | None = None,
    batch_size: int = 100,
    fabric: Fabric | None = None,
) -> dict[str, Any]:
    """Recall both ways, throughput and routing of the image tower, ready for JSON.

    Returns:
        What :func:`~brainage.evaluate.retrieval.recall_table` returns, ``skipped`` images,
        ``captions_cut`` to the text tower's length,
        ``images_per_second``, ``captions_per_second`` and ``routing``: for each ``block`` of the image tower
        with a mixture the statistics of its load and the share of tokens below the threshold.

    Raises:
        ConfigError: ``block`` exceeds the number of images.
    """
    routing: list[list[RoutingRecord]] = []
    start = time.perf_counter()
    images_ID = embed_images(trained.model, images.pixels, batch_size, fabric, routing)
    middle = time.perf_counter()
    captions_CD = embed_captions(trained.model, trained.tokenizer, images.captions, batch_size, fabric)
    end = time.perf_counter()
    return {
        **recall_table(images_ID, captions_CD, images.owners, block),
        "skipped": list(images.skipped),
        "captions_cut": encode(trained.tokenizer, images.captions, trained.recipe.text.length)[1],
        "images_per_second": len(images) / (middle - start),
        "captions_per_second": len(images.captions) / (end - middle),
        "routing": rows_by_block(routing, trained.recipe.image),
    }
