"""``brainage selftest``: does this installation compute what it should?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RECORDED = "models/shipped/selftest.json"


def selftest(
    record: Annotated[
        Path | None,
        typer.Option("--record", help="Write this installation's predictions to a JSON file instead."),
    ] = None,
) -> None:
    """Predict two simulated scans, from the raw scan on, and compare with what the shipped model should say.

    Takes about half a minute, offline. Exit code 1 if a prediction differs by more than 0.05 years.
    """
    from brainage.cli.predict import SHIPPED
    from brainage.cli.terminal import logger
    from brainage.files import write_json
    from brainage.models.weights import load_trained
    from brainage.predict import selftest as test
    from brainage.resources import resource

    trained = load_trained(resource(SHIPPED))
    if record is not None:
        write_json(record, test.record(trained))
        return
    checks = test.check(trained, resource(RECORDED))
    for one in checks:
        typer.echo(
            f"simulated scan of {one.simulated_age:g} years: predicted {one.found:.2f}, "
            f"expected {one.expected:.2f} years: {'ok' if one.passed else 'DIFFERS'}"
        )
    if not all(one.passed for one in checks):
        logger.error(
            "This installation does not predict what it should (difference above %g years): install the "
            "versions of constraints.txt, and report it with the output of brainage info",
            test.TOLERANCE,
        )
        raise typer.Exit(1)
    typer.echo("The installation predicts what it should.")
