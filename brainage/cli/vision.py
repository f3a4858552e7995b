"""``brainage vision``: image classification with the same core, trained and evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainage.cli.terminal import command
from brainage.cli.vision_inspect import DATA_HELP, experts, probe, upcycle

if TYPE_CHECKING:
    from rich.table import Table


def train(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe, such as pipelines/tiny_images_ermoe.yaml.")],
    data: Annotated[Path, typer.Option("--data", help=DATA_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of this training run.")],
) -> None:
    """Train an image classifier from scratch, then evaluate it on the validation images.

    Writes model.safetensors, evaluation.json, log.csv and TensorBoard events. Run again after an
    interruption, it resumes.
    """
    from brainage.cli.terminal import progress
    from brainage.config import load_recipe
    from brainage.data.images import load_images
    from brainage.predict.images import evaluate_classifier
    from brainage.train.images_run import train_classifier
    from brainage.vision_config import VisionRecipe

    settings = load_recipe(recipe, VisionRecipe)
    size = settings.model.image_size
    workers = settings.train.workers
    images = load_images(data, "train", size, workers=workers)
    validation = load_images(data, "val", size, images.classes, crop_pct=settings.crop_pct, workers=workers)
    trained = train_classifier(images, validation, settings, output, progress)
    _tell(evaluate_classifier(trained, validation), output / "evaluation.json", per_class=False)
    typer.echo(f"Trained on {len(images)} images: {output / 'model.safetensors'}")


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="model.safetensors of brainage vision train.")],
    data: Annotated[Path, typer.Option("--data", help=DATA_HELP)],
    split: Annotated[str, typer.Option("--split", help="Which folder of --data.")] = "val",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images at a time.")] = 100,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write every figure as JSON.")] = None,
) -> None:
    """Top-1 and top-5 accuracy, by class, with throughput and the load of the experts."""
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
    _tell(evaluate_classifier(trained, images, batch_size), json_path, per_class=True)


def _tell(result: dict[str, Any], json_path: Path | None, per_class: bool) -> None:
    from rich.console import Console

    from brainage.files import write_json

    if json_path is not None:
        write_json(json_path, result)
    console = Console(highlight=False)
    if per_class:
        console.print(_class_table(result["classes"]))
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


def routing_table(layers: list[dict[str, float]]) -> Table:
    """The load of the experts of each mixture layer."""
    from rich.table import Table

    table = Table(title="Load of the experts")
    headings = {
        "gini": "Gini",
        "effective_experts": "effective experts",
        "dead_experts": "without a token",
        "below_threshold": "tokens without an eligible expert",
    }
    table.add_column("mixture layer")
    for heading in headings.values():
        table.add_column(heading, justify="right")
    for number, layer in enumerate(layers, 1):
        cells = (f"{layer[key]:.0%}" if key == "below_threshold" else f"{layer[key]:.2g}" for key in headings)
        table.add_row(str(number), *cells)
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
