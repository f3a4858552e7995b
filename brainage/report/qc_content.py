"""What a page of quality control says, gathered from the files of ``brainage preprocess``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from brainage.errors import InputError

STATUSES = ("failed", "warning", "ok")
# Figures with a column of their own, with what they mean and the decimals worth printing.
COLUMNS: dict[str, tuple[str, int]] = {
    "registration_ncc": ("Likeness of the aligned brain and the template (correlation)", 2),
    "head_ncc": ("Likeness of the aligned head and the head template (correlation)", 2),
    "brain_volume_ml": ("Volume of the brain mask, ml", 0),
    "cjv": ("Overlap of grey and white matter (coefficient of joint variation)", 2),
    "snr_wm": ("Signal-to-noise ratio in white matter", 1),
    "efc": ("Blur, ghosts and noise (entropy focus criterion)", 2),
    "gsr": ("Ghosts in the air over the brain's signal (ghost-to-signal ratio), as of motion", 3),
    "inu_range": ("Unevenness of the field before correction", 2),
    "left_right": ("Asymmetry: +1 as most brains, -1 as their mirror images", 2),
}
_TEXT = ("participant_id", "session_id", "path", "status", "message", "seconds")


@dataclass(frozen=True)
class QcEntry:
    """One scan of the page.

    Attributes:
        name: its BIDS entities, or the file's name.
        path: as in ``status.tsv``.
        status: ``ok``, ``warning`` or ``failed``.
        message: reasons.
        figures: by name.
        thumbnail: JPEG, if there is anything to show.
        picture: path of its picture from the page on, if one was drawn.
    """

    name: str
    path: str
    status: str
    message: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    thumbnail: bytes | None = None
    picture: str = ""


@dataclass(frozen=True)
class Strip:
    """The values of one figure over the cohort.

    Attributes:
        name, meaning: of the figure.
        low, high: ends of the scale.
        good: the range without a warning; None for an open end.
        points: value and status of each scan that has it.
        median, count: of them.
    """

    name: str
    meaning: str
    low: float
    high: float
    good: tuple[float | None, float | None]
    points: tuple[tuple[float, str], ...]
    median: float
    count: int

    def place(self, value: float) -> float:
        """0 to 100, from the lower to the upper end of the scale."""
        return round(100 * (value - self.low) / (self.high - self.low), 1)

    @property
    def band(self) -> tuple[float, float]:
        """Start and end of the good range on the scale, 0 to 100."""
        low = self.low if self.good[0] is None else self.good[0]
        high = self.high if self.good[1] is None else self.good[1]
        start, end = (min(100.0, max(0.0, self.place(value))) for value in (low, high))
        return start, max(start, end)


def read_status(folder: Path) -> pd.DataFrame:
    """``status.tsv`` of a preprocessing run: text columns as text, figures as numbers (NaN for none).

    Raises:
        InputError: no such table, or it lacks columns.
    """
    path = folder / "status.tsv"
    expected, remedy = "the output folder of brainage preprocess", "give that folder"
    if not path.is_file():
        raise InputError(folder, "no status.tsv in it", expected, remedy)
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(path, "no table", expected, remedy) from error
    missing = {"participant_id", "path", "status", "message"} - set(table.columns)
    if missing:
        raise InputError(path, f"no column {min(missing)}", expected, remedy)
    table = table.replace("n/a", "")
    for name in table.columns.difference(list(_TEXT)):
        table[name] = pd.to_numeric(table[name], errors="coerce")
    return table


def figures_of(row: Mapping[str, object]) -> dict[str, float]:
    """The figures in a row of :func:`read_status`; columns that are not numbers are no figures."""
    return {
        name: float(value)
        for name, value in row.items()
        if name not in _TEXT and isinstance(value, float) and math.isfinite(value)
    }


def in_order(entries: Iterable[QcEntry]) -> list[QcEntry]:
    """Failed scans first, then those with warnings, each by name."""
    rank = {status: place for place, status in enumerate(STATUSES)}
    return sorted(entries, key=lambda entry: (rank.get(entry.status, 0), entry.name))


def strips(
    entries: Sequence[QcEntry], limits: Mapping[str, tuple[float | None, float | None]]
) -> list[Strip]:
    """Each figure of ``COLUMNS`` that the cohort has, over all scans.

    Args:
        entries: of the cohort.
        limits: range without a warning, by figure.
    """
    found = []
    for name, (meaning, _) in COLUMNS.items():
        points = [(entry.figures[name], entry.status) for entry in entries if name in entry.figures]
        if not points:
            continue
        values = np.array([value for value, _ in points])
        good = limits.get(name, (None, None))
        ends = [*values, *(end for end in good if end is not None)]
        margin = 0.05 * (max(ends) - min(ends)) or 1.0
        found.append(
            Strip(
                name,
                meaning,
                min(ends) - margin,
                max(ends) + margin,
                good,
                tuple(points),
                float(np.median(values)),
                len(points),
            )
        )
    return found


def mirrored_note(entries: Sequence[QcEntry]) -> str:
    """A sentence about the side of the whole cohort where most brains look mirrored; else empty."""
    values = np.array([entry.figures["left_right"] for entry in entries if "left_right" in entry.figures])
    swapped = int((values < 0).sum())
    if values.size < 3 or swapped <= values.size / 2:
        return ""
    return (
        f"{swapped} of {values.size} brains look like mirror images (left_right below 0, where 4 % are "
        "expected): left and right of this whole dataset may be swapped."
    )
