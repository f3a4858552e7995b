"""What every command shares: where logs go, how much is said, and how an error ends the program.

Results go to stdout and logs to stderr, so that a result can be piped. A deliberate error is printed as
its one sentence; any other one as a sentence too, with the traceback only on ``--debug``.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from brainage.errors import BrainageError

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger("brainage")

ItemT = TypeVar("ItemT")

Debug = Annotated[bool, typer.Option("--debug", help="Say everything, and show the traceback of an error.")]
Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say more.")]
Quiet = Annotated[int, typer.Option("--quiet", "-q", count=True, help="Say less; twice: errors only.")]

_SHARED = [
    inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
    inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug),
    inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=0, annotation=Verbose),
    inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=0, annotation=Quiet),
]


@dataclass(frozen=True)
class Talk:
    """What was asked before the command's name: ``brainage --debug predict ...``."""

    debug: bool = False
    verbosity: int = 0


def configure_logging(verbosity: int) -> None:
    """Send logs to stderr: coloured on a terminal, plain lines elsewhere.

    Args:
        verbosity: 0 reports progress, 1 everything, -1 warnings and errors, -2 errors only.
    """
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.logging import RichHandler

        handler = RichHandler(console=_stderr(), show_path=False, log_time_format="%H:%M:%S")
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    levels = [logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG]
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(levels[min(max(verbosity + 2, 0), 3)])
    # Warnings of the libraries underneath are for developers.
    logging.captureWarnings(True)
    library_warnings = logging.getLogger("py.warnings")
    library_warnings.propagate = False
    library_warnings.handlers = [handler] if verbosity > 0 else [logging.NullHandler()]


@functools.lru_cache(maxsize=1)
def _stderr() -> Console:
    """The one console of logs and progress bars, so that they do not write over each other."""
    from rich.console import Console

    return Console(stderr=True)


def progress(
    items: Iterable[ItemT],
    title: str,
    total: int | None = None,
    counts: Callable[[ItemT], bool] = lambda item: True,
) -> Iterator[ItemT]:
    """Pass items on and tell how many have come, how fast, and what is left: a bar on a terminal, else lines.

    Args:
        items: to pass on.
        title: what is being done to them.
        total: how many there will be, for items without a length.
        counts: whether an item is one of the ``total``.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    pace = Pace()
    if not sys.stderr.isatty() or not logger.isEnabledFor(logging.INFO):
        count = 0
        for item in items:
            yield item
            if counts(item):
                count += 1
                logger.info("%s: %s", title, pace.said(count, total))
        return
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"))
    with Progress(*columns, console=_stderr(), transient=True) as bar:
        task = bar.add_task(title, total=total, said="")
        count = 0
        for item in items:
            yield item
            if counts(item):
                count += 1
                bar.update(task, completed=count, said=pace.said(count, total))


class Pace:
    """How fast items come, by the latest ones: those that an earlier run had done come at once."""

    def __init__(self) -> None:
        self._times = deque([time.monotonic()], maxlen=21)

    def said(self, count: int, total: int | None) -> str:
        """``12 of 40, 3.1 a minute, 9 min left``."""
        self._times.append(time.monotonic())
        text = str(count) if total is None else f"{count} of {total}"
        took = self._times[-1] - self._times[0]
        if took < 1:
            return text
        rate = (len(self._times) - 1) / took
        text += f", {60 * rate:.3g} a minute"
        if total is None or count >= total:
            return text
        left = (total - count) / rate
        return f"{text}, {f'{left:.0f} s' if left < 90 else f'{left / 60:.0f} min'} left"


def interval_text(figures: Mapping[str, Any], key: str = "mae", form: str = "{:.2f}") -> str:
    """The 95 % interval of a figure of a predictor or a group; a dash where there is none."""
    low, high = figures.get(f"{key}_ci95") or (None, None)
    return "-" if low is None else f"{form.format(low)} to {form.format(high)}"


def figure_text(value: float | None, form: str) -> str:
    """A figure in that format; a dash where the cohort does not define it."""
    return "-" if value is None else form.format(value)


def exit_for_failures(failed: int, total: int) -> None:
    """End the program with 1 if all scans failed, with 3 if some did; return if none did."""
    if failed:
        raise typer.Exit(1 if failed == total else 3)


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--debug``, ``-v`` and ``-q``, and end it with the exit code of its error."""

    @functools.wraps(function)
    def wrapper(context: typer.Context, debug: bool, verbose: int, quiet: int, **own: Any) -> Any:
        before = context.obj or Talk()
        debug = debug or before.debug
        configure_logging(1 if debug else before.verbosity + verbose - quiet)
        try:
            return function(**own)
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except Exception as error:
            if debug:
                logger.exception("The command stopped here.")
            typer.echo(_sentence(error, debug), err=True)
            code = error.exit_code if isinstance(error, BrainageError) else 1
            raise typer.Exit(code) from error

    signature = inspect.signature(function)
    hints = get_type_hints(function, include_extras=True)
    own = [
        parameter.replace(
            kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints.get(parameter.name, parameter.annotation)
        )
        for parameter in signature.parameters.values()
    ]
    parameters = [*own, *_SHARED]
    vars(wrapper)["__signature__"] = signature.replace(parameters=parameters)
    # Help keeps the line breaks of the source, which fall anywhere on a terminal of another width.
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    wrapper.__doc__ = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


def _sentence(error: Exception, debug: bool) -> str:
    if isinstance(error, BrainageError):
        return f"Error: {error}"
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    hint = "" if debug else " (--debug shows the traceback)"
    return f"Error: {' '.join(said.split())}{hint}"
