"""What a report says, gathered from the files that ``predict``, ``evaluate`` and ``train`` leave."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from brainage.data.participants import parse_participants
from brainage.data.tables import GAP_COLUMNS, PREDICTION_COLUMNS
from brainage.errors import InputError
from brainage.evaluate.ages import read_predictions
from brainage.predict.interval_scope import unknown_scope
from brainage.report.regions import RegionRow, group_rows, region_rows
from brainage.report.scan_files import read_facts

logger = logging.getLogger("brainage")

_VERSION_WORDS = ("model", "fingerprint", "version", "checkpoint")
_SCAN_SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class ScanEntry:
    """One scan of a report; ages in years, ``None`` where unknown.

    Attributes:
        quality: further figures of the row.
        level: of the interval.
        scope: the sentence on what the interval does not contain.
        path: the scan as ``predict`` was given it; never shown.
        prefix: path and beginning of the names of its maps; None without maps.
        facts: of ``*_regions.json``.
        problems: sentences on what could not be read.
        page: file name of the scan's own page, if it has one.
    """

    participant_id: str
    session_id: str
    file_name: str
    status: str
    message: str
    predicted_age: float | None
    interval: tuple[float, float] | None
    age: float | None
    quality: Mapping[str, str] = field(default_factory=dict)
    level: float | None = None
    scope: str = ""
    mosaic: Path | None = None
    regions: tuple[RegionRow, ...] = ()
    path: Path = Path()
    prefix: Path | None = None
    facts: Mapping[str, Any] | None = None
    problems: tuple[str, ...] = ()
    page: str = ""

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.participant_id, self.session_id) if part) or self.file_name

    @property
    def groups(self) -> list[RegionRow]:
        return group_rows(self.regions)

    @property
    def age_outside(self) -> bool:
        """Whether the chronological age is known and not in the interval."""
        return (
            self.age is not None
            and self.interval is not None
            and not self.interval[0] <= self.age <= self.interval[1]
        )

    @property
    def gap(self) -> float | None:
        if self.predicted_age is None or self.age is None:
            return None
        return self.predicted_age - self.age


@dataclass(frozen=True)
class Cohort:
    """All scans of a report and the versions that made their numbers."""

    scans: tuple[ScanEntry, ...]
    versions: Mapping[str, tuple[str, ...]]

    def count(self, status: str) -> int:
        return sum(scan.status == status for scan in self.scans)

    @property
    def flagged_first(self) -> list[ScanEntry]:
        """Failed scans, then those with a warning, then the others, each in the order of the file."""
        rank = {"failed": 0, "ok": 2}
        return sorted(self.scans, key=lambda scan: rank.get(scan.status, 1))

    @property
    def sessions(self) -> list[list[ScanEntry]]:
        """The scans of each participant who has several, in the order of age, else of their names."""
        people: dict[str, list[ScanEntry]] = {}
        for scan in self.scans:
            if scan.participant_id:
                people.setdefault(scan.participant_id, []).append(scan)
        several = [scans for scans in people.values() if len(scans) > 1]
        return [
            sorted(scans, key=lambda scan: (scan.age or 0.0, scan.session_id, scan.file_name))
            for scans in several
        ]

    @property
    def scopes(self) -> list[str]:
        """What the intervals do not contain, one sentence a model."""
        return list(dict.fromkeys(scan.scope for scan in self.scans if scan.predicted_age is not None))

    @property
    def has_ages(self) -> bool:
        return any(scan.age is not None for scan in self.scans)

    @property
    def scale(self) -> tuple[float, float]:
        """Round bounds, in years, that hold every age and interval of the cohort."""
        values = [
            value
            for scan in self.scans
            for value in (scan.predicted_age, scan.age, *(scan.interval or ()))
            if value is not None
        ]
        if not values:
            return 0.0, 100.0
        return 10.0 * math.floor(min(values) / 10), 10.0 * math.floor(max(values) / 10) + 10


def collect_cohort(
    ages: str | PathLike[str],
    participants: str | PathLike[str] | None = None,
    maps: str | PathLike[str] | None = None,
) -> Cohort:
    """Gather what the rows of an ages file and the folders of maps hold.

    Args:
        ages: the CSV of ``brainage predict``.
        participants: BIDS ``participants.tsv`` with chronological ages; without it those of the ages file.
        maps: the folder given to ``brainage predict --maps``.

    Raises:
        InputError: a file cannot be used.
    """
    table = read_predictions(ages)
    known_ages = _chronological_ages(participants) if participants is not None else {}
    scans = []
    for row in table.to_dict("records"):
        text = {str(name): value for name, value in row.items()}
        who, session = text["participant_id"], text["session_id"]
        mosaic = _file_of_scan(maps, text, "_mosaic.png")
        regions = _file_of_scan(maps, text, "_regions.tsv")
        prefix = regions.with_name(regions.name.removesuffix("_regions.tsv")) if regions else None
        age = known_ages.get((who, session), known_ages.get((who, "")))
        if participants is None:
            age = _number(text.get("age"))
        predicted = _number(text["predicted_age"])
        reference_age = predicted if age is None else age
        facts, problems = _facts(prefix)
        interval = _interval(text)
        scans.append(
            ScanEntry(
                participant_id=who,
                session_id=session,
                file_name=Path(text.get("path", "")).name,
                status=text["status"],
                message=text.get("message", ""),
                predicted_age=predicted,
                interval=interval,
                age=age,
                quality=_quality(text),
                level=_number(text.get("interval_level")),
                scope=text.get("interval_scope") or unknown_scope(interval is not None),
                mosaic=mosaic,
                regions=tuple(region_rows(regions, facts, reference_age)) if regions else (),
                path=Path(text.get("path", "")),
                prefix=prefix,
                facts=facts,
                problems=problems,
            )
        )
    return Cohort(tuple(scans), _versions(table))


def _chronological_ages(participants: str | PathLike[str]) -> dict[tuple[str, str], float]:
    people, notes = parse_participants(participants)
    for note in notes:
        logger.info("%s: %s", Path(participants).name, note)
    people = people.dropna(subset="age")
    keys = zip(people["participant_id"], people["session_id"], strict=True)
    return dict(zip(keys, people["age"], strict=True))


def _file_of_scan(maps: str | PathLike[str] | None, row: Mapping[str, Any], ending: str) -> Path | None:
    """The scan's file under ``maps/sub-X[_ses-Y]``; by its full name where the folder holds several."""
    if maps is None:
        return None
    folder = Path(maps) / "_".join(part for part in (row["participant_id"], row["session_id"]) if part)
    found = sorted(folder.glob(f"*{ending}")) if folder.is_dir() else []
    if len(found) <= 1:
        return found[0] if found else None
    stem = Path(row.get("path", "")).name
    for suffix in _SCAN_SUFFIXES:
        stem = stem.removesuffix(suffix)
    matching = [path for path in found if stem.startswith(path.name.removesuffix(ending))]
    return max(matching, key=lambda path: len(path.name), default=None)


