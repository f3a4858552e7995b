"""Text tables with BIDS ids, read as text so that ``sub-007`` keeps its zeros."""

from __future__ import annotations

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


def read_table(path: str | PathLike[str]) -> pd.DataFrame:
    """A CSV, or by default a TSV, with every cell as stripped text.

    Raises:
        InputError: no such file, no table in it, or no rows.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file", "a table", "check the path")
    sep = "," if path.suffix.lower() == ".csv" else "\t"
    try:
        table = pd.read_csv(path, sep=sep, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(
            path, "no readable table", "text with a header row", "write the file again"
        ) from error
    if table.empty:
        raise InputError(path, "no rows", "at least one row under the header", "write the file again")
    return table.fillna("").apply(lambda column: column.str.strip())


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
