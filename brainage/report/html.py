"""The page of a cohort, and a folder of pages: one a scan, one a person with several, and their index."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from brainage.errors import ConfigError, InputError
from brainage.evaluate.ages import join_ages
from brainage.evaluate.summary import evaluate_ages
from brainage.report.content import Cohort, ScanEntry, collect_cohort
from brainage.report.dicom import Origin, read_source, require_programs, write_dicom
from brainage.report.mosaic import contribution_strip
from brainage.report.page import data_uri, render_page
from brainage.report.scan_page import write_scan_page
from brainage.report.scatter import age_scatter
from brainage.report.subject_page import write_subject_page

# A page with the mosaics of a whole cohort would be too large to open: some 0.35 MB each.
MOSAICS_AT_MOST = 8
_THUMBS_FROM = 2  # scans


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
    _write_cohort_page(
        Path(path),
        cohort,
        _comparison(ages, participants, simulated),
        title,
        simulated,
        tuple(sections),
        mosaics_at_most,
    )


def write_pages(
    folder: str | PathLike[str],
    ages: str | PathLike[str],
    *,
    participants: str | PathLike[str] | None = None,
    maps: str | PathLike[str] | None = None,
    raw: str | PathLike[str] | None = None,
    title: str = "Brain age report",
    simulated: bool = False,
    dicom: bool = False,
    dicom_source: str | PathLike[str] | None = None,
) -> list[Path]:
    """Write a page for every scan, one for every person with several scans, and ``index.html``.

    Args:
        folder: to write to.
        ages, participants, maps, title, simulated: as for :func:`write_report`.
        raw: folder that relative paths of scans in ``ages`` start at, as ``brainage run`` writes them.
        dicom: also write each scan's page and mosaic as DICOM files, to ``folder/dicom``.
        dicom_source: the series that the scan, which must be the only one, was made from.

    Returns:
        The pages, the index last, and then the DICOM files.

    Raises:
        InputError: the ages or the participants cannot be used. What is wrong with one scan's maps is said on
            its page. With ``dicom``, also: the series holds no DICOM file, or a page cannot be printed.
        ConfigError: ``dicom`` without pydicom or Chromium, or ``dicom_source`` with several scans.
    """
    folder = Path(folder)
    if dicom:
        require_programs()
    cohort = collect_cohort(ages, participants, maps)
    if dicom_source is not None and len(cohort.scans) != 1:
        rule = f"must come with one scan, whose series it is, not with {len(cohort.scans)}"
        raise ConfigError("--dicom-source", Path(dicom_source).name, rule)
    source = read_source(dicom_source) if dicom and dicom_source is not None else None
    taken: set[str] = {"index.html"}
    root = Path(raw or "")
    scans = tuple(replace(scan, page=_page_name(scan, taken), path=root / scan.path) for scan in cohort.scans)
    cohort = replace(cohort, scans=scans)
    pages = []
    for scan in scans:
        pages.append(folder / scan.page)
        write_scan_page(pages[-1], scan, cohort, simulated=simulated)
    for sessions in cohort.sessions:
        name = _free_name(f"{_plain(sessions[0].participant_id)}_sessions", taken)
        pages.append(folder / name)
        write_subject_page(pages[-1], sessions, cohort, simulated=simulated)
    pages.append(folder / "index.html")
    try:
        comparison = _comparison(ages, participants, simulated)
    except InputError:
        # No scan has both a prediction and an age; every scan's page still says what there is to say.
        comparison = (None, None)
    _write_cohort_page(pages[-1], cohort, comparison, title, simulated, (), 0)
    for scan in scans if dicom else ():
        words = " (simulated)" if simulated else ""
        origin = Origin(scan.participant_id, f"Brain age report: {scan.name}{words}", source)
        pages += write_dicom(folder / "dicom", folder / scan.page, scan.mosaic, origin)
    return pages


def _write_cohort_page(
    path: Path,
    cohort: Cohort,
    comparison: tuple[dict[str, Any] | None, str | None],
    title: str,
    simulated: bool,
    sections: tuple[Section, ...],
    mosaics_at_most: int,
) -> None:
    pictured = [scan for scan in cohort.flagged_first if scan.mosaic or scan.regions]
    thumbs = {}
    if len(cohort.scans) >= _THUMBS_FROM:
        thumbs = {
            scan.name: strip
            for scan in cohort.scans
            if scan.mosaic and (strip := contribution_strip(scan.mosaic))
        }
    render_page(
        path,
        "report.html.j2",
        title=title,
        simulated=simulated,
        cohort=cohort,
        evaluation=comparison[0],
        scatter=comparison[1],
        thumbs=thumbs,
        pictured=pictured[:mosaics_at_most],
        left_out=len(pictured[mosaics_at_most:]),
        linked=any(scan.page for scan in cohort.scans),
        sections=sections,
    )


def _comparison(
    ages: str | PathLike[str], participants: str | PathLike[str] | None, simulated: bool
) -> tuple[dict[str, Any] | None, str | None]:
    """Figures of the cohort and its scatter plot; neither without chronological ages."""
    if participants is None:
        return None, None
    joined = join_ages(ages, participants)
    png = age_scatter(joined.table["age"], joined.table["predicted_age"], simulated=simulated)
    return evaluate_ages(joined), data_uri(png)


def _page_name(scan: ScanEntry, taken: set[str]) -> str:
    """By the names of the maps, which are unique, else by participant and session."""
    parts = (scan.participant_id, scan.session_id)
    name = scan.prefix.name if scan.prefix else "_".join(part for part in parts if part)
    return _free_name(_plain(name) or "scan", taken)


def _free_name(name: str, taken: set[str]) -> str:
    found, count = f"{name}.html", 1
    while found in taken:
        count += 1
        found = f"{name}_{count}.html"
    taken.add(found)
    return found


def _plain(name: str) -> str:
    """Without what a file name or an address could take for something else."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:100]
