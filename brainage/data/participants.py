"""A BIDS ``participants.tsv``: who took part, how old in years, and what else the file says."""

from __future__ import annotations

import json
import logging
from os import PathLike
from pathlib import Path

import pandas as pd

from brainage.data.tables import MISSING, read_table, with_bids_ids
from brainage.errors import InputError

logger = logging.getLogger("brainage")

MONTHS_PER_YEAR = 12
OLDEST = 122.5  # years; the longest life on record

_AGE_COLUMNS = ("age", "age_years", "age_at_scan")
_MONTH_COLUMNS = ("age_months", "age_in_months")
_SEX_COLUMNS = ("sex", "gender")
_SITE_COLUMNS = ("site", "scanner", "study")
_SEXES = {"f": "female", "female": "female", "m": "male", "male": "male", "o": "other", "other": "other"}


def read_participants(path: str | PathLike[str]) -> pd.DataFrame:
    """Participants with their ages; what was assumed while reading is logged.

    Returns:
        One row a participant (and session, where the file has sessions), with ``participant_id,
        session_id, age, sex, site`` first: age in years, NaN where missing; the other three empty where
        unknown. The file's other columns follow under lower-case names, as numbers where all are numbers.

    Raises:
        InputError: as ``parse_participants``.
    """
    table, notes = parse_participants(path)
    for note in notes:
        logger.info("%s: %s", Path(path).name, note)
    return table


def parse_participants(path: str | PathLike[str]) -> tuple[pd.DataFrame, list[str]]:
    """The table of ``read_participants`` and notes on how it was read.

    Months are converted where a column's name or the JSON sidecar says months.

    Raises:
        InputError: no such file, no id or age column, an age that cannot be years, an id that would name
            a folder elsewhere, or an id given twice.
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
    raw = with_bids_ids(raw, path)
    twice = raw.duplicated(["participant_id", "session_id"])
    if twice.any():
        row = raw.loc[twice].iloc[0]
        who = " ".join(part for part in (row["participant_id"], row["session_id"]) if part)
        raise InputError(
            path, f"{who or 'no id'} in two rows", "one row for each participant", "keep the right row"
        )
    for column in ("participant_id", "session_id"):
        unsafe = raw.loc[raw[column].str.contains(r"[/\\]|\.\.", regex=True), column]
        if not unsafe.empty:
            found = f"{column} {unsafe.iloc[0]!r}"
            raise InputError(path, found, "letters and digits, since ids name folders", "rename it")
    years, notes = _ages_in_years(raw, path)
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
    return table, notes


def _ages_in_years(raw: pd.DataFrame, path: Path) -> tuple[pd.Series, list[str]]:
    name = next((column for column in (*_AGE_COLUMNS, *_MONTH_COLUMNS) if column in raw), None)
    if name is None:
        raise InputError(
            path,
            "no column age among " + ", ".join(raw.columns.drop("session_id")),
            "chronological ages in years",
            "add a column age",
        )
    text = raw[name]
    ages = pd.to_numeric(text, errors="coerce").astype(float)
    notes = []
    unreadable = int((ages.isna() & ~text.str.lower().isin(MISSING)).sum())
    if unreadable:
        notes.append(f"{unreadable} ages that are no plain number (such as 89+) count as missing")
    units = _sidecar_units(path, name)
    if name in _MONTH_COLUMNS or units.startswith("month"):
        ages = ages / MONTHS_PER_YEAR
        notes.append("ages converted from months to years")
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
