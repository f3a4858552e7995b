"""``brainage retrieval``: images found by text and captions by image, with the same core."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainage.cli.retrieval_zero_shot import zero_shot
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

if TYPE_CHECKING:
    from rich.table import Table

    from brainage.models.dual_encoder_weights import TrainedRetriever
    from brainage.predict.retrieval_index import Hit, Index

CAPTIONS_HELP = "Captions: Karpathy's or COCO's JSON, a JSON list, or a table of image and caption."
IMAGES_HELP = "Folder that the names in the captions start from."
MODEL_HELP = "model.safetensors of brainage retrieval train."


def train(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe, such as pipelines/ucm_retrieval_ermoe.yaml.")],
    captions: Annotated[Path, typer.Option("--captions", help=CAPTIONS_HELP)],
    images: Annotated[Path, typer.Option("--images", help=IMAGES_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of this training run.")],
    validation: Annotated[
        Path | None,
        typer.Option("--validation", help="Captions to validate on, where --captions has no split val."),
    ] = None,
    init: Init = None,
    devices: Devices = None,
    num_nodes: NumNodes = None,
    strategy: StrategyChoice = None,
    precision: PrecisionChoice = None,
    accumulate: Accumulate = None,
    deterministic: Deterministic = None,
) -> None:
    """Train a dual encoder, then measure its recall on the validation images.

    Writes model.safetensors, evaluation.json, log.csv and TensorBoard events. Run again after an
    interruption, it resumes. The options on first weights, devices, precision and determinism take
    the place of the recipe's.
    """
    from brainage.cli.terminal import progress
    from brainage.config import load_recipe
    from brainage.data.captioned_images import load_captioned
    from brainage.data.captions import has_splits
    from brainage.errors import InputError
    from brainage.evaluate.retrieval import recall_table
    from brainage.predict.retrieval import evaluate_retriever
    from brainage.retrieval_config import RetrievalRecipe
    from brainage.train.devices import start_fabric
    from brainage.train.retrieval_run import train_retriever

    settings = with_options(
        load_recipe(recipe, RetrievalRecipe),
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
        if validation is None and captions.is_file() and not has_splits(captions):
            remedy = "give the captions of other images by --validation"
            raise InputError(captions, "captions without splits", "a split to validate on", remedy)
        size, workers = settings.image.image_size, settings.train.workers
        learned = load_captioned(captions, images, "train", size, workers=workers)
        held_out = load_captioned(validation or captions, images, "val", size, workers=workers)
        trained = train_retriever(learned, held_out, settings, output, recall_table, progress, fabric)
    if not fabric.is_global_zero:
        return
    _tell(evaluate_retriever(trained, held_out), output / "evaluation.json")
    typer.echo(
        f"Trained on {len(learned)} images with {len(learned.captions)} captions: "
        f"{output / 'model.safetensors'}"
    )


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help=MODEL_HELP)],
    captions: Annotated[Path, typer.Option("--captions", help=CAPTIONS_HELP)],
    images: Annotated[Path, typer.Option("--images", help=IMAGES_HELP)],
    split: Annotated[str, typer.Option("--split", help="Of a caption file with splits.")] = "test",
    block: Annotated[
        int | None,
        typer.Option(
            "--block",
            min=1,
            help="Search blocks of that many images and average: 1000 is COCO's 1K protocol. All by default.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images at a time.")] = 100,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write every figure as JSON.")] = None,
) -> None:
    """Recall at 1, 5 and 10 and median rank, image to text and text to image."""
    from brainage.data.captioned_images import load_captioned
    from brainage.models.dual_encoder_weights import load_retriever
    from brainage.predict.retrieval import evaluate_retriever

    trained = load_retriever(checkpoint)
    workers = trained.recipe.train.workers
    loaded = load_captioned(captions, images, split, trained.recipe.image.image_size, workers=workers)
    _tell(evaluate_retriever(trained, loaded, block, batch_size), json_path)


def search(
    checkpoint: Annotated[Path, typer.Argument(help=MODEL_HELP)],
    index: Annotated[Path, typer.Option("--index", help="Folder of embeddings; built where it is missing.")],
    text: Annotated[str | None, typer.Argument(help="What to find images of.")] = None,
    image: Annotated[
        Path | None, typer.Option("--image", help="Find captions for this image instead.")
    ] = None,
    captions: Annotated[Path | None, typer.Option("--captions", help=CAPTIONS_HELP)] = None,
    images: Annotated[Path | None, typer.Option("--images", help=IMAGES_HELP)] = None,
    split: Annotated[str | None, typer.Option("--split", help="Of a caption file with splits.")] = None,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Draw the images found; needs --images.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many to find.")] = 10,
) -> None:
    """Find images for a text, or captions for an image, in an index of embeddings kept on disk."""
    from rich.console import Console

    from brainage.cli.terminal import logger
    from brainage.data.captioned_images import image_file
    from brainage.errors import ConfigError
    from brainage.files import replacing
    from brainage.models.dual_encoder_weights import load_retriever
    from brainage.predict.retrieval_index import embed_query
    from brainage.report.contact_sheet import contact_sheet

    if (text is None) == (image is None):
        raise ConfigError("TEXT", text, "give either a text or --image")
    if sheet is not None and (images is None or image is not None):
        raise ConfigError("--sheet", sheet.name, "needs a text and --images, the folder of the images found")
    trained = load_retriever(checkpoint)
    known = _index(trained, index, captions, images, split)
    query_D = embed_query(trained, text, image)
    hits = known.nearest_captions(query_D, top) if image else known.nearest_images(query_D, top)
    Console(highlight=False).print(_hit_table(hits, "caption" if image else "image"))
    if sheet is not None and images is not None:
        found = [
            (image_file(images, hit.name), f"{hit.similarity:.2f}  {Path(hit.name).name}") for hit in hits
        ]
        gone = sum(not path.is_file() for path, _ in found)
        if gone:
            logger.warning("%d of the %d images found are not in the folder of --images", gone, len(found))
        with replacing(sheet) as partial:
            contact_sheet(str(text), found).save(partial, format="PNG")


def _index(
    trained: TrainedRetriever, folder: Path, captions: Path | None, images: Path | None, split: str | None
) -> Index:
    from brainage.cli.terminal import logger
    from brainage.data.captioned_images import load_captioned
    from brainage.predict.retrieval_index import VECTORS, build_index, load_index, save_index

    if (folder / VECTORS).is_file() or captions is None or images is None:
        known = load_index(folder, str(trained.facts["fingerprint"]))
        if captions is not None:
            said = "%s holds an index of %d images already, which is searched; delete it to build it anew"
            logger.info(said, folder.name, len(known.files))
        return known
    workers = trained.recipe.train.workers
    loaded = load_captioned(captions, images, split, trained.recipe.image.image_size, workers=workers)
    built = build_index(trained, loaded)
    save_index(folder, built)
    return built


def _tell(result: dict[str, Any], json_path: Path | None) -> None:
    from rich.console import Console

    from brainage.cli.vision import routing_table
    from brainage.files import write_json

    if json_path is not None:
        write_json(json_path, result)
    console = Console(highlight=False)
    if result["routing"]:
        console.print(routing_table(result["routing"], "Load of the experts, image tower"))
    console.print(_recall_table(result))
    notes = [f"{result['images']} images", f"{result['captions']} captions"]
    if result["blocks"] > 1:
        notes.append(f"mean of {result['blocks']} blocks")
    if result["skipped"]:
        notes.append(f"{len(result['skipped'])} images left out")
    if result["captions_cut"]:
        notes.append(f"{result['captions_cut']} captions cut")
    console.print(f"{', '.join(notes)}; {result['images_per_second']:.0f} images/s", soft_wrap=True)


def _recall_table(result: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column("query")
    for heading in ("R@1", "R@5", "R@10", "median rank"):
        table.add_column(heading, justify="right")
    for way in ("image_to_text", "text_to_image"):
        recalls = (f"{result[f'{way}_r{k}']:.1%}" for k in (1, 5, 10))
        table.add_row(way.replace("_", " "), *recalls, f"{result[f'{way}_median_rank']:.1f}")
    return table


def _hit_table(hits: list[Hit], what: str) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column("")
    table.add_column(what, overflow="fold")
    table.add_column("similarity", justify="right")
    for place, hit in enumerate(hits, 1):
        table.add_row(str(place), hit.name, f"{hit.similarity:.3f}")
    return table


app = typer.Typer(
    help="Images found by text and captions by image: train a dual encoder, measure it, search with it.",
    no_args_is_help=True,
)
for _name, _function in (("train", train), ("eval", evaluate), ("search", search), ("zero-shot", zero_shot)):
    app.command(_name)(command(_function))
