"""The ``brainage`` program: one command a module, each importing what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from brainage import __version__
from brainage.cli.atlas import atlas
from brainage.cli.benchmark import benchmark
from brainage.cli.demo import demo
from brainage.cli.evaluate import evaluate
from brainage.cli.faithfulness import faithfulness
from brainage.cli.finetune import finetune
from brainage.cli.info import info
from brainage.cli.overlay import overlay
from brainage.cli.predict import predict
from brainage.cli.preprocess import preprocess
from brainage.cli.qc import qc
from brainage.cli.report import report
from brainage.cli.retrieval import app as retrieval
from brainage.cli.routing_stats import routing_stats
from brainage.cli.run import run as run_app
from brainage.cli.selftest import selftest
from brainage.cli.simulate import simulate
from brainage.cli.terminal import Debug, Quiet, Talk, Verbose, command
from brainage.cli.train import train
from brainage.cli.vision import app as vision

app = typer.Typer(
    name="brainage",
    help="Brain age from T1 MRI, shown on the anatomy. Research use only; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _function in (
    atlas,
    benchmark,
    demo,
    evaluate,
    faithfulness,
    finetune,
    info,
    overlay,
    predict,
    preprocess,
    qc,
    report,
    routing_stats,
    run_app,
    selftest,
    simulate,
    train,
):
    app.command(_function.__name__.replace("_", "-"))(command(_function))
app.add_typer(vision, name="vision")
app.add_typer(retrieval, name="retrieval")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"brainage {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    debug: Debug = False,
    verbose: Verbose = 0,
    quiet: Quiet = 0,
) -> None:
    context.obj = Talk(debug, verbose - quiet)


def run() -> None:
    """Entry point of the installed program."""
    app()