def _facts(prefix: Path | None) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """What ``predict`` wrote of the scan and its model, or a sentence on why it cannot be used."""
    if prefix is None:
        return None, ()
    try:
        return read_facts(prefix), ()
    except InputError as error:
        return None, (str(error),)


def _interval(row: Mapping[str, Any]) -> tuple[float, float] | None:
    low, high = _number(row.get("interval_low")), _number(row.get("interval_high"))
    return None if low is None or high is None else (low, high)


def _quality(row: Mapping[str, Any]) -> dict[str, str]:
    """The row's other figures, rounded for reading."""
    figures = {}
    for name, value in row.items():
        # The columns that every file has are shown elsewhere on the page.
        elsewhere = name in (*PREDICTION_COLUMNS, *GAP_COLUMNS)
        if elsewhere or value == "" or any(word in name.lower() for word in _VERSION_WORDS):
            continue
        number = _number(value)
        figures[name.replace("_", " ")] = str(value) if number is None else f"{number:.4g}"
    return figures


def _versions(table: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Distinct values of the columns that say which model and preprocessing made the numbers."""
    names = [name for name in table if any(word in str(name).lower() for word in _VERSION_WORDS)]
    found = {str(name).replace("_", " "): tuple(sorted(set(table[name]) - {""})) for name in names}
    return {name: values for name, values in found.items() if values}


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
