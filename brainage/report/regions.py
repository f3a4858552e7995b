"""The region table of a scan: how many years each region's tokens add to the predicted age."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import pandas as pd

from brainage.data.tables import read_table
from brainage.errors import InputError

_HEMISPHERES = {"L": "left", "R": "right"}


@dataclass(frozen=True)
class RegionRow:
    """A region, or a group of them: its contribution in years, and that as a share of the largest one."""

    region: str
    hemisphere: str
    group: str
    years: float
    share: float


def region_rows(path: str | PathLike[str]) -> list[RegionRow]:
    """Rows of a ``*_regions.tsv``, largest contribution (either sign) first.

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
    table = table.assign(years=pd.to_numeric(table["contribution_years"], errors="coerce")).dropna(
        subset="years"
    )
    largest = float(table["years"].abs().max()) if len(table) else 0.0
    table = table.sort_values("years", key=lambda years: years.abs(), ascending=False, kind="stable")
    return [
        RegionRow(
            region=_without_side(_words(row["region"]), str(row.get("hemisphere", ""))),
            hemisphere=_HEMISPHERES.get(str(row.get("hemisphere", "")), ""),
            group=_words(row.get("group", "")),
            years=float(row["years"]),
            share=float(row["years"]) / largest if largest else 0.0,
        )
        for row in table.to_dict("records")
    ]


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


def _without_side(name: str, side: str) -> str:
    """``insula`` of ``insula L``, since the side has its own column."""
    return name.removesuffix(f" {side}") if side in _HEMISPHERES else name


def _words(name: object) -> str:
    return str(name).replace("_", " ")
