"""``brainage train``: fit ERMoE-ba to a cohort, measured by cross-validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from brainage.cli.training_options import (
    Accumulate,
    Deterministic,
    Devices,
    NumNodes,
    PrecisionChoice,
    StrategyChoice,
    one_voice,
    with_options,
)


def train(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe, such as pipelines/brain_age_t1.yaml.")],
    data: Annotated[Path, typer.Option("--data", help="Folder that brainage preprocess wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of this training run.")],
    participants: Annotated[
        Path | None,
        typer.Option("--participants", help="participants.tsv with ages; by default the one in --data."),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Folds to train at the same time, sharing the cores.")
    ] = 1,
    devices: Devices = None,
    num_nodes: NumNodes = None,
    strategy: StrategyChoice = None,
    precision: PrecisionChoice = None,
    accumulate: Accumulate = None,
    deterministic: Deterministic = None,
) -> None:
    """Cross-validate ERMoE-ba beside voxel ridge and the mean predictor, then fit it to all subjects.

    Writes model.safetensors, MODEL_CARD.md, cv_predictions.csv, summary.json and, for every fit, log.csv,
    TensorBoard events and routing snapshots. Run again after an interruption, it resumes. The options on
    devices, precision and determinism take the place of the recipe's.
    """
    from rich.console import Console
    from rich.table import Table

    from brainage.cli.terminal import figure_text, interval_text, progress
    from brainage.config import BrainAgeRecipe, load_recipe
    from brainage.evaluate.summary import predictor_figures
    from brainage.files import write_json
    from brainage.report.model_card import write_model_card
    from brainage.train.cohort import load_cohort
    from brainage.train.cross_validate import MEAN, MODEL, RIDGE
    from brainage.train.devices import start_fabric
    from brainage.train.run import train_run

    settings = with_options(
        load_recipe(recipe, BrainAgeRecipe),
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy,
        precision=precision,
        accumulate=accumulate,
        deterministic=deterministic,
    )
    fabric = start_fabric(settings.train)
    with one_voice(fabric):
        cohort = load_cohort(data, participants, settings)
        result = train_run(cohort, settings, output, jobs, progress, fabric)
    if not fabric.is_global_zero:
        return
    summary = dict(result.facts)
    console = Console(highlight=False)
    if result.predictions is not None:
        table = Table(
            title=f"{settings.train.folds}-fold cross-validation by subject, not corrected for age bias"
        )
        for heading in ("", "MAE, years", "95 % interval", "r", "slope of gap on age"):
            table.add_column(heading, justify="right" if heading else "left")
        summary["cross_validation"] = {}
        for column, name in ((MODEL, "ERMoE-ba"), (RIDGE, "voxel ridge"), (MEAN, "mean predictor")):
            figures = predictor_figures(result.predictions, result.predictions[column].to_numpy())
            summary["cross_validation"][column] = figures
            table.add_row(
                name,
                figure_text(figures["mae"], "{:.2f}"),
                interval_text(figures),
                figure_text(figures["pearson_r"], "{:.3f}"),
                figure_text(figures["gap_slope"], "{:+.3f}"),
            )
        console.print(table)
    write_json(output / "summary.json", summary)
    model = output / "model.safetensors"
    write_model_card(
        output / "MODEL_CARD.md",
        result.facts,
        settings,
        result.predictions,
        model=MODEL,
        megabytes=model.stat().st_size / 1e6,
    )
    console.print(
        f"Trained on {summary['num_subjects']} subjects: {output / 'model.safetensors'}", soft_wrap=True
    )
