"""``brainage vision probe``, ``experts`` and ``upcycle``: what a model of images knows and how it routes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CHECKPOINT_HELP = "model.safetensors of brainage vision train."
DATA_HELP = "Folder with train/<class>/ and val/<class>/, or shards train*.tar and val*.tar of WebDataset."


def probe(
    checkpoint: Annotated[Path, typer.Argument(help=CHECKPOINT_HELP)],
    data: Annotated[Path, typer.Option("--data", help=DATA_HELP)],
    shots: Annotated[list[int], typer.Option("--shots", min=1, help="Images of each class.")] = [1, 5, 10],  # noqa: B006
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write the figures as JSON.")] = None,
) -> None:
    """Few-shot linear probes of the frozen encoder, as V-MoE reports them; the classes may be new ones."""
    from rich.console import Console
    from rich.table import Table

    from brainage.data.images import load_images
    from brainage.files import write_json
    from brainage.models.classifier_weights import load_classifier
    from brainage.predict.image_probe import probe_encoder

    trained = load_classifier(checkpoint)
    size, workers = trained.recipe.model.image_size, trained.recipe.train.workers
    crop = trained.recipe.crop_pct
    train = load_images(data, "train", size, crop_pct=crop, workers=workers)
    validation = load_images(data, "val", size, train.classes, crop_pct=crop, workers=workers)
    rows = probe_encoder(trained.model.encoder, train, validation, shots)
    if json_path is not None:
        write_json(json_path, rows)
    table = Table()
    for heading in ("images a class", "top-1", "spread (SD)", "draws"):
        table.add_column(heading, justify="right")
    for row in rows:
        spread = "-" if row["std"] is None else f"{row['std']:.1%}"
        table.add_row(str(row["shots"]), f"{row['top1']:.1%}", spread, str(row["repeats"]))
    Console(highlight=False).print(table)


def experts(
    checkpoint: Annotated[Path, typer.Argument(help=CHECKPOINT_HELP)],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG to write.")],
    block: Annotated[
        int | None,
        typer.Option(
            "--block", help="Which block, as the recipe's moe_blocks count them; by default the last of them."
        ),
    ] = None,
) -> None:
    """Draw which expert takes which patch of images: the one with the largest gate."""
    import numpy as np
    import torch

    from brainage.data.image_decoding import UNREADABLE, decode
    from brainage.errors import ConfigError, InputError
    from brainage.files import replacing
    from brainage.models.classifier_weights import load_classifier
    from brainage.predict.image_experts import expert_maps
    from brainage.report.expert_overlay import expert_overlay

    trained = load_classifier(checkpoint)
    blocks = () if trained.recipe.model.router == "dense" else sorted(set(trained.recipe.model.moe_blocks))
    chosen = blocks[-1] if block is None and blocks else block
    if chosen is None or chosen not in blocks:
        said = ", ".join(map(str, blocks)) or "none in this model"
        raise ConfigError("block", chosen, f"must be one of the blocks with experts ({said})")
    pixels = []
    for path in images:
        try:
            pixels.append(decode(path, trained.recipe.model.image_size, trained.recipe.crop_pct))
        except UNREADABLE as error:
            expected = "a picture such as JPEG or PNG"
            raise InputError(path, "no readable image", expected, "leave it out") from error
    pixels_NCHW = torch.from_numpy(np.stack(pixels))
    maps = expert_maps(trained.model.encoder, pixels_NCHW, blocks.index(chosen))
    names = [path.name for path in images]
    if len(set(names)) < len(names):
        names = [f"{path.absolute().parent.name}/{path.name}" for path in images]
    title = f"{trained.recipe.name}: experts of block {chosen}"
    sheet = expert_overlay([p.transpose(1, 2, 0) for p in pixels], list(maps), names, title=title)
    with replacing(output) as partial:
        sheet.save(partial, format="PNG")
    typer.echo(f"{len(images)} images with their experts in block {chosen}: {output}")


def upcycle(
    checkpoint: Annotated[Path, typer.Argument(help="Safetensors file of a published ViT or DeiT.")],
    recipe: Annotated[Path, typer.Option("--recipe", help="YAML recipe with the mixture that is wanted.")],
    data: Annotated[Path, typer.Option("--data", help=DATA_HELP)],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the upcycled model.")] = None,
    split: Annotated[str, typer.Option("--split", help="Which folder of --data to measure on.")] = "val",
) -> None:
    """Make experts of a published model's networks, and tell what accuracy that costs before fine-tuning."""
    from rich.console import Console
    from rich.table import Table

    from brainage.config import load_recipe
    from brainage.data.images import load_images
    from brainage.models.classifier_weights import TrainedClassifier, save_classifier
    from brainage.models.image_classifier import ImageClassifier
    from brainage.models.model_file import model_fingerprint
    from brainage.predict.images import evaluate_classifier
    from brainage.train.images import start_classifier
    from brainage.vision_config import VisionRecipe

    settings = load_recipe(recipe, VisionRecipe)
    images = load_images(
        data, split, settings.model.image_size, crop_pct=settings.crop_pct, workers=settings.train.workers
    )
    table = Table()
    for heading in ("model", "top-1", "top-5", "cross-entropy"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name, blocks in (("as published", ()), ("upcycled", settings.model.moe_blocks)):
        chosen = settings.model_copy(
            update={"model": settings.model.model_copy(update={"moe_blocks": blocks})}
        )
        model = ImageClassifier(chosen.model, len(images.classes))
        start_classifier(model, checkpoint)
        facts = {"name": settings.name, "fingerprint": model_fingerprint(model, chosen.model)}
        trained = TrainedClassifier(model.eval(), chosen, images.classes, facts)
        result = evaluate_classifier(trained, images)
        table.add_row(name, f"{result['top1']:.2%}", f"{result['top5']:.2%}", f"{result['loss']:.4f}")
    Console(highlight=False).print(table)
    if output is not None:
        save_classifier(output, trained)
