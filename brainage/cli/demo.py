"""``brainage demo``: the whole path on a simulated cohort, offline, in a few minutes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from brainage.report.html import Section

_STEPS = 5


def demo(
    out: Annotated[Path, typer.Argument(help="Folder to write to.", metavar="OUT")] = Path("demo"),
    subjects: Annotated[int, typer.Option("--subjects", "-n", min=2, help="Simulated subjects.")] = 6,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same cohort.")] = 0,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Scans preprocessed at a time.")] = 2,
) -> None:
    """Simulate a small cohort, preprocess it, predict ages with maps, evaluate, train a tiny model.

    Needs no network and no data. Leaves OUT/index.html, to be opened in a browser, and its images. All of
    it is simulated: it shows that everything runs, not how well the model does on people.
    """
    import json

    from brainage.cli.evaluate import evaluate
    from brainage.cli.predict import predict
    from brainage.cli.preprocess import preprocess
    from brainage.cli.simulate import simulate
    from brainage.cli.train import train
    from brainage.report.html import write_report
    from brainage.resources import resource

    cohort, derivatives, run = out / "simulated", out / "derivatives", out / "smoke_training"
    ages, maps, participants = out / "ages.csv", out / "maps", cohort / "participants.tsv"
    with _step(1, f"simulating {subjects} subjects"):
        simulate(cohort, subjects, seed)
    with _step(2, "preprocessing the simulated scans"):
        preprocess([cohort], derivatives, jobs=jobs)
    with _step(3, "predicting the ages of the simulated subjects with the shipped model"):
        predict([cohort], ages, maps=maps, derivatives=derivatives)
    with _step(4, "training a tiny ERMoE-ba on the simulated scans, as a smoke run"):
        train(resource("pipelines/smoke.yaml"), derivatives, run)
    with _step(5, "evaluating, and writing the page"):
        evaluate(ages, participants, out / "evaluation.json", out / "scatter.png")
        write_report(
            out / "index.html",
            ages,
            participants=participants,
            maps=maps,
            title="Brain age demonstration",
            simulated=True,
            sections=[_training_section(run / "final" / "log.csv")],
        )
    figures = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    typer.echo(
        f"Simulated cohort: MAE {figures['mae']:.1f} years, mean predictor "
        f"{figures['mean_predictor']['mae']:.1f} years. Open {out / 'index.html'}"
    )


@contextmanager
def _step(number: int, title: str) -> Iterator[None]:
    import time

    typer.echo(f"\n[{number}/{_STEPS}] {title}")
    start = time.monotonic()
    yield
    typer.echo(f"      {time.monotonic() - start:.0f} s")


def _training_section(log: Path) -> Section:
    """The log of the smoke run as a table."""
    import csv

    from brainage.report.html import Section

    with log.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    # Columns that this training left empty say nothing.
    kept = [column for column in range(len(header)) if any(row[column] for row in rows)]
    return Section(
        title="Smoke run: training a tiny ERMoE-ba",
        paragraphs=(
            f"A much smaller model, trained for {len(rows)} epochs on these simulated scans. It shows that "
            "training runs end to end; it is not the model behind the ages above, and its error is "
            "on the scans that it learned from.",
        ),
        header=tuple(header[column].replace("_", " ") for column in kept),
        rows=tuple(tuple(f"{float(row[column]):.4g}" for column in kept) for row in rows),
    )
