"""Every router in the image tower of a small dual encoder, trained from scratch with the same budget.

    python benchmarks/routers_on_captions.py --captions dataset_ucm.json --images images --out RUNS \\
        --json docs/results/routers_on_captions.json

``--captions`` has the splits ``train`` and ``val``. All contestants share recipe, captions drawn, order,
augmentation and number of steps; there are eight experts and two per token in each of the last two blocks of
the image tower, the text tower is the same plain one. Reported on the validation images, all at once, by the
averaged weights: recall both ways, and over the two mixture layers the mean Gini coefficient of the load
(Soft MoE: of the weight that tokens give). The difference to the first contestant is that of text-to-image
R@10, paired by image, over all seeds, with a bootstrap over images: it holds the chance of the validation
images, not that of another seed. Milliseconds are processor time of training.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from router_contestants import (
    CONTESTANTS,
    Contestant,
    add_differences,
    add_run_options,
    print_summary,
    run_all,
    summarise,
)

from brainage.config import parse_recipe
from brainage.data.captioned_images import CaptionedImages, load_captioned
from brainage.data.tokenizer import tokenizer_of, vocabulary_of
from brainage.evaluate.retrieval import recall_table, standings
from brainage.files import write_json
from brainage.models.dual_encoder import DualEncoder
from brainage.nn import RoutingRecord
from brainage.predict.image_routing import routing_rows
from brainage.retrieval_config import RetrievalRecipe
from brainage.train.fit import fit
from brainage.train.retrieval import RetrievalTask, embed_captions, embed_images

COMPARED = ("ermoe", "dense", "vmoe balanced", "emoe", "soft", "vmoe", "ermoe, aligned energy")
WIDTH: dict[str, Any] = {"dim": 96, "num_heads": 4, "hidden_dim": 192}
IMAGE: dict[str, Any] = {
    **WIDTH,
    "image_size": 48,
    "patch": 8,
    "stem": "conv",
    "pooled_norm": True,
    "layer_scale": 0.1,
    "depth": 3,
    "moe_blocks": [1, 2],
    "num_experts": 8,
    "top_k": 2,
}
TEXT: dict[str, Any] = {**WIDTH, "length": 28, "depth": 2, "dropout": 0.1}
RANK = 12
OTHER: dict[str, Any] = {
    "tokenizer": {"vocabulary": 1000},
    "embed_dim": 128,
    "temperature": 0.1,
    "augment": {"scale": 0.4, "flip": 0.5, "turns": True},
}
TRAIN: dict[str, Any] = {
    "folds": 0,
    "epochs": 40,
    "batch_size": 105,
    "lr": 2e-3,
    "weight_decay": 0.1,
    "warmup": 0.1,
    "ema": 0.98,
    "precision": "32-true",
    "checkpoint_every": 1000,
}
EVALUATED_AT = 100
"""Images or captions in a batch of the evaluation."""


def recipe_of(contestant: Contestant, seed: int) -> RetrievalRecipe:
    """The recipe of one run."""
    image = {**IMAGE, **contestant.moe, **contestant.rank(RANK, IMAGE["num_experts"])}
    image["balancing"] = contestant.balancing
    content = {
        **OTHER,
        "name": contestant.name,
        "image": image,
        "text": TEXT,
        "train": {**TRAIN, "seed": seed},
    }
    return parse_recipe(content, RetrievalRecipe)


def run(
    contestant: Contestant, seed: int, train: CaptionedImages, held_out: CaptionedImages
) -> dict[str, Any]:
    """Train one dual encoder and measure it."""
    recipe = recipe_of(contestant, seed)
    tokenizer = tokenizer_of(recipe.tokenizer, train.captions)
    torch.manual_seed(seed)
    model = DualEncoder(recipe, vocabulary_of(tokenizer))
    with tempfile.TemporaryDirectory() as scratch:
        start = time.process_time()
        trained = fit(RetrievalTask(model, tokenizer, train, recipe), recipe.train, Path(scratch, "run"))
        milliseconds = (time.process_time() - start) / (len(train) * recipe.train.epochs) * 1000
    routing: list[list[RoutingRecord]] = []
    image_ID = embed_images(trained, held_out.pixels, EVALUATED_AT, routing=routing)
    caption_CD = embed_captions(trained, tokenizer, held_out.captions, EVALUATED_AT)
    owner_C = np.asarray(held_out.owners)
    hit_C = standings(image_ID, caption_CD, owner_C)[1].hits(10)
    row = {
        **recall_table(image_ID, caption_CD, owner_C),
        "hits": (np.bincount(owner_C, hit_C) / np.bincount(owner_C)).round(6).tolist(),
        "milliseconds": milliseconds,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    layers = routing_rows(routing, contestant.router)
    means = {name: float(np.mean([layer[name] for layer in layers])) for name in layers[0]} if layers else {}
    return {**row, **means}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    add_run_options(parser)
    options = parser.parse_args()
    size = IMAGE["image_size"]
    train, held_out = (
        load_captioned(options.captions, options.images, split, size) for split in ("train", "val")
    )
    settings = {
        "image": IMAGE,
        "text": TEXT,
        "rank": RANK,
        **OTHER,
        "train": TRAIN,
        "images": [len(train), len(held_out)],
        "captions": [len(train.captions), len(held_out.captions)],
    }
    by_name = {contestant.name: contestant for contestant in CONTESTANTS}
    contestants = [by_name[name] for name in COMPARED]
    rows = run_all(contestants, options, settings, lambda c, s: run(c, s, train, held_out))
    recalls = {
        f"{way}_r{k}": (f"{heading} R@{k}", ".3f")
        for way, heading in (("image_to_text", "text"), ("text_to_image", "image"))
        for k in (1, 5, 10)
    }
    figures = {**recalls, "gini": ("load Gini", ".2f"), "milliseconds": ("ms an image", ".1f")}
    more = ["text_to_image_median_rank", "image_to_text_median_rank", "below_threshold", "parameters"]
    summary = add_differences(summarise(rows, [*figures, *more]), rows, "hits")
    print_summary(summary, figures, f"{options.captions.stem}; mean (range of seeds)")
    if options.json:
        write_json(options.json, {"data": options.captions.stem, "settings": settings, "summary": summary})


if __name__ == "__main__":
    main()
