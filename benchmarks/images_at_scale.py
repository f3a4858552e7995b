"""Memory and speed of the ImageNet and COCO recipes on drawn data of their layout, number and label space.

    python benchmarks/images_at_scale.py draw --data SCRATCH
    python benchmarks/images_at_scale.py imagenet --data SCRATCH --json docs/results/images_at_scale.json
    python benchmarks/images_at_scale.py coco --data SCRATCH --json docs/results/images_at_scale.json

*imagenet*: 1,281,167 files of 1,000 classes are listed; each recipe of ``--recipe`` then goes through the
package's own training loop for a few steps, decoding with its own augmentation, to a checkpoint. *coco*:
dataset_coco.json of 616,797 captions, of which the test split has 25,010; the tokenizer is learned, all
captions are encoded, the recipe trains for a few steps, and the recall of 25,010 random vectors is computed.

Images and captions are drawn, so no accuracy means anything. Three things differ from the recipes: the batch
(``--batch``), float32 on the CPU instead of bf16 on GPUs, and decoding without workers, so that its share can
be told. A whole training is extrapolated as the measured rate times the images of all epochs, nothing else;
what a GPU would do is not measured. Each part runs in a process of its own: its peak memory is its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from at_scale_cost import Forward, forward_flops, saved_bytes, state_bytes
from at_scale_data import COCO_SPLITS, IMAGENET, draw_coco, draw_imagenet
from lightning.fabric import Fabric
from rich.console import Console

from brainage.config import TrainRecipe, load_recipe
from brainage.data.captioned_images import load_captioned
from brainage.data.images import load_images
from brainage.data.tokenizer import tokenizer_of, vocabulary_of
from brainage.evaluate.retrieval import recall_table
from brainage.files import write_json
from brainage.models.dual_encoder import DualEncoder
from brainage.models.image_classifier import ImageClassifier
from brainage.resources import resource as shipped
from brainage.retrieval_config import RetrievalRecipe
from brainage.train.fit import fit
from brainage.train.images import ImageTask
from brainage.train.retrieval import RetrievalTask, embed_captions
from brainage.train.task import Task
from brainage.vision_config import VisionRecipe

RECIPES = ["ermoe_ti16", "ermoe_s16", "ermoe_b16", "dense_s16", "vmoe_s16", "emoe_s16", "soft_s16"]


def memory_gib(peak: bool = False) -> float:
    """Memory of this process, now or at its largest, GiB."""
    if peak:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**30


def timed(function: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What a function returns, with its seconds and by how much the process has grown."""
    before, start = memory_gib(), time.perf_counter()
    value = function()
    return value, {"seconds": time.perf_counter() - start, "gib": memory_gib() - before}


def brief(train: TrainRecipe, batch: int) -> TrainRecipe:
    """One short epoch on the CPU."""
    changed = {"batch_size": batch, "epochs": 1, "workers": 0, "precision": "32-true", "accelerator": "cpu"}
    return train.model_copy(update=changed)


def few_steps(task: Task, train: TrainRecipe, steps: int, forward: Forward) -> dict[str, Any]:
    """Train for a few steps through the package's loop, and measure.

    Args:
        task: of the recipe.
        train: made brief.
        steps: to measure, after one that is not.
        forward: of so many items.
    """
    task.steps_per_epoch = steps + 1
    whole = task.batches
    decoding: list[float] = []
    ends: list[float] = []

    def counted(fabric: Fabric, epoch: int) -> Iterator[Any]:
        batches = itertools.islice(whole(fabric, epoch), steps + 1)
        while True:
            ends.append(time.perf_counter())
            batch = next(batches, None)
            if batch is None:
                return
            decoding.append(time.perf_counter() - ends[-1])
            yield batch

    task.batches = counted  # type: ignore[method-assign]
    task.probe = lambda model, fabric: []  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as scratch:
        fit(task, train, Path(scratch, "run"))
        checkpoint = Path(scratch, "run", "training_state.pt").stat().st_size
    seconds = float(np.median(np.diff(ends)[1:]))
    return {
        "batch": train.batch_size,
        "steps": steps,
        "seconds_per_step": seconds,
        "images_per_second": train.batch_size / seconds,
        "share_of_decoding": float(np.median(decoding[1:])) / seconds,
        "parameters": sum(p.numel() for p in task.model.parameters()),
        "gflops_forward": forward_flops(forward) / 1e9,
        "activation_mib_float32": saved_bytes(task.model, forward) / 2**20,
        "activation_mib_bf16": saved_bytes(task.model, forward, torch.bfloat16) / 2**20,
        "training_state_gib": state_bytes(task.model) / 2**30,
        "checkpoint_gib": checkpoint / 2**30,
        "peak_gib": memory_gib(peak=True),
    }


