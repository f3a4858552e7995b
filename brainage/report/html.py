"""One HTML file for a cohort: no scripts, no requests, every image inside it."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from brainage import __version__
from brainage.evaluate.ages import join_ages
from brainage.evaluate.summary import evaluate_ages
from brainage.files import replacing
from brainage.report.content import collect_cohort
from brainage.report.scatter import age_scatter

# A page with the mosaics of a whole cohort would be too large to open.
MOSAICS_AT_MOST = 30


@dataclass(frozen=True)
class Section:
    """A further part of the page.

    Attributes:
        title: its heading.
        paragraphs: its text.
        header, rows: a table, if any.
        image, image_text: a PNG and what it shows, in words.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    image: Path | None = None
    image_text: str = ""


def write_report(
    path: str | PathLike[str],
    ages: str | PathLike[str],
    *,
    participants: str | PathLike[str] | None = None,
    maps: str | PathLike[str] | None = None,
    title: str = "Brain age report",
    simulated: bool = False,
    sections: Iterable[Section] = (),
    mosaics_at_most: int = MOSAICS_AT_MOST,
) -> None:
    """Write the page of a cohort.

    Args:
        path: the HTML file.
        ages: the CSV of ``brainage predict``.
        participants: chronological ages; with them the page compares, without it only lists.
        maps: the folder of ``brainage predict --maps``.
        title: heading of the page.
        simulated: marks the page, and everything on it, as made from simulated scans.
        sections: what else to show, before the closing notes.
        mosaics_at_most: scans shown with images and regions; the page says how many it leaves out.

    Raises:
        InputError: a file cannot be used, or no scan has both a prediction and an age.
    """
    cohort = collect_cohort(ages, participants, maps)
    evaluation: dict[str, Any] | None = None
    scatter = None
    if participants is not None:
        joined = join_ages(ages, participants)
        evaluation = evaluate_ages(joined)
        scatter = _data_uri(
            age_scatter(joined.table["age"], joined.table["predicted_age"], simulated=simulated)
        )
    pictured = [scan for scan in cohort.scans if scan.mosaic or scan.regions]
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            simulated=simulated,
            cohort=cohort,
            evaluation=evaluation,
            scatter=scatter,
            pictured=pictured[:mosaics_at_most],
            left_out=len(pictured[mosaics_at_most:]),
            sections=tuple(sections),
            version=__version__,
            today=datetime.now(UTC).date().isoformat(),
        )
    )
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("brainage.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = lambda png: _data_uri(Path(png).read_bytes())
    environment.filters["years"] = lambda value: "\N{EN DASH}" if value is None else f"{value:.1f}"
    environment.filters["signed"] = _signed
    return environment


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _signed(value: float | None, digits: int = 1) -> str:
    """``+1.5``, with a true minus sign and without a negative zero."""
    if value is None:
        return "\N{EN DASH}"
    text = f"{abs(value):.{digits}f}"
    sign = "" if float(text) == 0 else "+" if value > 0 else "\N{MINUS SIGN}"
    return sign + text
