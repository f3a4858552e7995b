"""Every router in a small vision transformer on images, trained from scratch with the same budget.

    python benchmarks/routers_on_images.py --data ../shared/data/tiny_imagenet_40 --out images \\
        --json docs/results/routers_on_images.json

``--data`` is a folder in ImageNet's layout. All contestants share recipe, images, order, augmentation and
number of steps; there are eight experts and two per token in each of the last two blocks. Reported on the
validation images, by the averaged weights: top-1 and top-5 accuracy, and over the two mixture layers the
mean Gini coefficient of the load (Soft MoE: of the weight that tokens give) and the mean share of tokens
without an eligible expert. Milliseconds are processor time of training, which other work on the machine
lengthens.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from router_contestants import CONTESTANTS, Contestant, add_run_options, print_summary, run_all, summarise

from brainage.config import parse_recipe
from brainage.data.images import Images, load_images
from brainage.files import write_json
from brainage.models.image_classifier import ImageClassifier
from brainage.nn import RoutingRecord, expert_load
from brainage.nn.routing_stats import load_statistics
from brainage.train.fit import fit
from brainage.train.images import ImageTask, predict_logits, top_k_hits
from brainage.vision_config import VisionRecipe

SIZES: dict[str, Any] = {
    "image_size": 64,
    "patch": 16,
    "dim": 64,
    "depth": 3,
    "num_heads": 2,
    "hidden_dim": 128,
    "moe_blocks": [1, 2],
    "num_experts": 8,
    "top_k": 2,
}
RANK = 8
TRAIN = {
    "folds": 0,
    "epochs": 3,
    "batch_size": 100,
    "lr": 2e-3,
    "weight_decay": 0.05,
    "warmup": 0.1,
    "ema": 0.95,
    "precision": "32-true",
    "checkpoint_every": 100,
}
AUGMENT = {"scale": 0.6}


def recipe_of(contestant: Contestant, seed: int) -> VisionRecipe:
    """The recipe of one run."""
    model = {**SIZES, **contestant.moe, **contestant.rank(RANK, SIZES["num_experts"])}
    model["balancing"] = contestant.balancing
    content = {"name": contestant.name, "model": model, "augment": AUGMENT, "train": {**TRAIN, "seed": seed}}
    return parse_recipe(content, VisionRecipe)


def run(contestant: Contestant, seed: int, train: Images, validation: Images) -> dict[str, Any]:
    """Train one model and measure it."""
    recipe = recipe_of(contestant, seed)
    torch.manual_seed(seed)
    model = ImageClassifier(recipe.model, len(train.classes))
    with tempfile.TemporaryDirectory() as scratch:
        start = time.process_time()
        trained = fit(ImageTask(model, train, recipe), recipe.train, Path(scratch, "run"))
        milliseconds = (time.process_time() - start) / (len(train) * recipe.train.epochs) * 1000
    routing: list[list[RoutingRecord]] = []
    logits_NC, _ = predict_logits(trained, validation, 100, routing=routing)
    row = {
        **{f"top{k}": float(top_k_hits(logits_NC, validation.label_N, k).float().mean()) for k in (1, 5)},
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
    add_run_options(parser)
    options = parser.parse_args()
    train = load_images(options.data, "train", SIZES["image_size"])
    validation = load_images(options.data, "val", SIZES["image_size"], train.classes)
    settings = {
        "sizes": SIZES,
        "rank": RANK,
        "train": TRAIN,
        "augment": AUGMENT,
        "images": [len(train), len(validation)],
        "classes": len(train.classes),
    }
    rows = run_all(CONTESTANTS, options, settings, lambda c, s: run(c, s, train, validation))
    figures = {
        "top1": ("top-1", ".3f"),
        "top5": ("top-5", ".3f"),
        "gini": ("load Gini", ".2f"),
        "below_threshold": ("no eligible expert", ".2f"),
        "milliseconds": ("ms an image", ".1f"),
    }
    more = ["loss", "score_mean", "score_spread", "score_margin", "first_gate", "parameters"]
    summary = summarise(rows, [*figures, *more])
    print_summary(summary, figures, f"{options.data.name}; mean (range of seeds)")
    if options.json:
        write_json(options.json, {"data": options.data.name, "settings": settings, "summary": summary})


if __name__ == "__main__":
    main()
