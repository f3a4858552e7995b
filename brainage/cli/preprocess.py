"""``brainage preprocess``: raw T1w scans to volumes on the model grid."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from brainage.config import PreprocessRecipe
    from brainage.data.listing import Listing
    from brainage.preprocess.batch import Row
    from brainage.preprocess.engine_run import RunOptions


class BrainExtraction(StrEnum):
    """How to treat the skull."""

    auto = "auto"
    always = "always"
    never = "never"


Participants = Annotated[
    list[str] | None,
    typer.Option("--participant-label", help="Only this participant; may be given more than once."),
]
Sessions = Annotated[
    list[str] | None,
    typer.Option("--session-label", help="Only this session; may be given more than once."),
]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", help="YAML settings, such as pipelines/preprocess.yaml.")
]
Skull = Annotated[
    BrainExtraction | None,
    typer.Option(
        "--brain-extraction",
        help="auto strips heads and keeps the mask of stripped scans; always, never overrule that.",
    ),
]
MaskSuffix = Annotated[
    str,
    typer.Option(
        "--mask-suffix",
        help="Own brain masks beside the scans, by what follows their name, such as _desc-brain_mask.nii.gz.",
        metavar="TEXT",
    ),
]
NoBias = Annotated[bool, typer.Option("--no-bias-correction", help="Leave the bias field in.")]
NoRegistration = Annotated[
    bool, typer.Option("--no-registration", help="The scans already lie in the template's space.")
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        help="Scans at the same time, by default as many as memory and cores allow; or SLURM jobs.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Do again what is already done.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what it costs.")]
StopFirst = Annotated[
    bool, typer.Option("--stop-on-first-crash", help="End at the first scan that fails, with exit code 1.")
]
Scheduler = Annotated[
    str,
    typer.Option("--scheduler", help="Work on a running Dask cluster: tcp://HOST:PORT.", metavar="ADDRESS"),
]
Slurm = Annotated[
    bool,
    typer.Option("--slurm", help="Submit --jobs SLURM jobs (dask-jobqueue, set up in its jobqueue.yaml)."),
]


def preprocess(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="BIDS folder, folder of scans, DICOM folder, CSV or TSV with a column path, or files.",
            metavar="INPUT...",
        ),
    ],
    out_dir: Annotated[Path, typer.Argument(help="Folder for the derivatives.", metavar="OUT_DIR")],
    participant_label: Participants = None,
    session_label: Sessions = None,
    recipe: RecipeFile = None,
    brain_extraction: Skull = None,
    mask_suffix: MaskSuffix = "",
    no_bias_correction: NoBias = False,
    no_registration: NoRegistration = False,
    jobs: Jobs = None,
    force: Force = False,
    dry_run: DryRun = False,
    stop_on_first_crash: StopFirst = False,
    scheduler: Scheduler = "",
    slurm: Slurm = False,
) -> None:
    """Bias correction, brain extraction, alignment to MNI152, 2 mm, normalised intensities.

    Writes for every scan a brain mask in its own space, a volume in MNI space, the affine to it and a JSON
    sidecar with figures of quality; status.tsv has a row for every scan, also for those that failed. Run
    again, it goes on where it was and skips what is done. Exit code 3 if some scans failed, 1 if all did.
    """
    from rich.console import Console

    from brainage.preprocess.engine_cluster import Workers
    from brainage.preprocess.engine_run import RunOptions

    changes: dict[str, object] = {}
    if brain_extraction:
        changes["brain_extraction"] = brain_extraction.value
    if mask_suffix:
        changes["mask"] = "{name}" + mask_suffix
    if no_bias_correction:
        changes["bias_correction"] = False
    if no_registration:
        changes["registration"] = False
    settings = chosen_settings(recipe, changes)
    refuse_same_folder(inputs, out_dir)
    options = RunOptions(Workers(jobs, scheduler, slurm), force, stop_on_first_crash)
    listing, options = scans_of(inputs, participant_label, session_label, options)
    console = Console(highlight=False)
    if dry_run:
        print_plan(listing, out_dir, settings, options, console)
        return
    exit_for_rows(run_preprocessing(listing, out_dir, settings, options, console), stop_on_first_crash)


def chosen_settings(recipe: Path | None, changes: Mapping[str, object]) -> PreprocessRecipe:
    """The recipe of a file, or the default one, with what the command line says.

    Raises:
        ConfigError: settings that break a rule, or exclude each other.
    """
    from brainage.config import PreprocessRecipe, load_recipe, parse_recipe

    settings = load_recipe(recipe, PreprocessRecipe) if recipe else PreprocessRecipe()
    return parse_recipe({**settings.model_dump(), **changes}, PreprocessRecipe) if changes else settings


def refuse_same_folder(inputs: list[Path], out_dir: Path) -> None:
    """Refuse to write into an input.

    Raises:
        ConfigError: the output folder is one of the inputs.
    """
    from brainage.errors import ConfigError

    if any(path.resolve() == out_dir.resolve() for path in inputs):
        rule = "must be another folder than the input, which stays as it is"
        raise ConfigError("OUT_DIR", out_dir.name, rule)


def scans_of(
    inputs: list[Path], participants: list[str] | None, sessions: list[str] | None, options: RunOptions
) -> tuple[Listing, RunOptions]:
    """The scans of the inputs that the labels leave, and the options of a run on those participants.

    Raises:
        InputError: an input without any scan.
        ConfigError: a label without any scan.
    """
    from dataclasses import replace

    from brainage.data.listing import list_scans
    from brainage.preprocess.engine_run import narrowed

    listing = narrowed(list_scans(inputs), participants or (), sessions or ())
    if participants or sessions:
        # One whose files are all useless has no scan, but rows.
        ids = {f"sub-{label.removeprefix('sub-')}" for label in participants or ()}
        ids |= {scan.participant_id for scan in listing.scans}
        options = replace(options, participants=tuple(sorted(ids)))
    return listing, options


def exit_for_rows(rows: list[Row], stop_on_first_crash: bool) -> None:
    """End the program with 1 if all scans failed or the first failure was the end, with 3 if some did."""
    from brainage.cli.terminal import exit_for_failures

    failed = sum(row["status"] == "failed" for row in rows)
    if failed and stop_on_first_crash:
        raise typer.Exit(1)
    exit_for_failures(failed, len(rows))


def run_preprocessing(
    listing: Listing, out_dir: Path, settings: PreprocessRecipe, options: RunOptions, console: Console
) -> list[Row]:
    """Preprocess with a line for each scan and progress; returns the rows but those of absent scans."""
    from brainage.cli.terminal import progress
    from brainage.preprocess.engine_run import STATUS, preprocess_listing

    rows = []
    results = preprocess_listing(listing, out_dir, settings, options)
    total = len(listing.scans) + len(listing.problems)
    try:
        for row in progress(results, "Preprocessing", total, counts=lambda row: row["status"] != "missing"):
            console.print(row_line(row), soft_wrap=True, markup=False)
            if row["status"] != "missing":
                rows.append(row)
    finally:
        results.close()
    failed = sum(row["status"] == "failed" for row in rows)
    doubtful = sum(row["status"] == "warning" for row in rows)
    before = sum(done_before(row) for row in rows)
    done = f"{len(rows) - failed} of {total} scans preprocessed" + (f" ({before} before)" if before else "")
    said = f"{done}, {doubtful} with warnings"
    console.print(f"{said}: {out_dir / STATUS}", soft_wrap=True, markup=False)
    return rows


def print_plan(
    listing: Listing, out_dir: Path, settings: PreprocessRecipe, options: RunOptions, console: Console
) -> None:
    """What a run would do with each input, what it would cost, and what it would remark about ages."""
    from brainage.cli.terminal import logger
    from brainage.data.listing_people import call_roll
    from brainage.preprocess.batch import absent_row
    from brainage.preprocess.engine_plan import plan_run

    plan = plan_run(listing, out_dir, settings, options.workers, options.force)
    roll = call_roll(listing)
    for note in roll.notes:
        logger.info("%s", note)
    for name in roll.absent:
        if not options.participants or name in options.participants:
            console.print(row_line(absent_row(name, listing.root)), soft_wrap=True, markup=False)
    for path, said in plan.lines:
        console.print(f"{path}: {said}", soft_wrap=True, markup=False)
    place = options.workers.scheduler or ("SLURM" if options.workers.slurm else "this machine")
    memory = f"{plan.memory_gib:.1f} GiB of memory"
    if place == "this machine":
        memory += f" ({plan.free_gib:.1f} GiB free)"
    console.print(
        f"{plan.todo} to do, {plan.done} done, {plan.refused} that cannot be used. {plan.jobs} at a time on "
        f"{place}: about {duration(plan.seconds)}, {memory}, {plan.output_mb:.0f} MB of files. "
        "Nothing was written.",
        soft_wrap=True,
        markup=False,
    )


def duration(seconds: float) -> str:
    """``45 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def row_line(row: Row) -> str:
    """One scan's row as a line for people."""
    who = " ".join(part for part in (row["participant_id"], row["session_id"]) if part)
    message = f": {row['message']}" if row["message"] else ""
    seconds = f" ({row['seconds']} s)" if row["seconds"] else " (done before)" if done_before(row) else ""
    return f"{who or Path(row['path']).name}: {row['status']}{message}{seconds}"


def done_before(row: Row) -> bool:
    """Whether an earlier run finished this scan, so that nothing was left to do."""
    return row["status"] in ("ok", "warning") and not row["seconds"]
