"""Every router in a small vision transformer on images, trained from scratch with the same budget.

    python benchmarks/routers_on_images.py --data ../shared/data/tiny_imagenet_40 --out images \\
        --json docs/results/routers_on_images.json

    python benchmarks/routers_on_images.py --data ../shared/data/tiny_imagenet_40 --out conv \\
        --scale conv --first 6 --json docs/results/routers_on_images_conv.json

``--data`` is a folder in ImageNet's layout. All contestants share recipe, images, order, augmentation and
number of steps; there are eight experts and two per token in each of the last two blocks. Reported on the
validation images, by the averaged weights: top-1 and top-5 accuracy, and over the two mixture layers the
mean Gini coefficient of the load (Soft MoE: of the weight that tokens give) and the mean share of tokens
without an eligible expert. The difference to the first contestant is that of top-1, paired by image, over all
seeds, with a bootstrap over images: it holds the chance of the validation images, not that of another seed.
Milliseconds are processor time of training, which other work on the machine lengthens.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from brainage.data.images import Images, load_images
from brainage.files import write_json
from brainage.models.image_classifier import ImageClassifier
from brainage.nn import RoutingRecord, expert_load
from brainage.nn.routing_stats import load_statistics
from brainage.train.fit import fit
from brainage.train.images import ImageTask, predict_logits, top_k_hits
from brainage.vision_config import VisionRecipe

SCALES: dict[str, dict[str, Any]] = {
    "small": {
        "model": {
            "image_size": 64,
            "patch": 16,
            "dim": 64,
            "depth": 3,
            "num_heads": 2,
            "hidden_dim": 128,
            "moe_blocks": [1, 2],
        },
        "rank": 8,
        "train": {"epochs": 3, "lr": 2e-3},
    },
    "conv": {
        "model": {
            "image_size": 64,
            "patch": 16,
            "stem": "conv",
            "pooled_norm": True,
            "layer_scale": 0.1,
            "dim": 128,
            "depth": 4,
            "num_heads": 4,
            "hidden_dim": 256,
            "moe_blocks": [2, 3],
        },
        "rank": 16,
        "train": {"epochs": 4, "batch_size": 50, "lr": 2e-3, "ema": 0.98},
        "compared": (
            *("ermoe", "dense", "vmoe", "vmoe balanced", "emoe", "soft", "cosine"),
            *("ermoe, learned scores", "ermoe, not orthogonal", "ermoe balanced"),
        ),
    },
}
"""``conv`` is the model of ``pipelines/tiny_images_*.yaml``, for few epochs."""
EXPERTS = {"num_experts": 8, "top_k": 2}
TRAIN = {
    "folds": 0,
    "batch_size": 100,
    "weight_decay": 0.05,
    "warmup": 0.1,
    "ema": 0.95,
    "precision": "32-true",
    "checkpoint_every": 100,
}
AUGMENT = {"scale": 0.6}


def recipe_of(contestant: Contestant, seed: int, scale: Mapping[str, Any]) -> VisionRecipe:
    """The recipe of one run."""
    rank = contestant.rank(scale["rank"], EXPERTS["num_experts"])
    model = {**scale["model"], **EXPERTS, **contestant.moe, **rank, "balancing": contestant.balancing}
    train = {**TRAIN, **scale["train"], "seed": seed}
    content = {"name": contestant.name, "model": model, "augment": AUGMENT, "train": train}
    return parse_recipe(content, VisionRecipe)


def run(
    contestant: Contestant, seed: int, scale: Mapping[str, Any], train: Images, validation: Images
) -> dict[str, Any]:
    """Train one model and measure it."""
    recipe = recipe_of(contestant, seed, scale)
    torch.manual_seed(seed)
    model = ImageClassifier(recipe.model, len(train.classes))
    with tempfile.TemporaryDirectory() as scratch:
        start = time.process_time()
        trained = fit(ImageTask(model, train, recipe), recipe.train, Path(scratch, "run"))
        milliseconds = (time.process_time() - start) / (len(train) * recipe.train.epochs) * 1000
    routing: list[list[RoutingRecord]] = []
    logits_NC, _ = predict_logits(trained, validation, 100, routing=routing)
    hits = {k: top_k_hits(logits_NC, validation.label_N, k) for k in (1, 5)}
    row = {
        **{f"top{k}": float(hit_N.float().mean()) for k, hit_N in hits.items()},
        "hits": hits[1].int().tolist(),
        "loss": float(torch.nn.functional.cross_entropy(logits_NC, validation.label_N)),
        "milliseconds": milliseconds,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    if contestant.router == "dense":
        return row
    layers = [layer_figures(list(records), contestant) for records in zip(*routing, strict=True)]
    means = {name: sum(layer[name] for layer in layers) / len(layers) for name in layers[0]}
    return {**row, **means, "layers": layers}


def layer_figures(records: list[RoutingRecord], contestant: Contestant) -> dict[str, float]:
    """Figures of one mixture layer over all batches."""
    if contestant.router == "soft":
        load_E = torch.stack([record.gates_BNE.flatten(0, 1).sum(0) for record in records]).sum(0)
    else:
        load_E = torch.stack([expert_load(record) for record in records]).sum(0)
    scores = torch.cat([record.scores_BNE for record in records])
    best2 = scores.topk(2, dim=-1).values
    gates = torch.cat([record.gates_BNK for record in records])
    return {
        "gini": load_statistics(load_E)["gini"],
        "below_threshold": float(torch.cat([r.fallback_BN for r in records]).double().mean()),
        "score_mean": float(scores.mean()),
        "score_spread": float(scores.std(dim=-1).mean()),
        "score_margin": float((best2[..., 0] - best2[..., 1]).mean()),
        "first_gate": float(gates[..., 0].mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scale", choices=list(SCALES), default="small", help="a run: 20 s, or 2 minutes")
    add_run_options(parser)
    options = parser.parse_args()
    scale = SCALES[options.scale]
    train = load_images(options.data, "train", scale["model"]["image_size"])
    validation = load_images(options.data, "val", scale["model"]["image_size"], train.classes)
    compared = scale.get("compared", [contestant.name for contestant in CONTESTANTS])
    contestants = [next(c for c in CONTESTANTS if c.name == name) for name in compared]
    settings = {
        "sizes": {**scale["model"], **EXPERTS},
        "rank": scale["rank"],
        "train": {**TRAIN, **scale["train"]},
        "augment": AUGMENT,
        "images": [len(train), len(validation)],
        "classes": len(train.classes),
    }
    rows = run_all(contestants, options, settings, lambda c, s: run(c, s, scale, train, validation))
    figures = {
        "top1": ("top-1", ".3f"),
        "top5": ("top-5", ".3f"),
        "gini": ("load Gini", ".2f"),
        "below_threshold": ("no eligible expert", ".2f"),
        "milliseconds": ("ms an image", ".1f"),
    }
    more = ["loss", "score_mean", "score_spread", "score_margin", "first_gate", "parameters"]
    summary = summarise(rows, [*figures, *more])
    if all("hits" in row for row in rows):  # runs that are kept from before do not list them
        summary = add_differences(summary, rows, "hits")
    print_summary(summary, figures, f"{options.data.name}; mean (range of seeds)")
    if options.json:
        write_json(options.json, {"data": options.data.name, "settings": settings, "summary": summary})


if __name__ == "__main__":
    main()
