"""``brainage run``: the BIDS App, from a BIDS folder to ages, maps and pages."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainage.cli.preprocess import (
    DryRun,
    Force,
    Jobs,
    Participants,
    RecipeFile,
    Scheduler,
    Sessions,
    Slurm,
    StopFirst,
    exit_for_rows,
    print_plan,
    refuse_same_folder,
    run_preprocessing,
    scans_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brainage.config import PreprocessRecipe
    from brainage.data.cohort import Scan
    from brainage.data.listing import Listing
    from brainage.data.true_ages import TrueAges
    from brainage.models.weights import TrainedModel
    from brainage.preprocess.batch import Row

AGES, MAPS, REPORTS, GROUP = "brain_ages.csv", "maps", "reports", "group"


class Level(StrEnum):
    """What a BIDS App is asked for."""

    participant = "participant"
    group = "group"


def run(
    bids_dir: Annotated[Path, typer.Argument(help="BIDS folder with T1w scans.", metavar="BIDS_DIR")],
    out_dir: Annotated[Path, typer.Argument(help="Folder for the derivatives.", metavar="OUT_DIR")],
    level: Annotated[
        Level, typer.Argument(help="participant, for each scan by itself; group, for pages about all.")
    ],
    participant_label: Participants = None,
    session_label: Sessions = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="A model.safetensors; by default the shipped one.")
    ] = None,
    recipe: RecipeFile = None,
    jobs: Jobs = None,
    force: Force = False,
    dry_run: DryRun = False,
    reports_only: Annotated[
        bool, typer.Option("--reports-only", help="Only write the pages again, from what is there.")
    ] = False,
    stop_on_first_crash: StopFirst = False,
    scheduler: Scheduler = "",
    slurm: Slurm = False,
) -> None:
    """Preprocess, predict brain ages with maps, and report, as a BIDS App.

    participant: fills OUT_DIR with derivatives, brain_ages.csv, maps/ and a page a scan in reports/. Runs
    of different participants may share OUT_DIR. group: group.html over all, and where participants.tsv has
    ages, group_evaluation.json and group_scatter.png. Research use only; not a medical device.
    """
    from rich.console import Console

    from brainage.cli.predict import SHIPPED
    from brainage.config import PreprocessRecipe, load_recipe
    from brainage.models.weights import load_trained
    from brainage.predict.batch import settings_for
    from brainage.preprocess.engine_cluster import Workers
    from brainage.preprocess.engine_run import RunOptions
    from brainage.resources import resource

    refuse_same_folder([bids_dir], out_dir)
    if dry_run and (reports_only or level == Level.group):
        raise typer.BadParameter("is for preprocessing, at the level participant", param_hint="--dry-run")
    if level == Level.group:
        _group(bids_dir, out_dir)
        return
    if reports_only:
        _pages(bids_dir, out_dir)
        return
    options = RunOptions(Workers(jobs, scheduler, slurm), force, stop_on_first_crash)
    listing, options = scans_of([bids_dir], participant_label, session_label, options)
    trained = load_trained(model or resource(SHIPPED))
    settings = load_recipe(recipe, PreprocessRecipe) if recipe else settings_for(trained)
    console = Console(highlight=False)
    if dry_run:
        print_plan(listing, out_dir, settings, options, console)
        return
    rows = run_preprocessing(listing, out_dir, settings, options, console)
    if stop_on_first_crash:
        exit_for_rows(rows, stop_on_first_crash)
    ages = _true_ages(bids_dir / "participants.tsv")
    for line in _predict(listing, rows, out_dir, trained, settings, options.participants, ages):
        console.print(line, soft_wrap=True, markup=False)
    _pages(bids_dir, out_dir)
    exit_for_rows(rows, stop_on_first_crash)


def _predict(
    listing: Listing,
    rows: Sequence[Row],
    out_dir: Path,
    trained: TrainedModel,
    settings: PreprocessRecipe,
    only: Sequence[str],
    true_ages: TrueAges | None,
) -> list[str]:
    """Write ages and maps of what was preprocessed; the lines to print, one a scan."""
    from brainage.cli.predict import age_line, draw_mosaic_or_say
    from brainage.cli.terminal import progress
    from brainage.predict.batch import Request, failed_prediction, predict_request
    from brainage.preprocess.batch import relative
    from brainage.preprocess.lock import locked

    scans: dict[str, Scan] = {str(scan.path): scan for scan in listing.scans}
    lines, results = [], []
    with locked(out_dir, only):
        for row in progress(rows, "Predicting"):
            path = Path(row["path"])
            request = Request(path, scans.get(row["path"]))
            if row["status"] == "failed":
                outcome = failed_prediction(request, row["message"])
            else:
                outcome = predict_request(
                    request, trained, out_dir, out_dir / MAPS, settings, true_ages=true_ages
                )
                draw_mosaic_or_say(outcome, trained)
            lines.append(age_line(outcome.row))
            results.append({**outcome.row, "path": relative(path, listing.root)})
        _write_ages(out_dir, results, keep_others=bool(only))
    return lines


def _true_ages(participants: Path) -> TrueAges | None:
    """What participants.tsv says; None without one, or without ages in it."""
    from brainage.cli.terminal import logger
    from brainage.data.participants import read_participants
    from brainage.data.true_ages import TrueAges
    from brainage.errors import InputError

    if not participants.is_file():
        return None
    try:
        return TrueAges(read_participants(participants))
    except InputError as error:
        logger.warning("No true ages: %s", error)
        return None


def _write_ages(out_dir: Path, rows: list[Row], keep_others: bool) -> None:
    """Write the table of ages; of a run on some participants, into that of the others."""
    import pandas as pd

    from brainage.files import replacing
    from brainage.preprocess.batch import with_other_rows
    from brainage.preprocess.lock import locked_table

    path = out_dir / AGES
    with locked_table(out_dir):
        table = pd.DataFrame(rows).astype(str)
        if keep_others:
            table = with_other_rows(table, path, ",")
        with replacing(path) as partial:
            table.fillna("").sort_values("path").to_csv(partial, index=False)


def _pages(bids_dir: Path, out_dir: Path) -> None:
    """A page for every scan of the table of ages."""
    from brainage.cli.report import report

    participants = bids_dir / "participants.tsv"
    report(
        [_ages_of(out_dir)],
        out_dir / REPORTS,
        maps=out_dir / MAPS,
        raw=bids_dir,
        participants=participants if participants.is_file() else None,
    )


def _group(bids_dir: Path, out_dir: Path) -> None:
    """The cohort's page, and how far predictions lie from true ages where those are known."""
    from brainage.cli.evaluate import evaluate
    from brainage.cli.report import report
    from brainage.cli.terminal import logger
    from brainage.errors import InputError

    ages, participants = _ages_of(out_dir), bids_dir / "participants.tsv"
    known = participants if participants.is_file() else None
    if known:
        try:
            evaluate(ages, known, out_dir / f"{GROUP}_evaluation.json", out_dir / f"{GROUP}_scatter.png")
        except InputError as error:
            logger.warning("No comparison with true ages: %s", error)
            known = None
    page = out_dir / f"{GROUP}.html"
    report([ages], page, maps=out_dir / MAPS, participants=known, raw=bids_dir, title="Brain ages")


def _ages_of(out_dir: Path) -> Path:
    from brainage.errors import InputError

    path = out_dir / AGES
    if not path.is_file():
        raise InputError(
            out_dir, f"no {AGES}", "what brainage run ... participant leaves", "run it at that level first"
        )
    return path
