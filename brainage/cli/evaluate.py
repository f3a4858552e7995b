"""``brainage evaluate``: how far predicted ages lie from chronological ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainage.cli.terminal import figure_text, interval_text

if TYPE_CHECKING:
    from rich.table import Table

# Figure, its name, its format.
_FIGURES = (
    ("mae", "MAE, years", "{:.2f}"),
    ("rmse", "RMSE, years", "{:.2f}"),
    ("r2", "R²", "{:.3f}"),
    ("pearson_r", "Pearson r", "{:.3f}"),
    ("mean_gap", "mean gap, years", "{:+.2f}"),
    ("gap_slope", "slope of gap on age", "{:+.3f}"),
)


def evaluate(
    ages: Annotated[
        Path | None, typer.Argument(help="The CSV that brainage predict wrote.", metavar="AGES.csv")
    ] = None,
    participants: Annotated[
        Path | None,
        typer.Option(
            "--participants",
            help="BIDS participants.tsv with chronological ages in years; by default the CSV's column age.",
        ),
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write every figure as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Also write a scatter plot as PNG.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Also write a page, one HTML file.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", help="Two such files, A and B: the difference of their errors."),
    ] = None,
    column: Annotated[
        str, typer.Option("--column", help="Of the predictions, such as ermoe_ba in cv_predictions.csv.")
    ] = "predicted_age",
    resamples: Annotated[int, typer.Option("--resamples", min=100, help="Bootstrap resamples.")] = 10_000,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap.")] = 0,
) -> None:
    """Compare predicted with chronological ages: figures with 95 % intervals, beside the mean predictor.

    By age band, sex and site; with raw and corrected gaps, coverage of the prediction intervals, agreement of
    repeated scans, and the TRIPOD+AI items it can fill. Headline figures are not corrected for age bias.
    Failed rows and rows without an age are counted, not compared.
    """
    from brainage.evaluate.ages import is_simulated, join_ages
    from brainage.evaluate.summary import evaluate_ages
    from brainage.files import write_json

    simulated = participants is not None and is_simulated(participants.parent)
    if compare is not None and ages is None:
        if plot is not None:
            raise typer.BadParameter("--plot is for one file, not for --compare")
        _compare(compare, participants, column, json_path, html, simulated, resamples, seed)
        return
    if ages is None or compare is not None:
        raise typer.BadParameter("give either AGES.csv or --compare A.csv B.csv")
    joined = join_ages(ages, participants, column)
    result = evaluate_ages(joined, resamples=resamples, seed=seed)
    result["simulated"] = simulated
    if json_path is not None:
        write_json(json_path, result)
    if plot is not None:
        from brainage.report.scatter import save_age_scatter

        save_age_scatter(
            plot, joined.table["age"], joined.table["predicted_age"], simulated=result["simulated"]
        )
    if html is not None:
        from brainage.report.evaluation_page import write_evaluation_page

        write_evaluation_page(html, joined, result, title=f"Evaluation of {ages.name}")
    _print(result)


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(_sentence(result), soft_wrap=True)
    console.print(_headline(result))
    for key, name in (("by_age_band", "age, years"), ("by_sex", "sex"), ("by_site", "site")):
        if result[key]:
            console.print(_groups(result[key], name))
    for line in _further(result):
        console.print(line, soft_wrap=True)


def _compare(
    files: tuple[Path, Path],
    participants: Path | None,
    column: str,
    json_path: Path | None,
    html: Path | None,
    simulated: bool,
    resamples: int,
    seed: int,
) -> None:
    from rich.console import Console
    from rich.table import Table

    from brainage.errors import InputError
    from brainage.evaluate.ages import join_ages
    from brainage.evaluate.compare import compare_ages
    from brainage.files import write_json

    joined = [join_ages(path, participants, column) for path in files]
    try:
        found = compare_ages(*joined, resamples=resamples, seed=seed)
    except ValueError as error:
        raise InputError(
            files[1], str(error), "the same scans as in the first file", "check the ids of the two files"
        ) from error
    found |= {"name_a": files[0].name, "name_b": files[1].name, "simulated": simulated}
    if json_path is not None:
        write_json(json_path, found)
    if html is not None:
        from brainage.report.evaluation_page import write_comparison_page

        write_comparison_page(html, found)
    table = Table(title=f"A: {found['name_a']}, B: {found['name_b']}; {found['n_scans']} scans in both")
    for heading in ("", "A", "B", "A - B", "95 % interval", "p"):
        table.add_column(heading, justify="right" if heading else "left")
    for key, name, form in _FIGURES:
        row = found["figures"][key]
        interval = "-" if row["low"] is None else f"{row['low']:+.3f} to {row['high']:+.3f}"
        table.add_row(
            name,
            figure_text(row["a"], form),
            figure_text(row["b"], form),
            figure_text(row["difference"], "{:+.3f}"),
            interval,
            figure_text(row["p"], "{:.4f}"),
        )
    table.caption = f"{found['method']}. Only in A: {found['only_a']}; only in B: {found['only_b']}."
    Console(highlight=False).print(table)


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
    for heading in ("model", "95 % interval", "mean predictor"):
        table.add_column(heading, justify="right")
    mean = result["mean_predictor"]
    for key, name, form in _FIGURES:
        table.add_row(
            name,
            figure_text(result[key], form),
            interval_text(result, key, form),
            figure_text(mean.get(key), form),
        )
    table.caption = f"Gap: predicted - chronological age. Mean predictor: {mean['kind']}."
    return table


def _groups(groups: list[dict[str, Any]], name: str) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column(name)
    for heading in ("scans", "MAE, years", "95 % interval", "mean gap, years", "corrected"):
        table.add_column(heading, justify="right")
    for group in groups:
        table.add_row(
            group["group"],
            str(group["n_scans"]),
            figure_text(group["mae"], "{:.2f}"),
            interval_text(group),
            figure_text(group["mean_gap"], "{:+.2f}"),
            figure_text(group["mean_corrected_gap"], "{:+.2f}"),
        )
    return table


def _further(result: dict[str, Any]) -> list[str]:
    """Corrected gaps, coverage and agreement of repeats, a sentence each where there is one to say."""
    lines = []
    if result["corrected"]:
        found = result["corrected"]
        lines.append(
            f"Corrected gap: mean {found['mean_gap']:+.2f} years "
            f"({interval_text(found, 'mean_gap', '{:+.2f}')}), slope on age "
            f"{figure_text(found['gap_slope'], '{:+.3f}')}; by {found['line']}."
        )
    if result["coverage"]:
        found = result["coverage"]
        low, high = found["coverage_ci95"]
        promised = "" if found["level"] is None else f" of {found['level']:.0%}"
        lines.append(
            f"{found['coverage']:.1%} of the intervals{promised} hold the age ({low:.1%} to {high:.1%}); "
            f"mean width {found['mean_width']:.1f} years."
        )
    if result["retest"]:
        found = result["retest"]
        limits = f"{found['limit_low']:+.1f} to {found['limit_high']:+.1f} years"
        icc = figure_text(found["icc_2_1"], "{:.3f}")
        lines.append(
            f"{found['n_subjects']} people with two scans: ICC(2,1) {icc}, limits of agreement {limits}."
        )
    return lines
