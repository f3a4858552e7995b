"""The region table of a scan: how many years each region's tokens add to the predicted age."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainage.data.tables import read_table
from brainage.errors import InputError
from brainage.predict.reference import AgeReference

_HEMISPHERES = {"L": "left", "R": "right"}


@dataclass(frozen=True)
class RegionRow:
    """A region, or a group of them.

    Attributes:
        region, hemisphere, group: names; the hemisphere is empty for both.
        years: contribution.
        share: of the largest contribution, for a bar.
        healthy: the middle 90 % of healthy people at the reference age, years; None if not known.
        percentile: of healthy people with a smaller contribution, %.
        expert: with the largest share in the region.
        coverage: share of the region in the scan's field of view.
    """

    region: str
    hemisphere: str
    group: str
    years: float
    share: float
    healthy: tuple[float, float] | None = None
    percentile: float | None = None
    expert: str = ""
    coverage: float | None = None

    @property
    def name(self) -> str:
        """With its side, as in ``left insula``."""
        return f"{self.hemisphere} {self.region}".strip()

    @property
    def unusual(self) -> bool:
        """Outside the middle 90 % of healthy people."""
        return self.healthy is not None and not self.healthy[0] <= self.years <= self.healthy[1]


def region_rows(
    path: str | PathLike[str], facts: Mapping[str, Any] | None = None, age: float | None = None
) -> list[RegionRow]:
    """Rows of a ``*_regions.tsv``, largest contribution (either sign) first.

    Args:
        path: of the table.
        facts: of ``*_regions.json``, for the healthy people.
        age: years, at which they are looked at.

    Raises:
        InputError: no such file, or it lacks ``region`` or ``contribution_years``.
    """
    path = Path(path)
    table = read_table(path)
    for column in ("region", "contribution_years"):
        if column not in table:
            raise InputError(
                path, f"no column {column}", "the region table of brainage predict", "predict again"
            )
    table = table.assign(
        years=pd.to_numeric(table["contribution_years"], errors="coerce"),
        coverage=pd.to_numeric(table["coverage"], errors="coerce") if "coverage" in table else np.nan,
    )
    shares = [column for column in table if str(column).startswith("share_")]
    table["expert"] = _main_expert(table[shares]) if shares else ""
    references = _references(path, facts, len(table)) if age is not None else [None] * len(table)
    largest = float(table["years"].abs().max()) if table["years"].notna().any() else 0.0
    rows = [
        _row(row, reference, age, largest)
        for row, reference in zip(table.to_dict("records"), references, strict=True)
        if np.isfinite(row["years"])
    ]
    return sorted(rows, key=lambda row: -abs(row.years))


def group_rows(rows: Iterable[RegionRow]) -> list[RegionRow]:
    """Sums over the regions of each group, largest first; none where the regions have no groups."""
    years: dict[str, float] = {}
    for row in rows:
        if row.group:
            years[row.group] = years.get(row.group, 0.0) + row.years
    largest = max(map(abs, years.values()), default=0.0)
    return [
        RegionRow("", "", group, value, value / largest if largest else 0.0)
        for group, value in sorted(years.items(), key=lambda item: -abs(item[1]))
    ]


def _row(
    row: Mapping[Any, Any], reference: AgeReference | None, age: float | None, largest: float
) -> RegionRow:
    years = float(row["years"])
    region, hemisphere = side_and_name(str(row["region"]), str(row.get("hemisphere", "")))
    healthy = percentile = None
    if reference is not None and age is not None:
        healthy, percentile = reference.interval(age), reference.percent_below(years, age)
    return RegionRow(
        region=region,
        hemisphere=hemisphere,
        group=_words(row.get("group", "")),
        years=years,
        share=years / largest if largest else 0.0,
        healthy=healthy,
        percentile=percentile,
        expert=_words(row["expert"]),
        coverage=float(row["coverage"]) if np.isfinite(row["coverage"]) else None,
    )


def _references(path: Path, facts: Mapping[str, Any] | None, count: int) -> list[AgeReference | None]:
    """Of each row of the table; None where the model has none."""
    regions = (facts or {}).get("regions", [])
    if len(regions) != count:
        return [None] * count
    try:
        return [AgeReference.from_json(row["healthy"]) if row.get("healthy") else None for row in regions]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            path.with_suffix(".json"), "no usable reference", "a file of brainage predict", "predict again"
        ) from error


def _main_expert(shares: pd.DataFrame) -> pd.Series:
    """Name and share of the expert that did most in each region."""
    values = shares.apply(pd.to_numeric, errors="coerce").fillna(0.0)
    names = values.columns[values.to_numpy().argmax(1)].str.removeprefix("share_")
    largest = values.to_numpy().max(1)
    return pd.Series(
        [
            f"{name} ({100 * share:.0f} %)" if share > 0 else ""
            for name, share in zip(names, largest, strict=True)
        ],
        index=shares.index,
    )


def side_and_name(name: str, side: str) -> tuple[str, str]:
    """``("insula", "left")`` of ``insula L``, since the side has its own column."""
    words = _words(name)
    return words.removesuffix(f" {side}") if side in _HEMISPHERES else words, _HEMISPHERES.get(side, "")


def _words(name: object) -> str:
    return str(name).replace("_", " ")
