import logging
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from brainage import __version__
from brainage.cli.main import app
from brainage.cli.terminal import Debug, Quiet, Talk, Verbose, command
from brainage.errors import BrainageError, ConfigError

COMMANDS = sorted(registered.name for registered in app.registered_commands)


def invoke(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_version():
    assert invoke("--version").stdout == f"brainage {__version__}\n"


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "brainage", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"brainage {__version__}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(name):
    result = invoke(name, "--help")
    assert result.exit_code == 0, result.output
    assert "--debug" in result.stdout
    # Square brackets are markup to the help unless they are escaped.
    assert ("pip install" in result.stdout) == ("'brainage[" in result.stdout)


def test_starting_up_imports_no_heavy_library():
    heavy = {"torch", "monai", "nibabel", "nilearn", "pandas", "matplotlib", "SimpleITK", "scipy", "sklearn"}
    script = f"import brainage.cli.main, sys; print(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_wrong_option_is_a_usage_error():
    assert invoke("evaluate", "--colour").exit_code == 2
    assert invoke("nothing").exit_code == 2


def program(function):
    """A program of one command beside the group, as ``main`` builds it."""
    app = typer.Typer()
    app.command("work")(command(function))

    @app.callback()
    def _(context: typer.Context, debug: Debug = False, verbose: Verbose = 0, quiet: Quiet = 0) -> None:
        context.obj = Talk(debug, verbose - quiet)

    return app


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BrainageError("sub-01 is no brain."), 1, "Error: sub-01 is no brain."),
        (
            ConfigError("rank", 192, "must be smaller than dim"),
            2,
            "Error: rank = 192: must be smaller than dim.",
        ),
        (KeyError("age"), 1, "Error: KeyError: 'age' (--debug shows the traceback)"),
        (ValueError("two\nlines"), 1, "Error: ValueError: two lines (--debug shows the traceback)"),
    ],
)
def test_an_error_is_one_sentence_and_its_exit_code(error, code, said):
    def work() -> None:
        raise error

    result = CliRunner().invoke(program(work), ["work"])
    assert (result.exit_code, result.stderr, result.stdout) == (code, said + "\n", "")


@pytest.mark.parametrize("arguments", [["--debug", "work"], ["work", "--debug"]])
def test_debug_shows_the_traceback_before_or_after_the_command(arguments):
    def work() -> None:
        raise KeyError("age")

    result = CliRunner().invoke(program(work), arguments)
    assert "Traceback" in result.stderr
    assert 'raise KeyError("age")' in result.stderr


def test_a_command_keeps_its_exit_code():
    def work() -> None:
        raise typer.Exit(3)

    assert CliRunner().invoke(program(work), ["work"]).exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "heard"),
    [
        (["work"], ["error", "warning", "info"]),
        (["work", "-v"], ["error", "warning", "info", "debug"]),
        (["work", "-q"], ["error", "warning"]),
        (["-q", "work", "-q"], ["error"]),
        (["-q", "work", "-v"], ["error", "warning", "info"]),
    ],
)
def test_logs_go_to_stderr_at_the_asked_level(arguments, heard):
    def work() -> None:
        logger = logging.getLogger("brainage.anything")
        for level in ("error", "warning", "info", "debug"):
            getattr(logger, level)("heard %s", level)
        typer.echo("result")

    result = CliRunner().invoke(program(work), arguments)
    assert [line.split()[-1] for line in result.stderr.splitlines()] == heard
    assert result.stdout == "result\n"
