"""``brainage report``: pages from raw scans, or from the files that ``predict`` left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="The CSV that brainage predict wrote, or what it takes: scans or a list of them.",
            metavar="AGES.csv|SCAN...",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="An .html file for one page, or a folder for a page a scan."),
    ],
    maps: Annotated[
        Path | None, typer.Option("--maps", help="The folder given to predict --maps: images and regions.")
    ] = None,
    participants: Annotated[
        Path | None, typer.Option("--participants", help="BIDS participants.tsv, to compare with true ages.")
    ] = None,
    raw: Annotated[
        Path | None,
        typer.Option("--raw", help="The BIDS folder that paths in the CSV of brainage run start at."),
    ] = None,
    title: Annotated[str, typer.Option("--title", help="Heading of the page.")] = "Brain age report",
    model: Annotated[
        Path | None,
        typer.Option("--model", help="For scans: a model.safetensors; by default the shipped one."),
    ] = None,
    dicom: Annotated[
        bool,
        typer.Option("--dicom", help="Into OUT/dicom also each scan's page (PDF) and maps as DICOM files."),
    ] = False,
    dicom_source: Annotated[
        Path | None,
        typer.Option(
            "--dicom-source",
            help="For one scan: the DICOM series it was made from, whose study and patient the files get.",
        ),
    ] = None,
) -> None:
    """Write self-contained HTML pages: ages with intervals and warnings, images, regions, versions.

    From AGES.csv into an .html file: the page of the cohort. Into a folder: a page for every scan with a
    viewer, one for every person with several sessions, and index.html. Scans are predicted first, and
    OUT/ages.csv and OUT/maps kept. A scan that failed gets a page that says so. Exit code 3 if some failed.
    DICOM files need pydicom and Chromium: pip install 'brainage\\[dicom]'.
    """
    from brainage.data.listing_table import lists_scans
    from brainage.evaluate.ages import is_simulated
    from brainage.report.dicom import require_programs
    from brainage.report.html import write_pages, write_report

    from_table = len(inputs) == 1 and inputs[0].suffix.lower() == ".csv" and not lists_scans(inputs[0])
    page = output.suffix.lower() in (".html", ".htm")
    if page and not from_table:
        raise typer.BadParameter("must be a folder where scans are given", param_hint="--output")
    if page and dicom:
        raise typer.BadParameter("is for the pages of scans; give --output a folder", param_hint="--dicom")
    if dicom_source is not None and not dicom:
        raise typer.BadParameter("comes with --dicom", param_hint="--dicom-source")
    if dicom:
        # Before minutes of prediction.
        require_programs()
    if from_table and model is not None:
        raise typer.BadParameter("is for scans; the CSV has its ages", param_hint="--model")
    if not from_table and maps is not None:
        raise typer.BadParameter("is for a CSV; scans get their maps in OUT/maps", param_hint="--maps")
    # Scans or participants of a cohort that brainage simulate wrote.
    folders = [participants.parent] if participants is not None else []
    folders += [raw] if raw is not None else []
    if not from_table:
        files = [file for path in inputs for file in (_files_of_list(path) if lists_scans(path) else [path])]
        folders += [folder for file in files for folder in (file, *file.absolute().parents)]
    simulated = any(is_simulated(folder) for folder in folders)
    if from_table and not simulated:
        simulated = _all_simulated(inputs[0])
    if page:
        write_report(
            output, inputs[0], participants=participants, maps=maps, title=title, simulated=simulated
        )
        typer.echo(output)
        return
    code = 0
    ages = inputs[0]
    if not from_table:
        ages, maps = output / "ages.csv", output / "maps"
        code = _predict(inputs, ages, maps, model, participants)
    for path in write_pages(
        output,
        ages,
        participants=participants,
        maps=maps,
        raw=raw,
        title=title,
        simulated=simulated,
        dicom=dicom,
        dicom_source=dicom_source,
    ):
        typer.echo(path)
    if code:
        raise typer.Exit(code)


def _all_simulated(ages: Path) -> bool:
    """Whether every scan of a table of ages still lies in a cohort that ``brainage simulate`` wrote."""
    from brainage.data.tables import read_table
    from brainage.evaluate.ages import is_simulated

    table = read_table(ages)
    places = {Path(text).absolute().parent for text in table.get("path", []) if text}
    return bool(places) and all(any(map(is_simulated, (place, *place.parents))) for place in places)


def _files_of_list(path: Path) -> list[Path]:
    from brainage.data.listing_table import read_list

    return [scan.path for scan in read_list(path).scans]


def _predict(scans: list[Path], ages: Path, maps: Path, model: Path | None, participants: Path | None) -> int:
    """Run ``brainage predict``; its exit code, so that failed scans get their pages all the same."""
    from brainage.cli.predict import predict

    try:
        predict(scans, ages, maps=maps, model=model, participants=participants)
    except typer.Exit as end:
        return end.exit_code
    return 0
