"""Several sessions of one person on one page, with what changed between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainage.report.content import Cohort, ScanEntry
from brainage.report.page import render_page
from brainage.report.scan_page import scan_curve


def write_subject_page(
    path: Path, scans: Sequence[ScanEntry], cohort: Cohort, *, simulated: bool = False
) -> None:
    """Write the page of one person.

    Args:
        path: the HTML file.
        scans: of one participant, in time.
        cohort: that they are in, for the versions.
        simulated: marks the page as made from simulated scans.
    """
    used = [scan for scan in scans if scan.predicted_age is not None]
    facts: Mapping[str, Any] = next((scan.facts for scan in used if scan.facts), {})
    # One age for all sessions, as a participants.tsv without sessions gives it, is no time.
    timed = len({scan.age for scan in scans if scan.age is not None}) > 1
    intervals = [scan.interval for scan in used if scan.interval is not None]
    sessions, changes = region_changes(used)
    render_page(
        path,
        "subject.html.j2",
        title=f"Brain age report: {scans[0].participant_id}, {len(scans)} scans",
        simulated=simulated,
        scans=scans,
        scale=cohort.scale,
        timed=timed,
        curve=scan_curve(used, facts) if timed else None,
        trend=_trend(used, timed),
        half=max(((high - low) / 2 for low, high in intervals), default=None),
        sessions=sessions,
        changes=changes,
        versions=cohort.versions,
    )


def region_changes(scans: Sequence[ScanEntry]) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of the sessions with a region table, and each region's contributions over them."""
    tables = [
        (scan.session_id or scan.file_name, {row.name: row.years for row in scan.regions}) for scan in scans
    ]
    tables = [(name, table) for name, table in tables if table]
    if len(tables) < 2:
        return [], []
    common = [name for name in tables[0][1] if all(name in table for _, table in tables)]
    changes = {name: tables[-1][1][name] - tables[0][1][name] for name in common}
    largest = max(map(abs, changes.values()), default=0.0)
    rows = [
        {
            "name": name,
            "years": [table[name] for _, table in tables],
            "change": changes[name],
            "share": changes[name] / largest if largest else 0.0,
        }
        for name in sorted(common, key=lambda name: -abs(changes[name]))
    ]
    return [name for name, _ in tables], rows


def _trend(scans: Sequence[ScanEntry], timed: bool) -> dict[str, float | None] | None:
    if len(scans) < 2:
        return None
    first, last = scans[0], scans[-1]
    elapsed = last.age - first.age if timed and first.age is not None and last.age is not None else None
    return {"change": (last.predicted_age or 0.0) - (first.predicted_age or 0.0), "elapsed": elapsed}
