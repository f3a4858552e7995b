"""``brainage simulate``: a BIDS cohort from template anatomy whose aging is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write the BIDS cohort to.", metavar="OUT")],
    subjects: Annotated[int, typer.Option("--subjects", "-n", min=1, help="How many.")] = 10,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same files.")] = 0,
) -> None:
    """Write a simulated BIDS cohort, 20 to 85 years, skull-stripped, for trying things out and for tests.

    The ICBM152 template's brain, deformed so that its regions age at set rates; which ones, and how much
    each changed in each subject, stands beside it in simulation_truth.tsv and .json. About 5 s a subject.
    """
    import logging

    from brainage.data.simulate import simulate_cohort

    logger = logging.getLogger("brainage")
    folder = simulate_cohort(
        out, subjects, seed, done=lambda count: logger.info("simulated %d of %d", count, subjects)
    )
    many = "subject" if subjects == 1 else "subjects"
    typer.echo(f"{folder}: {subjects} simulated {many}, seed {seed}; the truth is in simulation_truth.tsv.")
