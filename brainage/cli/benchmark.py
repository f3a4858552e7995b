"""``brainage benchmark``: contestants trained and measured on the same folds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from brainage.benchmark_config import BenchmarkRecipe
    from brainage.train.benchmark import Run
    from brainage.train.cohort import Cohort


logger = logging.getLogger("brainage")


def benchmark(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe, such as pipelines/benchmark_brain_age.yaml.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of this comparison.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder that brainage preprocess wrote.")
    ] = None,
    participants: Annotated[
        Path | None,
        typer.Option("--participants", help="participants.tsv with ages; by default the one in --data."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Make the runs of this contestant alone; repeatable.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs at the same time.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would run and about how long it would take.")
    ] = False,
    finished: Annotated[
        bool, typer.Option("--finished", help="Make no run; tabulate those that are there.")
    ] = False,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Also write the result here, as in the output folder.")
    ] = None,
) -> None:
    """Train every contestant of a recipe on the same folds, seeds and budget, and compare them.

    Keeps one JSON a run in runs/ of the output folder; called again, it makes the runs that are missing.
    Writes benchmark.json and benchmark.md. Differences to the recipe's reference are paired by subject.
    """
    from brainage.benchmark_config import BenchmarkRecipe
    from brainage.config import load_recipe
    from brainage.evaluate.benchmark import compare, read_runs
    from brainage.evaluate.benchmark_text import benchmark_markdown
    from brainage.files import replacing, write_json
    from brainage.train.benchmark import is_finished, plan

    settings = load_recipe(recipe, BenchmarkRecipe)
    if dry_run:
        _print_plan(settings, output, only or ())
        return
    if not finished:
        if data is None:
            raise typer.BadParameter("is needed to make runs", param_hint="--data")
        _make_runs(settings, data, participants, output, only or (), jobs)
    paths = [run.path(output) for run in plan(settings) if is_finished(run, settings, output)]
    labels = {name: contestant.label or name for name, contestant in settings.contestants.items()}
    result: dict[str, Any] = {"name": settings.name, "recipe": recipe.name}
    result |= compare(read_runs(paths), labels, settings.train.folds, settings.reference, settings.claim)
    for target in (output / "benchmark.json", *([json_path] if json_path else [])):
        write_json(target, result)
    text = benchmark_markdown(result)
    with replacing(output / "benchmark.md") as partial:
        partial.write_text(text, encoding="utf-8")
    typer.echo(text, nl=False)


def _make_runs(
    settings: BenchmarkRecipe,
    data: Path,
    participants: Path | None,
    output: Path,
    only: list[str] | tuple[()],
    jobs: int,
) -> None:
    from brainage.cli.terminal import progress
    from brainage.config import BrainAgeRecipe
    from brainage.train.benchmark import is_finished, plan
    from brainage.train.cohort import load_cohort
    from brainage.train.devices import start_fabric

    runs = plan(settings, only)
    of_cohort = BrainAgeRecipe(include=settings.include, preprocess=settings.preprocess, atlas=settings.atlas)
    cohort = load_cohort(data, participants, of_cohort)
    missing = [run for run in runs if not is_finished(run, settings, output, cohort.fingerprint[:16])]
    title = f"Runs ({len(runs) - len(missing)} of {len(runs)} were there)"
    fabric = start_fabric(settings.train) if jobs == 1 else None
    results = _results(missing, settings, cohort, output, jobs, fabric)
    if held := sum(not made for made in progress(results, title, len(missing))):
        logger.warning("%d runs are left to another process that is at work on them", held)


def _results(
    missing: list[Run],
    settings: BenchmarkRecipe,
    cohort: Cohort,
    output: Path,
    jobs: int,
    fabric: Fabric | None,
) -> Iterator[bool]:
    """Make runs, one seed after the other, since each needs its own augmented copies."""
    from brainage.cli.terminal import progress
    from brainage.train.benchmark import execute
    from brainage.train.benchmark_data import prepare
    from brainage.train.pool import in_processes

    for seed in settings.seeds:
        mine = [run for run in missing if run.seed == seed]
        networks = any(settings.contestants[run.name].is_network for run in mine)
        if not mine:
            continue
        material = prepare(cohort, settings, [seed] if networks else [], output, progress)
        if jobs > 1:
            yield from in_processes(execute, [(run, settings, material, output) for run in mine], jobs)
            continue
        for run in mine:
            yield execute(run, settings, material, output, fabric=fabric)


def _print_plan(settings: BenchmarkRecipe, output: Path, only: list[str] | tuple[()]) -> None:
    from rich.console import Console
    from rich.table import Table

    from brainage.train.benchmark import is_finished, plan
    from brainage.train.benchmark_cost import seconds_per_run

    runs = plan(settings, only)
    left = [run for run in runs if not is_finished(run, settings, output)]
    table = Table("contestant", "runs", "left", "seconds a run", "from", title=settings.name)
    total = 0.0
    for name in dict.fromkeys(run.name for run in runs):
        mine, todo = ([run for run in some if run.name == name] for some in (runs, left))
        seconds, source = seconds_per_run(settings, name, [run.path(output) for run in mine])
        total += seconds * len(todo)
        table.add_row(name, str(len(mine)), str(len(todo)), f"{seconds:.1f}", source)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{len(left)} of {len(runs)} runs are left, about {total / 60:.0f} minutes in one process.")
