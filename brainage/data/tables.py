"""Text tables with BIDS ids, read as text so that ``sub-007`` keeps its zeros."""

from __future__ import annotations

import codecs
import csv
import io
from os import PathLike
from pathlib import Path

import pandas as pd

from brainage.errors import InputError

MISSING = ("", "n/a", "na", "nan")

# How the file of ``brainage predict`` begins; figures of quality, model and fingerprints follow.
PREDICTION_COLUMNS = (
    "participant_id",
    "session_id",
    "path",
    "predicted_age",
    "status",
    "message",
    "interval_low",
    "interval_high",
    "interval_level",
    "interval_scope",
)
# What it says beside a prediction where the true age is known.
GAP_COLUMNS = ("age", "gap", "gap_cole", "gap_de_lange", "bias_slope", "bias_intercept")
_SEPARATORS = (",", "\t", ";")


def read_table(path: str | PathLike[str]) -> pd.DataFrame:
    """A CSV, or by default a TSV, with every cell as stripped text.

    Where the header has none of the separator that the file's ending promises, but another one, that one
    counts: in many countries spreadsheets write semicolons into a CSV. Short rows get empty cells.

    Raises:
        InputError: no such file, no UTF-8 or UTF-16 text, no table in it, no rows, or a row with more cells
            than the header, which would shift them all.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file", "a table", "check the path")
    text = _text_of(path)
    promised = "," if path.suffix.lower() == ".csv" else "\t"
    header = text.partition("\n")[0]
    separator = next((one for one in (promised, *_SEPARATORS) if one in header), promised)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        lines = [
            (reader.line_num, [cell.strip() for cell in cells]) for cells in reader if "".join(cells).strip()
        ]
    except csv.Error as error:
        raise InputError(
            path, "no readable table", "text with a header row", "write the file again"
        ) from error
    if not lines:
        raise InputError(path, "no readable table", "text with a header row", "write the file again")
    names, rows = _distinct(lines[0][1]), lines[1:]
    if not rows:
        raise InputError(path, "no rows", "at least one row under the header", "write the file again")
    for number, cells in rows:
        if any(cells[len(names) :]):
            found = f"{len(cells)} cells in line {number} under a header of {len(names)}"
            raise InputError(
                path, found, "as many cells as columns", "put text that holds a separator in quotes"
            )
    filled = [(cells + [""] * len(names))[: len(names)] for _, cells in rows]
    return pd.DataFrame(filled, columns=names, dtype=str)


def _text_of(path: Path) -> str:
    data = path.read_bytes()
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            path, "letters that are not UTF-8", "a table in UTF-8", "save it as CSV UTF-8"
        ) from error


def _distinct(names: list[str]) -> list[str]:
    """Names of columns, a repeated or missing one with its number."""
    found: list[str] = []
    for index, name in enumerate(names):
        own = name or f"column {index + 1}"
        found.append(own if own not in found else f"{own}.{index + 1}")
    return found


def with_bids_ids(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A copy whose ``participant_id`` and ``session_id`` carry their prefixes; empty where unknown.

    Raises:
        InputError: no participant ids at all.
    """
    table = table.copy()
    for column, prefix in (("participant_id", "sub-"), ("session_id", "ses-")):
        if column not in table:
            table[column] = ""
        ids = table[column].replace("n/a", "")
        table[column] = ids.where(ids.eq("") | ids.str.startswith(prefix), prefix + ids)
    if table["participant_id"].eq("").all():
        raise InputError(path, "no participant ids", "an id such as sub-01 in each row", "fill in the ids")
    return table
