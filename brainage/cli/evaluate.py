"""``brainage evaluate``: how far predicted ages lie from chronological ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainage.cli.terminal import figure_text, interval_text

if TYPE_CHECKING:
    from rich.table import Table


def evaluate(
    ages: Annotated[Path, typer.Argument(help="The CSV that brainage predict wrote.", metavar="AGES.csv")],
    participants: Annotated[
        Path, typer.Option("--participants", help="BIDS participants.tsv with chronological ages in years.")
    ],
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write every figure as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Also write a scatter plot as PNG.")] = None,
    resamples: Annotated[int, typer.Option("--resamples", min=100, help="Bootstrap resamples.")] = 10_000,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap.")] = 0,
) -> None:
    """Compare predicted with chronological ages: MAE with its 95 % interval, beside the mean predictor.

    Figures are not corrected for age bias. Failed rows and rows without an age are counted, not compared.
    """
    from rich.console import Console

    from brainage.evaluate.ages import is_simulated, join_ages
    from brainage.evaluate.summary import evaluate_ages
    from brainage.files import write_json

    joined = join_ages(ages, participants)
    result = evaluate_ages(joined, resamples=resamples, seed=seed)
    result["simulated"] = is_simulated(participants.parent)
    if json_path is not None:
        write_json(json_path, result)
    if plot is not None:
        from brainage.report.scatter import save_age_scatter

        save_age_scatter(
            plot, joined.table["age"], joined.table["predicted_age"], simulated=result["simulated"]
        )
    console = Console(highlight=False)
    console.print(_sentence(result), soft_wrap=True)
    console.print(_headline(result))
    for key, name in (("by_age_band", "age, years"), ("by_sex", "sex"), ("by_site", "site")):
        if result[key]:
            console.print(_groups(result[key], name))


def _sentence(result: dict[str, Any]) -> str:
    cohort = "simulated cohort" if result["simulated"] else "cohort"
    parts = [f"{result['n_scans']} scans of {result['n_subjects']} subjects compared ({cohort})"]
    for key, meaning in (
        ("n_warning", "with a warning"),
        ("n_failed", "left out, no prediction"),
        ("n_without_age", "left out, no chronological age"),
        ("n_not_predicted", "participants with an age but no row"),
    ):
        if result[key]:
            parts.append(f"{meaning}: {result[key]}")
    return "; ".join([*parts, *result["notes"]]) + "."


def _headline(result: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(title="Predicted against chronological age, not corrected for age bias")
    table.add_column("")
    table.add_column("model", justify="right")
    table.add_column("mean predictor", justify="right")
    columns = (result, result["mean_predictor"])
    rows = (
        ("MAE, years", "mae", "{:.2f}"),
        ("RMSE, years", "rmse", "{:.2f}"),
        ("R²", "r2", "{:.3f}"),
        ("Pearson r", "pearson_r", "{:.3f}"),
        ("mean gap, years", "mean_gap", "{:+.2f}"),
        ("slope of gap on age", "gap_slope", "{:+.3f}"),
    )
    for name, key, form in rows:
        table.add_row(name, *(figure_text(column.get(key), form) for column in columns))
        if key == "mae":
            table.add_row("  95 % interval", *(interval_text(column) for column in columns))
    table.caption = f"Gap: predicted - chronological age. Mean predictor: {result['mean_predictor']['kind']}."
    return table


def _groups(groups: list[dict[str, Any]], name: str) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column(name)
    for heading in ("scans", "MAE, years", "95 % interval", "mean gap, years"):
        table.add_column(heading, justify="right")
    for group in groups:
        table.add_row(
            group["group"],
            str(group["n_scans"]),
            figure_text(group["mae"], "{:.2f}"),
            interval_text(group),
            figure_text(group["mean_gap"], "{:+.2f}"),
        )
    return table
