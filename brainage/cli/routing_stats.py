"""``brainage routing-stats``: how evenly and how steadily a model routes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def routing_stats(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="model.safetensors of brainage train, vision train or retrieval train; by default the "
            "shipped model."
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for routing_stats.json, .tsv and .png."),
    ] = Path("routing_stats"),
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="What to route: a folder of brainage preprocess, without it simulated brains; for a "
            "classifier the folder with val/<class>/, for a dual encoder the folder of images.",
        ),
    ] = None,
    captions: Annotated[
        Path | None, typer.Option("--captions", help="For a dual encoder: the caption file.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Scans, images or pairs to route at most.")
    ] = 32,
) -> None:
    """Load of every expert, overlap of their bases, and how much the routing changed while training.

    Prints a row for each layer with a mixture, and writes routing_stats.json (everything), routing_stats.tsv
    (this table), routing_load.tsv (one row an expert) and routing_stats.png. Stability is that of the
    snapshots which training left beside the checkpoint. Where experts are routed is not where disease is.
    """
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from brainage.cli.predict import SHIPPED
    from brainage.files import replacing, write_json
    from brainage.predict.routing import routing_content
    from brainage.report.routing import save_routing_figure
    from brainage.resources import resource

    content = routing_content(checkpoint or resource(SHIPPED), data, limit, captions)
    write_json(output / "routing_stats.json", content)
    columns = {
        "gini": "Gini",
        "gini_normalized": "normalised",
        "cv_squared": "CV²",
        "max_violation": "MaxVio",
        "entropy": "entropy",
        "effective_experts": "effective",
        "dead_experts": "dead",
        "below_threshold": "below T",
        "overlap_mean": "overlap",
        "overlap_chance": "chance",
    }
    layers = pd.DataFrame(
        [
            {"block": layer["block"], **{name: layer.get(name) for name in columns}}
            for layer in content["layers"]
        ]
    )
    load = pd.DataFrame(
        [
            {"block": layer["block"], "expert": name, "load": count, "share": share}
            for layer in content["layers"]
            # A tower of fewer experts than the other one uses the first names.
            for name, count, share in zip(content["experts"], layer["load"], layer["share"], strict=False)
        ]
    )
    for name, table in (("routing_stats", layers), ("routing_load", load)):
        with replacing(output / f"{name}.tsv") as partial:
            table.to_csv(partial, sep="\t", index=False, float_format="%.6g", na_rep="n/a")
    save_routing_figure(output / "routing_stats.png", content)

    inputs = content["inputs"]
    shown = Table(
        title=f"{content['model']} ({content['router']}), routing of {inputs['number']} {inputs['source']}"
    )
    shown.add_column("block")
    for heading in columns.values():
        shown.add_column(heading, justify="right")
    for layer in content["layers"]:
        texts = ["-" if layer.get(name) is None else f"{layer[name]:.3g}" for name in columns]
        shown.add_row(str(layer["block"]), *texts)
    console = Console(highlight=False)
    # Into a pipe or a log rich would fit the table to 80 columns and cut every number short.
    console.width = max(console.width, 110)
    console.print(shown)
    if content["stability"]:
        last = content["stability"][-1]
        same = ", ".join(f"{layer['same_first']:.1%}" for layer in last["to_previous"])
        console.print(
            f"Tokens whose first expert was the same in epochs {last['previous']} and {last['epoch']}, "
            f"by layer: {same}",
            soft_wrap=True,
        )
    else:
        console.print("No stability: training left no routing snapshots beside this checkpoint.")
    console.print(f"Figure: {output / 'routing_stats.png'}", soft_wrap=True)
