"""Ages in years out of the ways in which tables write them."""

from __future__ import annotations

import re

import pandas as pd

from brainage.data.tables import MISSING

MONTHS_PER_YEAR = 12
_DAYS_PER_YEAR = 365.25
_YEARS_PER = {"y": 1.0, "m": 1 / MONTHS_PER_YEAR, "w": 7 / _DAYS_PER_YEAR, "d": 1 / _DAYS_PER_YEAR}
# ISO 8601 durations (P42Y6M), of dates only.
_DURATION = re.compile(r"P(?=\d)(?:([\d.]+)Y)?(?:([\d.]+)M)?(?:([\d.]+)W)?(?:([\d.]+)D)?", re.I)
# DICOM's age strings (042Y, 018M), and numbers with a unit spelled out.
_WITH_UNIT = re.compile(r"([\d.]+)\s*(y|m|w|d|yrs?|years?|mo|months?|weeks?|days?)\.?(?:\s*old)?", re.I)
_CENSORED = re.compile(r"(?:>=?|≥)\s*[\d.]+|[\d.]+\s*(?:\+|or (?:older|more|over)|and (?:older|over))", re.I)
_NAMED = 3  # rows that a note names


def ages_in_years(text: pd.Series, in_months: bool, names: pd.Series) -> tuple[pd.Series, list[str]]:
    """Ages of a column, years; NaN where there is none.

    Plain numbers are years, or months where ``in_months``. Entries with a unit of their own count by it:
    ``P42Y``, ``P42Y6M``, ``042Y``, ``504 months``. Top-coded ages (``89+``, ``>89``) are no ages: they
    count as missing and are named in a note, as is what cannot be read.

    Args:
        text: the column.
        in_months: whether a number without a unit is months.
        names: whose age it is, for the notes.
    """
    ages = pd.to_numeric(text, errors="coerce").astype(float)
    if in_months:
        ages = ages / MONTHS_PER_YEAR
    notes = ["ages converted from months to years"] if in_months else []
    left = ages.isna() & ~text.str.lower().isin(MISSING)
    read = text[left].map(_with_unit).astype(float)
    ages[read.index] = read
    if read.notna().any():
        notes.append(f"{int(read.notna().sum())} ages with a unit of their own, such as {_first(text, read)}")
    lost = read.index[read.isna()]
    capped = [index for index in lost if _CENSORED.fullmatch(text[index])]
    other = [index for index in lost if index not in capped]
    for rows, what in ((capped, "top-coded ages are no ages"), (other, "ages that are no number")):
        if rows:
            listed = ", ".join(f"{names[index]} {text[index]!r}" for index in rows[:_NAMED])
            more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
            notes.append(f"{what} and count as missing: {listed}{more}")
    return ages, notes


def _with_unit(text: str) -> float | None:
    try:
        if match := _DURATION.fullmatch(text):
            parts = zip(match.groups(), "ymwd", strict=True)
            return sum(float(part) * _YEARS_PER[unit] for part, unit in parts if part)
        if match := _WITH_UNIT.fullmatch(text):
            return float(match[1]) * _YEARS_PER[match[2][0].lower()]
    except ValueError:  # two points in a number
        pass
    return None


def _first(text: pd.Series, read: pd.Series) -> str:
    return repr(text[read.first_valid_index()])
