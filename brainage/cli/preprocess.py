"""``brainage preprocess``: raw T1w scans to volumes on the model grid."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class BrainExtraction(StrEnum):
    """How to treat the skull."""

    auto = "auto"
    always = "always"
    never = "never"


def preprocess(
    bids_dir: Annotated[Path, typer.Argument(help="BIDS folder with T1w scans.", metavar="BIDS_DIR")],
    out_dir: Annotated[Path, typer.Argument(help="Folder for the derivatives.", metavar="OUT_DIR")],
    participant_label: Annotated[
        list[str] | None,
        typer.Option("--participant-label", help="Only this participant; may be given more than once."),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="YAML settings, such as pipelines/preprocess.yaml.")
    ] = None,
    brain_extraction: Annotated[
        BrainExtraction | None,
        typer.Option(
            "--brain-extraction",
            help="auto strips heads and keeps the mask of stripped scans; always, never overrule that.",
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Scans at the same time, about 1.5 GB each.")
    ] = 1,
    force: Annotated[bool, typer.Option("--force", help="Do again what is already done.")] = False,
) -> None:
    """Bias correction, brain extraction, alignment to MNI152, 2 mm, normalised intensities.

    Writes for every scan a brain mask in its own space, a volume in MNI space and a JSON sidecar with
    figures of quality; status.tsv has a row for every scan, also for those that failed. Run again, it
    skips what is done. Exit code 3 if some scans failed, 1 if all did.
    """
    from rich.console import Console

    from brainage.cli.terminal import exit_for_failures, progress
    from brainage.config import PreprocessRecipe, load_recipe
    from brainage.data.cohort import find_scans
    from brainage.errors import ConfigError
    from brainage.preprocess.batch import preprocess_many, problem_row, write_status
    from brainage.preprocess.outputs import describe_dataset

    settings = load_recipe(recipe, PreprocessRecipe) if recipe else PreprocessRecipe()
    if brain_extraction:
        settings = settings.model_copy(update={"brain_extraction": brain_extraction.value})
    if bids_dir.resolve() == out_dir.resolve():
        raise ConfigError(
            "OUT_DIR", out_dir.name, "must be another folder than BIDS_DIR, which stays as it is"
        )
    scans, problems = find_scans(bids_dir)
    if participant_label:
        wanted = {label if label.startswith("sub-") else f"sub-{label}" for label in participant_label}
        absent = sorted(
            wanted
            - {scan.participant_id for scan in scans}
            - {problem.path.relative_to(bids_dir).parts[0] for problem in problems}
        )
        if absent:
            raise ConfigError("--participant-label", absent[0], "must have a T1w scan in BIDS_DIR")
        scans = [scan for scan in scans if scan.participant_id in wanted]
        problems = [item for item in problems if item.path.relative_to(bids_dir).parts[0] in wanted]
    describe_dataset(out_dir)
    _copy_participants(bids_dir, out_dir)
    status = out_dir / "status.tsv"
    console = Console(highlight=False)
    rows = [problem_row(problem) for problem in problems]
    for row in rows:
        console.print(_line(row), soft_wrap=True, markup=False)
    results = preprocess_many(scans, out_dir, settings, jobs, force)
    try:
        for row in progress(results, "Preprocessing", len(scans)):
            rows.append(row)
            console.print(_line(row), soft_wrap=True, markup=False)
            # After every scan, so that an interrupted run keeps what it has found.
            write_status(status, rows, bids_dir, keep_others=True)
    finally:
        results.close()
        write_status(status, rows, bids_dir, keep_others=True)
    write_status(status, rows, bids_dir, keep_others=bool(participant_label))
    failed = sum(row["status"] == "failed" for row in rows)
    doubtful = sum(row["status"] == "warning" for row in rows)
    console.print(
        f"{len(rows) - failed} of {len(rows)} scans preprocessed, {doubtful} with warnings: {status}",
        soft_wrap=True,
        markup=False,
    )
    exit_for_failures(failed, len(rows))


def _copy_participants(bids_dir: Path, out_dir: Path) -> None:
    """Ages travel along, so that the derivatives alone suffice for training."""
    from brainage.files import replacing

    for name in ("participants.tsv", "participants.json"):
        if (bids_dir / name).is_file():
            with replacing(out_dir / name) as partial:
                partial.write_bytes((bids_dir / name).read_bytes())


def _line(row: dict[str, str]) -> str:
    who = " ".join(part for part in (row["participant_id"], row["session_id"]) if part)
    message = f": {row['message']}" if row["message"] else ""
    seconds = f" ({row['seconds']} s)" if row["seconds"] else ""
    return f"{who or Path(row['path']).name}: {row['status']}{message}{seconds}"
