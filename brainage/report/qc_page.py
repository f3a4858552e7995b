"""One HTML file to look through a cohort by: no requests, complete without scripts, failed scans first."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from os import PathLike

from jinja2 import Environment, PackageLoader, StrictUndefined

from brainage import __version__
from brainage.files import replacing
from brainage.report.qc_content import COLUMNS, STATUSES, QcEntry, in_order, mirrored_note, strips

# More of them would make the page too large to open.
THUMBNAILS_AT_MOST = 600


def write_qc_page(
    path: str | PathLike[str],
    entries: Sequence[QcEntry],
    limits: Mapping[str, tuple[float | None, float | None]],
    *,
    title: str = "Quality control",
    simulated: bool = False,
    notes: Sequence[str] = (),
) -> None:
    """Write the page of a cohort.

    Args:
        path: the HTML file.
        entries: its scans, in any order.
        limits: range without a warning, by figure.
        title: heading of the page.
        simulated: marks the page as made from simulated scans.
        notes: sentences about the cohort, shown with the summary.
    """
    environment = Environment(
        loader=PackageLoader("brainage.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["jpeg"] = lambda data: f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    environment.filters["brief"] = lambda value: f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
    environment.filters["decimals"] = lambda value, count: f"{value:.{count}f}".replace("-", "\N{MINUS SIGN}")
    ordered = in_order(entries)
    shown = [name for name in COLUMNS if any(name in entry.figures for entry in ordered)]
    mirrored = mirrored_note(ordered)
    page = environment.get_template("qc.html.j2").render(
        title=title,
        simulated=simulated,
        entries=ordered,
        counts={status: sum(entry.status == status for entry in ordered) for status in STATUSES},
        columns={name: COLUMNS[name] for name in shown},
        strips=strips(ordered, limits),
        notes=[*([mirrored] if mirrored else []), *notes],
        thumbnails_at_most=THUMBNAILS_AT_MOST,
        version=__version__,
        today=datetime.now(UTC).date().isoformat(),
    )
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")
