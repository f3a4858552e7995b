"""A CSV or TSV that lists scans: path, and if known id, session, age, sex and site."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import pandas as pd

from brainage.data.cohort import Problem, Scan, scan_of
from brainage.data.dicom import dicom_scan
from brainage.data.formats import header_of, is_dicom
from brainage.data.participants import people_of
from brainage.data.tables import MISSING, read_table
from brainage.errors import InputError

_PATH_COLUMNS = ("path", "file", "filename", "filepath", "scan", "image", "t1w")
_ID_COLUMNS = ("participant_id", "id", "subject", "subject_id", "participant")
_SESSION_COLUMNS = ("session_id", "session", "visit")
_ABOUT_PEOPLE = ("age", "age_years", "age_at_scan", "age_months", "age_in_months", "sex", "gender", "site")


@dataclass(frozen=True, eq=False)
class ScanList:
    """Scans of a table's rows, rows that cannot be used, and what the table says about people."""

    scans: list[Scan]
    problems: list[Problem]
    people: pd.DataFrame | None
    notes: list[str]


def read_list(path: str | PathLike[str]) -> ScanList:
    """Scans listed in a table; relative paths start at the table's folder.

    Without an id a scan gets that of its file's name. Of an id only letters and digits are kept.

    Raises:
        InputError: no readable table, no column of paths, or ages that cannot be years.
    """
    path = Path(path)
    raw = read_table(path)
    raw.columns = raw.columns.str.strip().str.lower()
    column = next((name for name in _PATH_COLUMNS if name in raw), None)
    if column is None:
        raise InputError(
            path,
            "no column path among " + ", ".join(raw.columns),
            "a table with a column path, and if known id, session, age, sex, site",
            "name the column of files path",
        )
    ids, sessions = _first(raw, _ID_COLUMNS), _first(raw, _SESSION_COLUMNS)
    scans: list[Scan] = []
    problems, kept = [], []
    rows = zip(raw.index, raw[column], ids, sessions, strict=True)
    for index, text, name, session in rows:
        file = path.parent / text
        try:
            if text.lower() in MISSING:
                raise InputError(path, f"no path in row {index + 1}", "the path of a scan", "fill it in")
            scans.append(_scan_of_row(file, name, session))
            kept.append(index)
        except InputError as error:
            problems.append(Problem(file if text else path, str(error)))
    people: pd.DataFrame | None = None
    notes: list[str] = []
    if kept and set(_ABOUT_PEOPLE) & set(raw.columns):
        about = raw.loc[kept, [name for name in raw.columns if name in _ABOUT_PEOPLE]].copy()
        about["participant_id"] = [scan.participant_id for scan in scans]
        about["session_id"] = [scan.session_id for scan in scans]
        if set(_ABOUT_PEOPLE[:5]).isdisjoint(about.columns):
            about["age"] = ""
        people, notes = people_of(about, path)
    return ScanList(scans, problems, people, notes)


def lists_scans(path: str | PathLike[str]) -> bool:
    """Whether a table names files and no predicted ages, so that its scans are still to be predicted."""
    path = Path(path)
    if path.suffix.lower() not in (".csv", ".tsv") or not path.is_file():
        return False
    columns = set(read_table(path).columns.str.lower())
    return "predicted_age" not in columns and not columns.isdisjoint(_PATH_COLUMNS)


def _scan_of_row(file: Path, name: str, session: str) -> Scan:
    dicom = file.is_dir() or is_dicom(file)
    if dicom and name:
        scan = Scan(file, "", "", {})
    elif dicom:
        scan = dicom_scan(file)
    else:
        try:
            scan = scan_of(header_of(file))
        except InputError:
            if not name:
                raise
            scan = Scan(header_of(file), "", "", {})
    labels: dict[str, str] = {}
    for key, given in (("sub", name), ("ses", session)):
        if given:
            labels[key] = _label(given.removeprefix(f"{key}-"), file)
    entities = {key: value for key, value in scan.entities.items() if key not in labels}
    if "sub" in labels:
        entities.pop("ses", None)
    known: dict[str, str] = {**entities, **labels}
    order: dict[str, str] = {key: known[key] for key in ("sub", "ses") if key in known}
    entities = {**order, **{key: value for key, value in entities.items() if key not in order}}
    session_id = f"ses-{entities['ses']}" if "ses" in entities else ""
    return replace(scan, participant_id=f"sub-{entities['sub']}", session_id=session_id, entities=entities)


def _label(text: str, file: Path) -> str:
    if re.search(r"[/\\]|\.\.", text):
        raise InputError(file, f"the id {text!r}", "letters and digits, since ids name folders", "rename it")
    label = re.sub(r"[^a-zA-Z0-9]", "", text)
    if not label:
        raise InputError(file, f"the id {text!r}", "letters and digits", "rename it")
    return label


def _first(raw: pd.DataFrame, names: tuple[str, ...]) -> pd.Series:
    name = next((name for name in names if name in raw), None)
    if name is None:
        return pd.Series("", index=raw.index)
    return raw[name].where(~raw[name].str.lower().isin(MISSING), "")
