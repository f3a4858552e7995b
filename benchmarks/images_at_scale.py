"""Memory and speed of the ImageNet and COCO tracks on drawn data of their layout and size of label space.

    python benchmarks/images_at_scale.py --json docs/results/images_at_scale.json

*ImageNet*: 1,000 class folders of drawn JPEGs, decoded when needed, through the shipped recipe, a few steps
with smaller batches. *COCO*: recall of 5,000 images and 25,010 captions with random vectors, at once and in
blocks of 1,000. Images and vectors are drawn, so no accuracy means anything; the time for a whole training is
the measured rate times the number of images, nothing else.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from brainage.config import load_recipe
from brainage.data import images as image_folders
from brainage.evaluate.retrieval import recall_table
from brainage.files import write_json
from brainage.models.image_classifier import ImageClassifier
from brainage.resources import resource as shipped
from brainage.train.devices import start_fabric
from brainage.train.images import ImageTask
from brainage.vision_config import VisionRecipe

IMAGENET_IMAGES = 1_281_167
COCO_IMAGES, COCO_CAPTIONS = 5_000, 25_010


def peak_gib() -> float:
    """Largest memory of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def imagenet(folder: Path, batch: int, steps: int) -> dict[str, Any]:
    """Train the smallest ImageNet recipe for a few steps on 1,000 drawn classes."""
    rng = np.random.default_rng(0)
    for number in range(1000):
        place = folder / "train" / f"n{number:08}"
        place.mkdir(parents=True)
        values = rng.integers(0, 255, (8, 10, 3), dtype=np.uint8)
        Image.fromarray(values).resize((500, 400)).save(place / "0.jpeg", quality=90)
    recipe = load_recipe(shipped("pipelines/imagenet_ermoe_ti16.yaml"), VisionRecipe)
    train = recipe.train.model_copy(
        update={"batch_size": batch, "workers": 0, "precision": "32-true", "accelerator": "cpu"}
    )
    recipe = recipe.model_copy(update={"train": train})
    image_folders.MEMORY_LIMIT = 0
    loaded = image_folders.load_images(folder, "train", recipe.model.image_size)
    fabric = start_fabric(train)
    model = ImageClassifier(recipe.model, len(loaded.classes))
    task = ImageTask(model, loaded, recipe)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batches = task.batches(fabric, 0)
    times, decoding = [], []
    for _ in range(steps + 1):
        start = time.perf_counter()
        drawn = next(batches)
        decoding.append(time.perf_counter() - start)
        task.loss(model, drawn).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    rate = batch / float(np.median(times[1:]))
    return {
        "classes": len(loaded.classes),
        "batch": batch,
        "images_per_second": rate,
        "share_of_decoding": float(np.median(decoding[1:]) / np.median(times[1:])),
        "peak_gib": peak_gib(),
        "days_for_300_epochs": IMAGENET_IMAGES * 300 / rate / 86400,
    }


def coco(dim: int) -> list[dict[str, Any]]:
    """Recall of random vectors."""
    rng = np.random.default_rng(0)
    owner = np.sort(
        np.concatenate((np.repeat(np.arange(COCO_IMAGES), 5), np.arange(COCO_CAPTIONS - 5 * COCO_IMAGES)))
    )
    image, caption = (
        rng.normal(size=(count, dim)).astype(np.float32) for count in (COCO_IMAGES, COCO_CAPTIONS)
    )
    for vectors in (image, caption):
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = []
    for block in (1000, None):
        start = time.perf_counter()
        table = recall_table(image, caption, owner, block)
        seconds = time.perf_counter() - start
        rows.append(
            {"block": block, "seconds": seconds, "peak_gib": peak_gib(), "captions": table["captions"]}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "coco": coco(256)}
    with tempfile.TemporaryDirectory() as scratch:
        result["imagenet"] = imagenet(Path(scratch), options.batch, options.steps)
    Console().print_json(json.dumps(result))
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