def imagenet(folder: Path, name: str, batch: int, steps: int) -> dict[str, Any]:
    """One recipe on a thousand classes."""
    recipe = load_recipe(shipped(f"pipelines/imagenet_{name}.yaml"), VisionRecipe)
    images, listing = timed(lambda: load_images(folder, "train", recipe.model.image_size))
    epochs, train = recipe.train.epochs, brief(recipe.train, batch)
    recipe = recipe.model_copy(update={"train": train})
    torch.manual_seed(0)
    task = ImageTask(ImageClassifier(recipe.model, len(images.classes)), images, recipe)
    shape = (3, recipe.model.image_size, recipe.model.image_size)
    row = few_steps(task, train, steps, lambda count: task.model(torch.rand(count, *shape)).logits_BC.sum())
    days = IMAGENET["train"] * epochs / row["images_per_second"] / 86400
    sizes = {"images": len(images), "classes": len(images.classes), "epochs": epochs}
    return {**sizes, "listing": listing, **row, "extrapolated_days": days}


def coco(folder: Path, batch: int, steps: int) -> dict[str, Any]:
    """The COCO recipe on captions in Karpathy's form."""
    recipe = load_recipe(shipped("pipelines/coco_retrieval_ermoe.yaml"), RetrievalRecipe)
    size = recipe.image.image_size
    captions = folder / "dataset_coco.json"
    images, listing = timed(lambda: load_captioned(captions, folder, "train", size))
    tokenizer, learning = timed(lambda: tokenizer_of(recipe.tokenizer, images.captions))
    epochs, train = recipe.train.epochs, brief(recipe.train, batch)
    recipe = recipe.model_copy(update={"train": train})
    torch.manual_seed(0)
    model = DualEncoder(recipe, vocabulary_of(tokenizer))
    task, encoding = timed(lambda: RetrievalTask(model, tokenizer, images, recipe))

    def forward(count: int) -> torch.Tensor:
        ids_BN = torch.ones(count, recipe.text.length, dtype=torch.int64)
        output = model(torch.rand(count, 3, size, size), ids_BN)
        return output.image_BD.sum() + output.text_BD.sum()

    row = few_steps(task, train, steps, forward)
    texts = images.captions[:512]
    _, embedding = timed(lambda: embed_captions(model, tokenizer, texts, 128))
    learned = COCO_SPLITS["train"] + COCO_SPLITS["restval"]
    return {
        "images": len(images),
        "captions": len(images.captions),
        "vocabulary": vocabulary_of(tokenizer),
        "epochs": epochs,
        "listing": listing,
        "learning_tokenizer": learning,
        "encoding_captions": encoding,
        **row,
        "captions_embedded_per_second": len(texts) / embedding["seconds"],
        "extrapolated_days": learned * epochs / row["images_per_second"] / 86400,
    }


def recall(folder: Path) -> dict[str, Any]:
    """Recall of random vectors for the test split's images and captions, in both protocols."""
    test = load_captioned(folder / "dataset_coco.json", folder, "test", 8)
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=(count, 256)).astype(np.float32) for count in (len(test), len(test.captions))]
    image_ID, caption_CD = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in vectors)
    result: dict[str, Any] = {"images": len(test), "captions": len(test.captions), "dim": 256}
    for name, block in (("1k", 1000), ("5k", None)):
        table, taken = timed(lambda block=block: recall_table(image_ID, caption_CD, test.owners, block))
        recalled = table["text_to_image_r10"]
        result[name] = {"seconds": taken["seconds"], "blocks": table["blocks"], "text_to_image_r10": recalled}
    return {**result, "peak_gib": memory_gib(peak=True)}


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["draw", "imagenet", "coco"])
    parser.add_argument("--data", type=Path, required=True, help="folder of the drawn images")
    parser.add_argument("--recipe", action="append", help="of ImageNet, such as ermoe_s16; repeatable")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--json", type=Path, help="add the figures to this file")
    options = parser.parse_args()
    logging.getLogger("brainage").setLevel(logging.WARNING)
    if options.part == "draw":
        draw_imagenet(options.data / "imagenet")
        draw_coco(options.data / "coco")
        return
    result: dict[str, Any] = {}
    if options.json and options.json.is_file():
        result = json.loads(options.json.read_text("utf-8"))
    if options.part == "imagenet":
        for name in options.recipe or RECIPES:
            row = alone(imagenet, options.data / "imagenet", name, options.batch, options.steps)
            result.setdefault("imagenet", {})[name] = {"threads": torch.get_num_threads(), **row}
            Console().print_json(json.dumps({name: row}))
            if options.json:
                write_json(options.json, result)
    else:
        row = alone(coco, options.data / "coco", options.batch, options.steps)
        result["coco"] = {"threads": torch.get_num_threads(), **row}
        result["recall"] = {"threads": torch.get_num_threads(), **alone(recall, options.data / "coco")}
        Console().print_json(json.dumps({"coco": result["coco"], "recall": result["recall"]}))
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
