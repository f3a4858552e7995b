"""``brainage report``: one HTML page from the files that ``predict`` left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    ages: Annotated[Path, typer.Argument(help="The CSV that brainage predict wrote.", metavar="AGES.csv")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")],
    maps: Annotated[
        Path | None, typer.Option("--maps", help="The folder given to predict --maps: images and regions.")
    ] = None,
    participants: Annotated[
        Path | None, typer.Option("--participants", help="BIDS participants.tsv, to compare with true ages.")
    ] = None,
    title: Annotated[str, typer.Option("--title", help="Heading of the page.")] = "Brain age report",
) -> None:
    """Write one self-contained HTML page: ages with intervals and warnings, images, regions, versions."""
    from brainage.evaluate.ages import is_simulated
    from brainage.report.html import write_report

    write_report(
        output,
        ages,
        participants=participants,
        maps=maps,
        title=title,
        simulated=participants is not None and is_simulated(participants.parent),
    )
    typer.echo(output)
