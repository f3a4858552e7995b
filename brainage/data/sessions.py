"""Ages by session, from the ``sessions.tsv`` files of a BIDS folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from brainage.data.ages import ages_in_years
from brainage.data.tables import read_table, with_bids_ids
from brainage.errors import InputError


def session_tables(root: Path) -> list[Path]:
    """``sub-*/sub-*_sessions.tsv``, and ``sessions.tsv`` with a column of participants."""
    own = sorted(path for path in root.glob("sub-*/sub-*_sessions.tsv") if path.name[0] != ".")
    return [path for path in (root / "sessions.tsv", *own) if path.is_file()]


def with_sessions(people: pd.DataFrame, root: Path) -> tuple[pd.DataFrame, list[str]]:
    """Participants with one row for each session whose age is known, and notes.

    A table whose own rows name sessions stays as it is, as does one without ``sessions.tsv`` beside it.
    Otherwise participants without ages by session keep theirs, for every session folder they have.

    Args:
        people: of ``parse_participants``.
        root: the BIDS folder.
    """
    if people["session_id"].ne("").any():
        return people, []
    notes = []
    found = []
    for path in session_tables(root):
        try:
            ages, more = _read_sessions(path)
        except InputError as error:
            notes.append(f"ages by session not read: {str(error).rstrip('.')}")
            continue
        found.append(ages)
        notes += more
    ages = pd.concat(found) if found else pd.DataFrame(columns=["participant_id", "session_id", "age"])
    ages = ages[ages["age"].notna() & ages["participant_id"].isin(people["participant_id"])]
    clash = ages.duplicated(["participant_id", "session_id"], keep=False)
    for row in ages[clash].drop_duplicates(["participant_id", "session_id"]).itertuples():
        notes.append(f"{row.participant_id} {row.session_id} has two rows, so its age counts as missing")
    if ages.empty:
        return people, notes
    ages.loc[clash, "age"] = float("nan")
    ages = ages.drop_duplicates(["participant_id", "session_id"])
    notes.append(f"{int(ages['age'].notna().sum())} ages by session from sessions.tsv")
    of_people = people.drop(columns=["session_id", "age"])
    by_session = ages.merge(of_people, on="participant_id")[people.columns]
    single = people[~people["participant_id"].isin(ages["participant_id"])]
    folders = [
        row | {"session_id": folder.name}
        for row in single.to_dict("records")
        for folder in sorted((root / str(row["participant_id"])).glob("ses-*"))
    ]
    parts = [by_session, single, pd.DataFrame(folders, columns=people.columns).astype(people.dtypes)]
    table = pd.concat([part for part in parts if not part.empty])
    return table.sort_values(["participant_id", "session_id"]).reset_index(drop=True), notes


def _read_sessions(path: Path) -> tuple[pd.DataFrame, list[str]]:
    raw = read_table(path)
    raw.columns = raw.columns.str.strip().str.lower()
    if path.name != "sessions.tsv" and "participant_id" not in raw:
        raw["participant_id"] = path.name.removesuffix("_sessions.tsv")
    for column in ("participant_id", "session_id"):
        if column not in raw:
            raise InputError(path, f"no column {column}", "a BIDS table of sessions", "add the column")
    raw = with_bids_ids(raw, path).drop_duplicates()
    name = next((name for name in ("age", "age_years", "age_at_scan", "age_months") if name in raw), None)
    if name is None:
        return pd.DataFrame(columns=["participant_id", "session_id", "age"]), []
    who = raw["participant_id"] + " " + raw["session_id"]
    years, notes = ages_in_years(raw[name], name == "age_months", who)
    table = raw[["participant_id", "session_id"]].assign(age=years.where(years.between(0, 122.5)))
    return table, notes
