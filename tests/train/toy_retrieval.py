"""Images of one of three shapes with captions that name it; also a program that trains on them.

``python toy_retrieval.py OUT DEVICES`` trains in OUT and writes ``weights.pt``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from brainage.data.captioned_images import CaptionedImages
from brainage.data.squares import MemoryPixels
from brainage.data.tokenizer import learn_tokenizer, vocabulary_of
from brainage.models.dual_encoder import DualEncoder
from brainage.retrieval_config import RetrievalRecipe
from brainage.train.devices import start_fabric
from brainage.train.fit import fit
from brainage.train.retrieval import RetrievalTask

PLACES = ("left", "right", "below")


def drawn(count: int, seed: int) -> CaptionedImages:
    """Noise, bright at the left, at the right or below; two captions each, the last with one."""
    generator = torch.Generator().manual_seed(seed)
    pixels = 100 + 10 * torch.randn(count, 3, 8, 8, generator=generator)
    pixels[0::3, :, :4, :4] += 80
    pixels[1::3, :, :4, 4:] += 80
    pixels[2::3, :, 4:] += 80
    texts = [(f"bright {PLACES[i % 3]}", f"it shines {PLACES[i % 3]}") for i in range(count - 1)]
    texts.append((f"light {PLACES[(count - 1) % 3]}",))
    names = tuple(f"{index}.png" for index in range(count))
    return CaptionedImages(
        MemoryPixels(pixels.clamp(0, 255).to(torch.uint8)), tuple(texts), names, ("bad.png",)
    )


def recipe(**train: object) -> RetrievalRecipe:
    tower = {"dim": 16, "depth": 1, "num_heads": 2, "hidden_dim": 16, "moe_blocks": [0], "num_experts": 4}
    tower |= {"rank": 3}
    settings = {"folds": 0, "epochs": 10, "batch_size": 12, "lr": 0.01, "ema": 0.8, "precision": "32-true"}
    return RetrievalRecipe.model_validate(
        {
            "image": {**tower, "image_size": 8, "patch": 4},
            "text": {**tower, "length": 8},
            "tokenizer": {"vocabulary": 400},
            "embed_dim": 8,
            "augment": {"scale": 1, "aspect": 1, "flip": 0},
            "train": {**settings, "accelerator": "cpu", **train},
        }
    )


def main() -> None:
    out, devices = Path(sys.argv[1]), int(sys.argv[2])
    settings = recipe(epochs=2, devices=devices)
    fabric = start_fabric(settings.train)
    images = drawn(24, 0)
    tokenizer = learn_tokenizer(images.captions, 400)
    torch.manual_seed(0)
    task = RetrievalTask(DualEncoder(settings, vocabulary_of(tokenizer)), tokenizer, images, settings)
    model = fit(task, settings.train, out, fabric=fabric)
    if fabric.is_global_zero:
        torch.save(model.state_dict(), out / "weights.pt")


if __name__ == "__main__":
    main()
