"""Why a convolutional stem is normalised over the batch: what is constant in its tokens, and what is learned.

    python benchmarks/conv_stem.py --data ../shared/data/tiny_imagenet_40 --json docs/results/conv_stem.json

``--data`` has ImageNet's layout; only ``train`` is read, and a tenth of each of its classes is held out.
The dense control of ``pipelines/tiny_images_dense.yaml`` is trained for few epochs, with one part after
another of what that recipe has. *Constant* is the share of a mean square that is the same in all images,
before training: of the tokens, and of their mean behind the transformer, which the head reads. Top-1 is that
of the averaged weights on the held-out images; one seed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from brainage.config import parse_recipe
from brainage.data.images import Images, load_images
from brainage.files import write_json
from brainage.models.image_classifier import ImageClassifier
from brainage.train.fit import fit
from brainage.train.images import ImageTask, predict_logits, top_k_hits
from brainage.vision_config import VisionRecipe

MODEL: dict[str, Any] = {
    "image_size": 64,
    "patch": 16,
    "stem": "conv",
    "dim": 128,
    "depth": 4,
    "num_heads": 4,
    "hidden_dim": 256,
    "moe_blocks": [2, 3],
    "router": "dense",
}
TRAIN = {"folds": 0, "batch_size": 50, "lr": 2e-3, "warmup": 0.1, "ema": 0.98, "precision": "32-true"}
VARIANTS: dict[str, dict[str, Any]] = {
    "normalised over each image": {},
    "over the batch": {},
    "and the pooled vector": {"pooled_norm": True},
    "and layer scale": {"pooled_norm": True, "layer_scale": 0.1},
}
"""Settings of the model; the first variant has its stem replaced."""
HELD_OUT = 10


def normalise_each_image(stem: nn.Sequential) -> None:
    """Take the batch out of a stem: as it was before, group norms and bare tokens."""
    for place, layer in enumerate(stem):
        if isinstance(layer, nn.BatchNorm2d):
            last = place == len(stem) - 1
            stem[place] = nn.Identity() if last else nn.GroupNorm(1, layer.num_features)


def constant_share(vectors_ND: Tensor) -> float:
    """Share of the mean square of vectors that lies in their mean."""
    return float(vectors_ND.mean(dim=0).square().mean() / vectors_ND.square().mean())


def run(name: str, epochs: int, train: Images, held_out: Images) -> dict[str, Any]:
    """Look at one variant before training, train and measure it."""
    content = {"name": name, "model": MODEL | VARIANTS[name], "augment": {"scale": 0.6}}
    recipe = parse_recipe({**content, "train": {**TRAIN, "epochs": epochs}}, VisionRecipe)
    torch.manual_seed(0)
    model = ImageClassifier(recipe.model, len(train.classes))
    encoder = model.encoder
    if name == next(iter(VARIANTS)):
        normalise_each_image(encoder.embed)
    with torch.no_grad():
        images = train.pixels_NCHW[:: max(1, len(train) // 200)].float()
        tokens = encoder.embed((images / 255 - encoder.mean_C11) / encoder.std_C11)
        shares = {
            "constant_tokens": constant_share(tokens.flatten(0, 1)),
            "constant_pooled": constant_share(encoder(images).pooled_BD),
        }
    with tempfile.TemporaryDirectory() as scratch:
        trained = fit(ImageTask(model, train, recipe), recipe.train, Path(scratch, "run"))
    logits_NC, label_N = predict_logits(trained, held_out, 100)
    loss = float(nn.functional.cross_entropy(logits_NC, label_N))
    return {
        "variant": name,
        **shares,
        "loss": loss,
        "top1": float(top_k_hits(logits_NC, label_N, 1).float().mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2, help="of each run; one takes about 20 s")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures")
    options = parser.parse_args()
    images = load_images(options.data, "train", MODEL["image_size"])
    held_N = torch.arange(len(images)) % HELD_OUT == 0
    train, held_out = (
        Images(images.source.pixels_NCHW[chosen_N], images.label_N[chosen_N], images.classes, ())
        for chosen_N in (~held_N, held_N)
    )
    rows = [run(name, options.epochs, train, held_out) for name in VARIANTS]
    table = Table("variant", "constant: tokens", "pooled", "top-1", "cross-entropy", title=options.data.name)
    for row in rows:
        shares = [f"{row[name]:.2f}" for name in ("constant_tokens", "constant_pooled")]
        table.add_row(row["variant"], *shares, f"{row['top1']:.3f}", f"{row['loss']:.2f}")
    Console(width=120).print(table)
    if options.json:
        settings = {
            "model": MODEL,
            "train": TRAIN,
            "epochs": options.epochs,
            "images": [len(train), len(held_out)],
        }
        write_json(options.json, {"data": options.data.name, "settings": settings, "rows": rows})


if __name__ == "__main__":
    main()
