"""``brainage retrieval zero-shot``: classes told by their names alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PROMPTS = ["a photo of a {}.", "there is a {} in the picture."]


def zero_shot(
    checkpoint: Annotated[Path, typer.Argument(help="model.safetensors of brainage retrieval train.")],
    data: Annotated[Path, typer.Option("--data", help="Folder that holds val/<class>/.")],
    split: Annotated[str, typer.Option("--split", help="Which folder of --data.")] = "val",
    prompt: Annotated[
        list[str], typer.Option("--prompt", help="Sentence with {} for the name; may be given several times.")
    ] = PROMPTS,
    names: Annotated[
        Path | None,
        typer.Option("--names", help="A line a class, sorted by folder; by default the folders' own names."),
    ] = None,
) -> None:
    """Classify images by the sentence about a class's name that lies nearest."""
    from rich.console import Console
    from rich.table import Table

    from brainage.cli.terminal import logger
    from brainage.data.images import load_images
    from brainage.errors import InputError
    from brainage.models.dual_encoder_weights import load_retriever
    from brainage.predict.image_probe import zero_shot as classify

    trained = load_retriever(checkpoint)
    workers = trained.recipe.train.workers
    images = load_images(data, split, trained.recipe.image.image_size, workers=workers)
    words = [name.replace("_", " ") for name in images.classes]
    if names is None and all(name.isdigit() for name in images.classes):
        logger.warning("The classes have numbers for names, which no caption tells of: give --names")
    if names is not None:
        try:
            words = names.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(names, "no readable text", "a line for each class", "check the path") from error
        words = [line.strip() for line in words if line.strip()]
    result = classify(trained, images, words, prompt)
    table = Table()
    table.add_column("class")
    table.add_column("top-1", justify="right")
    for row in result["classes"]:
        table.add_row(row["class"], "-" if row["top1"] is None else f"{row['top1']:.0%}")
    console = Console(highlight=False)
    console.print(table)
    skipped = f", {len(result['skipped'])} files left out" if result["skipped"] else ""
    console.print(f"{result['num_images']} images{skipped}: top-1 {result['top1']:.1%}")
