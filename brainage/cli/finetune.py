"""``brainage finetune``: the shipped model adapted to another cohort."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from brainage.train.finetune import Adaptation

CALIBRATED = 9
"""Scans that a 90 % conformal interval takes at least."""


class Method(StrEnum):
    """What may change."""

    auto = "auto"
    line = "line"
    head = "head"


def finetune(
    data: Annotated[Path, typer.Option("--data", help="Folder that brainage preprocess wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the adapted model.")],
    participants: Annotated[
        Path | None,
        typer.Option("--participants", help="participants.tsv with ages; by default the one in --data."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="The model to adapt; by default the shipped one.")
    ] = None,
    method: Annotated[
        Method,
        typer.Option(
            "--method",
            help="line: predictions moved and stretched; head: its weights change too; auto: the line, "
            "unless cross-validation finds the head clearly better.",
        ),
    ] = Method.auto,
    seed: Annotated[int, typer.Option("--seed", help="Of the cross-validation.")] = 0,
) -> None:
    """Adapt a model to a cohort of healthy people of your own scanner, in seconds, without training.

    Writes model.safetensors for brainage predict --model, predictions.csv (each subject by an adaptation that
    did not see it) and finetune.json. Give healthy people only: what their gaps have in common is taken for
    the scanner and taken out. How many it takes: docs/finetuning.md.
    """
    from rich.console import Console
    from rich.table import Table

    from brainage.cli.predict import SHIPPED
    from brainage.evaluate.summary import predictor_figures
    from brainage.files import replacing, write_json
    from brainage.models.weights import load_trained, save_trained
    from brainage.resources import resource
    from brainage.train.cohort import load_cohort
    from brainage.train.finetune_run import finetune as adapt

    trained = load_trained(model or resource(SHIPPED))
    cohort = load_cohort(data, participants, trained.recipe.model_copy(update={"include": {}}))
    result = adapt(trained, cohort, method.value, seed)
    output.mkdir(parents=True, exist_ok=True)
    save_trained(output / "model.safetensors", result.trained)
    with replacing(output / "predictions.csv") as partial:
        result.predictions.to_csv(partial, index=False, float_format="%.4f")
    figures = {
        name: predictor_figures(result.predictions, result.predictions[column].to_numpy())
        for name, column in (("before", "before"), ("after", "predicted_age"))
    }
    write_json(output / "finetune.json", {**result.trained.facts, **figures})
    table = Table("method", "MAE, years")
    for name, mae in result.adaptation.error.items():
        table.add_row(f"{name} (taken)" if name == result.adaptation.method else name, f"{mae:.2f}")
    table.title = f"{result.trained.facts['num_subjects']} subjects, cross-validated by subject"
    console = Console(highlight=False)
    console.print(table)
    for said in advice(result.adaptation, len(cohort.scans)):
        console.print(said, soft_wrap=True)
    console.print(f"Adapted model: {output / 'model.safetensors'}", soft_wrap=True)


def advice(adaptation: Adaptation, scans: int) -> list[str]:
    """What the user should know before taking the adapted model."""
    said = []
    if adaptation.method != "none" and adaptation.error[adaptation.method] >= adaptation.error["none"]:
        said.append(
            "Cross-validation finds no gain over the model as it was: keep that one, or bring more people."
        )
    if scans < CALIBRATED:
        said.append(f"Fewer than {CALIBRATED} scans calibrate no interval: the adapted model has none.")
    return said
