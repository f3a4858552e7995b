"""``brainage vision``: image classification with the same core, trained and evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainage.cli.terminal import command
from brainage.cli.training_options import (
    Accumulate,
    Deterministic,
    Devices,
    Init,
    NumNodes,
    PrecisionChoice,
    StrategyChoice,
    one_voice,
    with_options,
)
from brainage.cli.vision_inspect import DATA_HELP, experts, probe, upcycle

if TYPE_CHECKING:
    from rich.table import Table


def train(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe, such as pipelines/tiny_images_ermoe.yaml.")],
    data: Annotated[Path, typer.Option("--data", help=DATA_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of this training run.")],
    init: Init = None,
    devices: Devices = None,
    num_nodes: NumNodes = None,
    strategy: StrategyChoice = None,
    precision: PrecisionChoice = None,
    accumulate: Accumulate = None,
    deterministic: Deterministic = None,
) -> None:
    """Train an image classifier, then evaluate it on the validation images.

    Writes model.safetensors, log.csv, TensorBoard events and the files of brainage vision eval. Run again
    after an interruption, it resumes. The options on first weights, devices, precision and determinism take
    the place of the recipe's.
    """
    from brainage.cli.terminal import progress
    from brainage.config import load_recipe
    from brainage.data.images import load_images
    from brainage.predict.images import evaluate_classifier
    from brainage.train.devices import start_fabric
    from brainage.train.images_run import train_classifier
    from brainage.vision_config import VisionRecipe

    settings = with_options(
        load_recipe(recipe, VisionRecipe),
        init=init,
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy,
        precision=precision,
        accumulate=accumulate,
        deterministic=deterministic,
    )
    fabric = start_fabric(settings.train)
    with one_voice(fabric):
        size, crop = settings.model.image_size, settings.crop_pct
        workers = settings.train.workers
        images = load_images(data, "train", size, workers=workers)
        validation = load_images(data, "val", size, images.classes, crop_pct=crop, workers=workers)
        trained = train_classifier(images, validation, settings, output, progress, fabric)
    if not fabric.is_global_zero:
        return
    _tell(evaluate_classifier(trained, validation), output, per_class=False)
    typer.echo(f"Trained on {len(images)} images: {output / 'model.safetensors'}")


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="model.safetensors of brainage vision train.")],
    data: Annotated[Path, typer.Option("--data", help=DATA_HELP)],
    split: Annotated[str, typer.Option("--split", help="Which folder of --data.")] = "val",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images at a time.")] = 100,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the figures and the confusion matrix.")
    ] = None,
) -> None:
    """Top-1 and top-5 accuracy, by class, with throughput and the load of the experts.

    With -o writes evaluation.json (every figure), classes.csv, confusion.csv (a row for each true class),
    experts_by_class.csv and, for at most 50 classes, confusion.png.
    """
    from brainage.data.images import load_images
    from brainage.models.classifier_weights import load_classifier
    from brainage.predict.images import evaluate_classifier

    trained = load_classifier(checkpoint)
    images = load_images(
        data,
        split,
        trained.recipe.model.image_size,
        trained.classes,
        crop_pct=trained.recipe.crop_pct,
        workers=trained.recipe.train.workers,
    )
    _tell(evaluate_classifier(trained, images, batch_size), output, per_class=True)


def _tell(result: dict[str, Any], output: Path | None, per_class: bool) -> None:
    import numpy as np
    from rich.console import Console

    from brainage.files import write_json
    from brainage.report.confusion import MOST_CLASSES, save_confusion, save_experts_by_class

    # A thousand classes make a million numbers, which a table holds better than indented JSON.
    confusion_CC = np.asarray(result.pop("confusion"))
    if output is not None:
        write_json(output / "evaluation.json", result)
        save_confusion(output, result["classes"], confusion_CC)
        if result["routing"]:
            save_experts_by_class(output / "experts_by_class.csv", result["classes"], result["routing"])
    console = Console(highlight=False)
    if per_class and len(result["classes"]) <= MOST_CLASSES:
        console.print(_class_table(result["classes"]))
    elif per_class:
        console.print(_pair_table(result["confused"]))
    if result["routing"]:
        console.print(routing_table(result["routing"]))
    skipped = f", {len(result['skipped'])} files left out" if result["skipped"] else ""
    console.print(
        f"{result['num_images']} images{skipped}: top-1 {result['top1']:.1%}, top-{result['k']} "
        f"{result['top5']:.1%}, {result['images_per_second']:.0f} images/s",
        soft_wrap=True,
    )


def _class_table(classes: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column("class")
    for heading in ("images", "top-1"):
        table.add_column(heading, justify="right")
    table.add_column("most often taken for")
    for row in classes:
        known = row["num_images"] > 0
        other = f"{row['taken_for']} ({row['taken_share']:.0%})" if row["taken_for"] else "-"
        top1 = f"{row['top1']:.0%}" if known else "-"
        table.add_row(row["class"], str(row["num_images"]), top1, other)
    return table


def _pair_table(pairs: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(title="Most confused")
    for heading in ("class", "taken for"):
        table.add_column(heading)
    for heading in ("images", "of its class"):
        table.add_column(heading, justify="right")
    for pair in pairs:
        table.add_row(pair["class"], pair["taken_for"], str(pair["num_images"]), f"{pair['share']:.0%}")
    return table


def routing_table(layers: list[dict[str, float]], title: str = "Load of the experts") -> Table:
    """The load of the experts of each block with a mixture."""
    from rich.table import Table

    table = Table(title=title)
    headings = {
        "gini": "Gini",
        "effective_experts": "effective experts",
        "dead_experts": "without a token",
        "below_threshold": "tokens without an eligible expert",
    }
    table.add_column("block")
    for heading in headings.values():
        table.add_column(heading, justify="right")
    for layer in layers:
        cells = (f"{layer[key]:.0%}" if key == "below_threshold" else f"{layer[key]:.2g}" for key in headings)
        table.add_row(str(layer["block"]), *cells)
    return table


app = typer.Typer(
    help="Image classification with the same layers: train on a folder of images, evaluate a model.",
    no_args_is_help=True,
)
for _name, _function in (
    ("train", train),
    ("eval", evaluate),
    ("probe", probe),
    ("experts", experts),
    ("upcycle", upcycle),
):
    app.command(_name)(command(_function))
