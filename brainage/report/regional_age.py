"""The age that each region of a scan looks by itself, beside healthy people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from brainage.errors import InputError
from brainage.predict.reference import AgeReference
from brainage.report.regions import side_and_name


@dataclass(frozen=True)
class RegionalRow:
    """A region by itself; years.

    Attributes:
        region, hemisphere: names; the hemisphere is empty for both.
        looks: its age, None where a region errs no less than guessing or lies outside the scan.
        error: root mean square, of people the region's model had not seen.
        healthy: what the middle 90 % of healthy people of the reference age look in this region.
        percentile: of healthy people whose region looks younger, %.
    """

    region: str
    hemisphere: str
    looks: float | None = None
    error: float | None = None
    healthy: tuple[float, float] | None = None
    percentile: float | None = None

    @property
    def unusual(self) -> bool:
        """Outside the middle 90 % of healthy people."""
        return (
            self.looks is not None
            and self.healthy is not None
            and not self.healthy[0] <= self.looks <= self.healthy[1]
        )


@dataclass(frozen=True)
class RegionalTable:
    """All regions, the oldest beside the healthy first, on one scale from ``low`` to ``high``, years."""

    rows: tuple[RegionalRow, ...]
    low: float
    high: float

    @property
    def compared(self) -> bool:
        """Whether healthy people of the reference age are known."""
        return any(row.healthy is not None for row in self.rows)


def regional_table(facts: Mapping[str, Any], age: float | None) -> RegionalTable | None:
    """The regions by themselves; None for a model without regional ages.

    Args:
        facts: of ``*_regions.json``.
        age: years, at which healthy people are looked at.

    Raises:
        InputError: the file was not written by ``brainage predict``.
    """
    # What the atlas leaves out is no region.
    regions = [row for row in facts.get("regions", []) if row.get("group")]
    if not any(row.get("by_itself") for row in regions):
        return None
    try:
        rows = [_row(row, age) for row in regions]
    except (KeyError, TypeError, ValueError) as error:
        expected = "a file of brainage predict"
        raise InputError("*_regions.json", "no usable regional age", expected, "predict again") from error
    rows.sort(key=lambda row: (row.looks is None, -_rank(row)))
    ends = [row.looks for row in rows if row.looks is not None]
    ends += [end for row in rows for end in (row.healthy or ())]
    return RegionalTable(tuple(rows), 10 * math.floor(min(ends) / 10), 10 * math.ceil(max(ends) / 10))


def _rank(row: RegionalRow) -> float:
    """Percentile, or years for a model that knows too few healthy people."""
    value = row.percentile if row.percentile is not None else row.looks
    return 0.0 if value is None else value


def _row(facts: Mapping[str, Any], age: float | None) -> RegionalRow:
    region, hemisphere = side_and_name(str(facts["region"]), str(facts.get("hemisphere", "")))
    own = facts.get("by_itself")
    if not own:
        return RegionalRow(region, hemisphere)
    looks, error = float(own["age"]), float(own["error"])
    healthy = percentile = None
    if own.get("healthy") and age is not None:
        reference = AgeReference.from_json(own["healthy"])
        healthy, percentile = reference.interval(age), reference.percent_below(looks, age)
    return RegionalRow(region, hemisphere, looks, error, healthy, percentile)
