"""Ages that travel with the scans, and who is in one of ``participants.tsv`` and the scans alone."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from brainage.data.listing import Listing
from brainage.data.participants import parse_participants
from brainage.data.sessions import session_tables
from brainage.data.tables import read_table
from brainage.errors import InputError
from brainage.files import replacing

logger = logging.getLogger("brainage")


@dataclass(frozen=True)
class Roll:
    """What a table of participants says about scans.

    Attributes:
        absent: ids of the table without any scan.
        remarks: what to tell about a participant's scans, by id.
        notes: on how the table was read.
    """

    absent: tuple[str, ...] = ()
    remarks: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def call_roll(listing: Listing) -> Roll:
    """Compare the scans with ``participants.tsv`` of their BIDS folder, or with the list that named them."""
    found = {scan.participant_id for scan in listing.scans}
    if not listing.bids or not (listing.root / "participants.tsv").is_file():
        people = listing.people
        remarks = {} if people is None else _remarks(people, listing.notes, found, "list")
        return Roll(remarks=remarks, notes=listing.notes)
    try:
        people, notes = parse_participants(listing.root / "participants.tsv")
    except InputError as error:
        return Roll(notes=(str(error),))
    listed = set(people["participant_id"])
    tried = {problem.path.relative_to(listing.root).parts[0] for problem in listing.problems}
    remarks = {name: "no row in participants.tsv, so no age" for name in found - listed}
    remarks |= _remarks(people, notes, found & listed, "participants.tsv")
    return Roll(tuple(sorted(listed - found - tried)), remarks, tuple(notes))


def _remarks(
    people: pd.DataFrame, notes: Sequence[str], names: Collection[str], source: str
) -> dict[str, str]:
    """Why participants have no age, of those whom a note on their table names."""
    remarks = {}
    for name in names:
        own = [note for note in notes if name in note.replace(",", " ").split()]
        if own and people.loc[people["participant_id"] == name, "age"].isna().all():
            remarks[name] = f"{source}: {own[0]}"
    return remarks


def write_people(listing: Listing, out_dir: Path, only: Collection[str] = ()) -> None:
    """Ages travel along, so that the derivatives alone suffice for training.

    Of a BIDS folder the tables are copied as they are. Of a list a ``participants.tsv`` is written, with
    ages by session in ``sub-*_sessions.tsv``, keeping the rows of participants that it does not name.

    Args:
        listing: with its scans.
        out_dir: of the derivatives.
        only: participants to copy the sessions of; all where empty.
    """
    if listing.bids:
        names = ["participants.tsv", "participants.json"]
        names += [path.relative_to(listing.root).as_posix() for path in session_tables(listing.root)]
        scanned = {scan.participant_id for scan in listing.scans}
        for name in names:
            folder = name.partition("/")[0]
            if "/" in name and (folder not in scanned or (only and folder not in only)):
                continue
            source = listing.root / name
            if source.is_file():
                with replacing(out_dir / name) as partial:
                    partial.write_bytes(source.read_bytes())
    elif listing.people is not None:
        _write_list(listing.people, out_dir)


def _write_list(people: pd.DataFrame, out_dir: Path) -> None:
    table = people.assign(age=[f"{age:g}" if pd.notna(age) else "" for age in people["age"]])
    by_session = table[table["session_id"] != ""]
    once = table.drop_duplicates("participant_id").copy()
    several = by_session["participant_id"].value_counts()
    once.loc[once["participant_id"].isin(several.index[several > 1]), "age"] = ""
    path = out_dir / "participants.tsv"
    columns = ["participant_id", "age", "sex", "site"]
    if path.is_file():
        try:
            before = read_table(path)
            once = pd.concat([before[~before["participant_id"].isin(once["participant_id"])], once])
        except (InputError, KeyError):
            logger.warning("%s could not be read and is written anew", path.name)
    _write(path, once.reindex(columns=columns).sort_values("participant_id"))
    for name, rows in by_session.groupby("participant_id"):
        _write(out_dir / str(name) / f"{name}_sessions.tsv", rows[["session_id", "age"]])


def _write(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as partial:
        table.fillna("").replace("", "n/a").to_csv(partial, sep="\t", index=False)
