"""A BIDS ``participants.tsv``: who took part, how old in years, and what else the file says."""

from __future__ import annotations

import json
import logging
from os import PathLike
from pathlib import Path

import pandas as pd

from brainage.data.ages import ages_in_years
from brainage.data.sessions import with_sessions
from brainage.data.tables import MISSING, read_table, with_bids_ids
from brainage.errors import InputError

logger = logging.getLogger("brainage")

OLDEST = 122.5  # years; the longest life on record

_AGE_COLUMNS = ("age", "age_years", "age_at_scan")
_MONTH_COLUMNS = ("age_months", "age_in_months")
_SEX_COLUMNS = ("sex", "gender")
_SITE_COLUMNS = ("site", "scanner", "study")
_SEXES = {"f": "female", "female": "female", "m": "male", "male": "male", "o": "other", "other": "other"}


def read_participants(path: str | PathLike[str]) -> pd.DataFrame:
    """Participants with their ages; what was assumed while reading is logged.

    Returns:
        One row a participant (and session, where the file or ``sub-*_sessions.tsv`` beside it have
        sessions), with ``participant_id, session_id, age, sex, site`` first: age in years, NaN where
        missing; the other three empty where unknown. The file's other columns follow under lower-case
        names, as numbers where all are numbers.

    Raises:
        InputError: as ``parse_participants``.
    """
    table, notes = parse_participants(path)
    for note in notes:
        logger.info("%s: %s", Path(path).name, note)
    return table


def parse_participants(path: str | PathLike[str]) -> tuple[pd.DataFrame, list[str]]:
    """The table of ``read_participants`` and notes on how it was read.

    Months are converted where a column's name or the JSON sidecar says months, and units beside a number
    are minded (``ages_in_years``). A row costs only itself: one whose id would name a folder elsewhere is
    left out, and a participant with two rows that differ has no age.

    Raises:
        InputError: no such file, no id or age column, no usable row, or an age that cannot be years.
    """
    path = Path(path)
    raw = read_table(path)
    raw.columns = raw.columns.str.strip().str.lower()
    if "participant_id" not in raw:
        raise InputError(
            path,
            "no column participant_id",
            "a BIDS participants.tsv",
            "name the column of ids participant_id",
        )
    table, notes = people_of(raw, path)
    table, more = with_sessions(table, path.parent)
    return table, [*notes, *more]


def people_of(raw: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The table of ``parse_participants``, without sessions of other files, from one of text cells.

    Raises:
        InputError: as there.
    """
    raw, notes = _usable_rows(with_bids_ids(raw, path), path)
    years, more = _years(raw, path)
    clash = raw.duplicated(["participant_id", "session_id"], keep=False)
    for who in raw.loc[clash, ["participant_id", "session_id"]].drop_duplicates().itertuples(index=False):
        notes.append(
            f"{' '.join(filter(None, who))} stands in rows that differ, so the age counts as missing"
        )
    years = years.mask(clash)
    table = pd.DataFrame(
        {
            "participant_id": raw["participant_id"],
            "session_id": raw["session_id"],
            "age": years,
            "sex": _column(raw, _SEX_COLUMNS).str.lower().map(_SEXES).fillna(""),
            "site": _column(raw, _SITE_COLUMNS),
        }
    )
    for name in raw.columns.difference(table.columns, sort=False):
        table[name] = _numbers_where_all_are(raw[name])
    once = ~table.duplicated(["participant_id", "session_id"])
    return table[once].reset_index(drop=True), [*notes, *more]


def _usable_rows(raw: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Rows without those that are repeated as they are, have no id, or one that names a folder elsewhere."""
    notes = []
    unsafe = pd.Series(False, index=raw.index)
    for column in ("participant_id", "session_id"):
        odd = raw[column].str.contains(r"[/\\]|\.\.", regex=True)
        notes += [
            f"the row of {column} {value!r} is left out, since ids name folders: use letters and digits"
            for value in raw.loc[odd, column]
        ]
        unsafe |= odd
    nameless = raw["participant_id"].eq("")
    if nameless.any():
        notes.append(f"{int(nameless.sum())} rows without a participant_id are left out")
    kept = raw[~unsafe & ~nameless].drop_duplicates()
    if kept.empty:
        raise InputError(path, "no usable row", "ids of letters and digits", "correct the ids")
    return kept, notes


def _years(raw: pd.DataFrame, path: Path) -> tuple[pd.Series, list[str]]:
    name = next((column for column in (*_AGE_COLUMNS, *_MONTH_COLUMNS) if column in raw), None)
    if name is None:
        raise InputError(
            path,
            "no column age among " + ", ".join(raw.columns.drop("session_id")),
            "chronological ages in years",
            "add a column age",
        )
    in_months = name in _MONTH_COLUMNS or _sidecar_units(path, name).startswith("month")
    ages, notes = ages_in_years(raw[name], in_months, raw["participant_id"])
    # Not the row's own fault alone: of a column of months some pass for years.
    wrong = ages[ages.notna() & ~ages.between(0, OLDEST)]
    if not wrong.empty:
        who = raw.loc[wrong.index[0], "participant_id"]
        raise InputError(
            path,
            f"age {wrong.iloc[0]:g} for {who}",
            f"ages in years (0 to {OLDEST:.0f})",
            "correct it, or name the column age_months if these are months",
        )
    return ages, notes


def _sidecar_units(path: Path, column: str) -> str:
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        return ""
    try:
        described = {key.lower(): value for key, value in json.loads(sidecar.read_text("utf-8")).items()}
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise InputError(sidecar, "no JSON object", "a BIDS data dictionary", "mend or remove it") from error
    entry = described.get(column)
    return str(entry.get("Units", "")).lower() if isinstance(entry, dict) else ""


def _column(raw: pd.DataFrame, names: tuple[str, ...]) -> pd.Series:
    name = next((name for name in names if name in raw), None)
    return raw[name].replace("n/a", "") if name else pd.Series("", index=raw.index)


def _numbers_where_all_are(text: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(text, errors="coerce")
    given = ~text.str.lower().isin(MISSING)
    return numbers if given.any() and numbers[given].notna().all() else text
