"""Predicted ages joined with the ages that a BIDS ``participants.tsv`` gives, and who was left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import pandas as pd

from brainage.data.participants import OLDEST, parse_participants
from brainage.data.tables import read_table, with_bids_ids
from brainage.errors import InputError

# What a file of predictions may say beside them: intervals, the line of age bias that its model carries, and
# the fold that a scan was left out of.
EXTRAS = ("interval_low", "interval_high", "interval_level", "bias_slope", "bias_intercept", "fold")
# What made the predictions, by the columns of ``brainage predict``.
MADE_BY = ("model", "model_fingerprint", "preprocessing_fingerprint")
_COLUMNS = ["participant_id", "session_id", "age", "predicted_age", "status", "sex", "site"]


@dataclass(frozen=True)
class JoinedAges:
    """What can be evaluated, and what could not.

    Attributes:
        table: one row a scan with ``participant_id, session_id, age, predicted_age, status, sex, site``;
            ages in years, ``session_id``, ``sex`` and ``site`` empty where unknown. Of ``EXTRAS`` those that
            the ages file has, as numbers.
        failed: rows of the ages file without a prediction.
        without_age: predicted rows whose participant has no usable chronological age.
        not_predicted: participants with an age that no row of the ages file names.
        notes: sentences on how the files were read (months converted, one age for all sessions, ...).
        made_by: the different values of ``MADE_BY`` among the rows with a prediction; none where the file
            does not say.
    """

    table: pd.DataFrame
    failed: int
    without_age: int
    not_predicted: int
    notes: tuple[str, ...]
    made_by: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_predictions(path: str | PathLike[str], column: str = "predicted_age") -> pd.DataFrame:
    """Rows of the file that ``brainage predict`` writes, ids as text and ``predicted_age`` in years.

    Args:
        path: the file, or another with its columns, such as ``cv_predictions.csv`` of a training.
        column: that holds the predictions.

    Raises:
        InputError: no such file, no table, no ``participant_id`` or ``column``, a prediction that
            is no age, or the same scan twice.
    """
    path = Path(path)
    table = read_table(path)
    for needed in ("participant_id", column):
        if needed not in table:
            raise InputError(
                path, f"no column {needed}", "the file that brainage predict writes", "give that file"
            )
    table = with_bids_ids(table, path)
    table["predicted_age"] = table[column]
    text = table["predicted_age"]
    table["predicted_age"] = pd.to_numeric(text, errors="coerce")
    wrong = text.ne("") & ~table["predicted_age"].between(-OLDEST, 2 * OLDEST)
    if wrong.any():
        raise InputError(
            path, f"predicted_age {text[wrong].iloc[0]!r}", "a number of years", "correct or remove that row"
        )
    if "status" not in table:
        table["status"] = "ok"
    table.loc[table["predicted_age"].isna(), "status"] = "failed"
    scan = [column for column in ("participant_id", "session_id", "path") if column in table]
    twice = table.duplicated(scan)
    if twice.any():
        who = table.loc[twice, "participant_id"].iloc[0] or "a row without an id"
        raise InputError(
            path, f"the same scan of {who} twice", "one row for each scan", "remove one of the two"
        )
    return table


def join_ages(
    ages: str | PathLike[str],
    participants: str | PathLike[str] | None = None,
    column: str = "predicted_age",
) -> JoinedAges:
    """Pair each prediction with its participant's age, by session too where both files name sessions.

    Args:
        ages: the file of predictions.
        participants: ``participants.tsv``; without it the ages file must have a column ``age`` of its own.
        column: of the ages file that holds the predictions.

    Raises:
        InputError: either file cannot be used, or nothing is left to compare.
    """
    predictions = read_predictions(ages, column)
    for name in EXTRAS:
        if name in predictions:
            predictions[name] = pd.to_numeric(predictions[name], errors="coerce")
    if participants is None:
        return _with_own_ages(predictions, Path(ages))
    people, notes = parse_participants(participants)
    keys = ["participant_id"]
    if (people["session_id"] != "").any():
        keys.append("session_id")
    else:
        people = people.drop(columns="session_id")
        if predictions.loc[predictions["session_id"] != "", "participant_id"].duplicated().any():
            notes.append(
                "one age for all sessions of a participant, since participants.tsv names no sessions"
            )
    predicted = predictions[predictions["status"] != "failed"]
    table = predicted.merge(people, on=keys, how="left", suffixes=("_predicted", ""), validate="many_to_one")
    usable = table["age"].notna()
    tried = predictions[keys].drop_duplicates()
    reached = people.dropna(subset="age").merge(tried, on=keys, how="left", indicator=True)
    if not usable.any():
        raise InputError(
            ages,
            f"{len(predictions)} rows of which none has both a prediction and an age",
            f"participants that {Path(participants).name} names with an age in years",
            "check the ids of the two files and the ages of the second",
        )
    return JoinedAges(
        table=_kept(table[usable]),
        failed=int((predictions["status"] == "failed").sum()),
        without_age=int((~usable).sum()),
        not_predicted=int((reached["_merge"] == "left_only").sum()),
        notes=(*notes, *_mixed(predicted)),
        made_by=_made_by(predicted),
    )


def _with_own_ages(predictions: pd.DataFrame, path: Path) -> JoinedAges:
    """Predictions beside which the ages stand already."""
    if "age" not in predictions:
        raise InputError(
            path, "no column age", "chronological ages beside the predictions", "give --participants"
        )
    predictions["age"] = pd.to_numeric(predictions["age"], errors="coerce")
    failed = predictions["status"] == "failed"
    usable = predictions["age"].between(0, OLDEST) & ~failed
    if not usable.any():
        found = f"{len(predictions)} rows of which none has both a prediction and an age"
        raise InputError(path, found, "ages in years beside the predictions", "fill in the column age")
    return JoinedAges(
        table=_kept(predictions[usable]),
        failed=int(failed.sum()),
        without_age=int((~usable & ~failed).sum()),
        not_predicted=0,
        notes=(f"chronological ages are those of {path.name}", *_mixed(predictions[~failed])),
        made_by=_made_by(predictions[~failed]),
    )


def _made_by(predicted: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """What made the predictions, where the file says so."""
    named = {name: predicted[name] for name in MADE_BY if name in predicted}
    return {name: tuple(sorted(set(texts[texts != ""]))) for name, texts in named.items()}


def _mixed(predicted: pd.DataFrame) -> list[str]:
    """A sentence if not all predictions were made in one way."""
    made_by = _made_by(predicted)
    kinds = {"model_fingerprint": "models", "preprocessing_fingerprint": "kinds of preprocessing"}
    counts = [f"{len(made_by[key])} {kind}" for key, kind in kinds.items() if len(made_by.get(key, ())) > 1]
    return [f"the file mixes predictions of {' and '.join(counts)}"] if counts else []


def _kept(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of ``JoinedAges.table``."""
    columns = [*_COLUMNS, *(name for name in EXTRAS if name in table)]
    kept = table.reindex(columns=columns)
    for name in ("sex", "site"):
        kept[name] = kept[name].astype(object).where(kept[name].notna(), "")
    return kept.reset_index(drop=True)


def is_simulated(bids_dir: str | PathLike[str]) -> bool:
    """Whether ``dataset_description.json`` of a BIDS folder calls the data simulated."""
    description = Path(bids_dir) / "dataset_description.json"
    return description.is_file() and "simulat" in description.read_text("utf-8", errors="replace").lower()
